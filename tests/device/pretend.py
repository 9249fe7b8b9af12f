"""Tensors that only pretend to be on CUDA, and a count of every moment at which the host would wait for the device.

Under ``FakeTensorMode`` tensors have shapes, dtypes and devices but no values, so that code runs as it would on a GPU
where there is none. What needs values is answered here (a number is 1, a condition is true, an array is zeros) and
counted: on a GPU each such answer would be a wait.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = "cuda:0"
aten = torch.ops.aten
SIZE_DEPENDS_ON_VALUES = (aten.nonzero, aten.masked_select, aten.unique_dim, aten._unique2, aten.unique_consecutive)
COMPARES = (aten.equal, aten.allclose)


def _array(self: torch.Tensor, *_: Any, **__: Any) -> np.ndarray[Any, Any]:
    like = torch.empty(0, dtype=torch.float32 if self.dtype == torch.bfloat16 else self.dtype, device="cpu")
    return np.zeros(tuple(self.shape), dtype=str(like.dtype).removeprefix("torch."))


def _list(self: torch.Tensor) -> Any:
    if self.device.type == "cuda":
        for waits in Waits.counting:
            waits.note("to the host")
    return _array(self).tolist()


def _grad(outputs: Any, inputs: Any, *_: Any, **__: Any) -> tuple[torch.Tensor, ...]:
    """Gradients have the inputs' shapes and devices; torch's own backward pass asks for a driver."""
    assert all(output.requires_grad for output in (outputs if isinstance(outputs, (list, tuple)) else [outputs]))
    return tuple(torch.empty_like(one) for one in ([inputs] if isinstance(inputs, torch.Tensor) else inputs))


def _pin_memory(self: torch.Tensor, device: Any = None) -> torch.Tensor:
    """The same tensor, which `Waits` then knows as one that a copy to the device need not be waited for."""
    self.pinned = True
    return self


class _Event:
    """What the host waits for when it needs what it fetched."""

    def record(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        for waits in Waits.counting:
            waits.note("to the host")


def _deepcopy(self: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    """torch's own reads the memory of tensors, and these have none."""
    copied = self.detach().clone()
    memo[id(self)] = copied = torch.nn.Parameter(copied) if isinstance(self, torch.nn.Parameter) else copied
    return copied


def _apply(self: torch.nn.Module, change: Any, recurse: bool = True) -> torch.nn.Module:
    """`Module._apply` that replaces parameters: torch's own swaps them, which fake tensors do not allow everywhere."""
    for module in self.modules() if recurse else [self]:
        for name, tensor in module._parameters.items():
            if tensor is not None:
                module._parameters[name] = torch.nn.Parameter(change(tensor.detach()), tensor.requires_grad)
        for name, tensor in module._buffers.items():
            if tensor is not None:
                module._buffers[name] = change(tensor)
    return self


@contextmanager
def pretended_cuda() -> Iterator[None]:
    """All tensors made inside are fake; skips where this torch cannot pretend."""
    parts = {
        "numpy": _array,
        "tolist": _list,
        "__array__": _array,
        "__deepcopy__": _deepcopy,
        "pin_memory": _pin_memory,
    }
    kept = {name: FakeTensor.__dict__.get(name) for name in parts}
    grad, torch.autograd.grad = torch.autograd.grad, _grad
    apply, torch.nn.Module._apply = torch.nn.Module._apply, _apply
    event, torch.cuda.Event = torch.cuda.Event, _Event
    stream, torch.cuda.current_stream = torch.cuda.current_stream, lambda device=None: None
    try:
        for name, part in parts.items():
            setattr(FakeTensor, name, part)
        with FakeTensorMode(allow_non_fake_inputs=True):
            try:
                torch.empty(2, 2, device=CUDA)[:, 0] + 1  # torch 2.4 asks a driver to index
            except (RuntimeError, AssertionError) as error:
                pytest.skip(f"this torch cannot pretend to have CUDA: {error}")
            with Waits():  # so that what needs values finds some, also where nothing is counted
                yield
    finally:
        torch.autograd.grad, torch.nn.Module._apply = grad, apply
        torch.cuda.Event, torch.cuda.current_stream = event, stream
        for name, part in kept.items():
            if part is None:
                delattr(FakeTensor, name)
            else:
                setattr(FakeTensor, name, part)


def _where() -> str:
    """Where in the package it is running."""
    inside = [frame for frame in traceback.extract_stack() if "classspace_widgets/" in frame.filename]
    return f"{inside[-1].filename.split('classspace_widgets/')[-1]}:{inside[-1].lineno}" if inside else "a test"


class Waits(TorchDispatchMode):
    """Counts waits for the device by (what, place in the package); use inside `pretended_cuda`.

    A number is answered with 1.  Values are pretended to be good: "all" is true, "any" is false, and nothing is NaN.
    """

    counting: ClassVar[list[Waits]] = []

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str]] = Counter()
        self.uploads: Counter[tuple[str, str]] = Counter()
        """Copies to the device that wait until it is done with everything before: those of memory that is not pinned, or not
        marked ``non_blocking``."""

    def __enter__(self) -> Waits:
        Waits.counting.append(self)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        Waits.counting.remove(self)
        super().__exit__(*error)

    def note(self, what: str) -> None:
        counted = self.uploads if what == "to the device" else self.found
        counted[what, _where()] += 1

    def copies(self, source: torch.Tensor, target: torch.Tensor | str, *, non_blocking: bool) -> None:
        """Note a copy between devices, if it waits."""
        to = target if isinstance(target, str) else target.device.type
        if source.device.type == "cuda" and to == "cpu":
            if not (non_blocking and getattr(target, "pinned", False)):
                self.note("to the host")
        elif (
            source.device.type == "cpu"
            and to.startswith("cuda")
            and not (non_blocking and getattr(source, "pinned", False))
        ):
            self.note("to the device")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind, first = func.overloadpacket, args[0] if args else None
        there = isinstance(first, torch.Tensor) and first.device.type == "cuda"
        if kind is aten._local_scalar_dense:
            if there:
                self.note("one number")
            return (
                getattr(first, "answer", True) if first.dtype == torch.bool else 1.0 if first.is_floating_point() else 1
            )
        if kind in COMPARES:
            if there:
                self.note("comparison")
            return True
        if kind in SIZE_DEPENDS_ON_VALUES:
            if there:
                self.note("size depends on values")
            if kind is aten.nonzero:
                return torch.empty((first.numel(), first.ndim), dtype=torch.long, device=first.device)
            if kind is aten.masked_select:
                return first.new_empty(first.numel())
            whole = torch.empty(first.shape[args[1]] if kind is aten.unique_dim else first.numel(), device=first.device)
            return first, whole.long(), whole.long()
        if kind in (aten._to_copy, aten.to) and there and str(kwargs.get("device", CUDA)).startswith("cpu"):
            self.note("to the host")
        if kind is aten.copy_:
            self.copies(args[1], first, non_blocking=(args[2:] or [kwargs.get("non_blocking", False)])[0])
        elif kind is aten._to_copy and not there and str(kwargs.get("device")).startswith("cuda"):
            self.copies(first, CUDA, non_blocking=kwargs.get("non_blocking", False))
        if kind in (aten.index, aten.index_put, aten.index_put_):
            places: list[Any] = []
            for index in args[1]:
                if index is None or index.dtype not in (torch.bool, torch.uint8):
                    if index is not None and there and index.device.type == "cpu":
                        self.note("to the device")
                    places.append(index)
                    continue
                if index.device.type == "cuda":
                    self.note("boolean index")
                # As if every place were chosen.
                places += [torch.zeros(index.numel(), dtype=torch.long, device=index.device)] * index.ndim
            args = (first, places, *args[2:])
        found = func(*args, **kwargs)
        if (
            kind is aten.isnan
            or (kind is aten.any and found.ndim == 0)
            or (kind is aten.all and not getattr(first, "answer", True))
        ):
            found.answer = False
        return found


class Kernels(TorchDispatchMode):
    """Counts operations that a GPU would be given to carry out: those that are no views and do more than set memory aside."""

    SET_ASIDE = (aten.empty, aten.new_empty, aten.empty_like, torch.ops.prim.device)

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        a_view = any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns)
        if not a_view and func.overloadpacket not in self.SET_ASIDE:
            self.found[str(func)] += 1
        return func(*args, **(kwargs or {}))
