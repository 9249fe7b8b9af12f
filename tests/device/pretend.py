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


@contextmanager
def pretended_cuda() -> Iterator[None]:
    """All tensors made inside are fake; skips where this torch cannot pretend."""
    parts = {"numpy": _array, "tolist": _list, "__array__": _array}
    kept = {name: FakeTensor.__dict__.get(name) for name in parts}
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        for name, part in parts.items():
            setattr(FakeTensor, name, part)
        with FakeTensorMode(allow_non_fake_inputs=True):
            try:
                torch.empty(2, 2, device=CUDA)[:, 0] + 1  # torch 2.4 asks a driver to index
            except (RuntimeError, AssertionError) as error:
                pytest.skip(f"this torch cannot pretend to have CUDA: {error}")
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
        for name, part in kept.items():
            if part is None:
                delattr(FakeTensor, name)
            else:
                setattr(FakeTensor, name, part)


class Waits(TorchDispatchMode):
    """Counts waits for the device by (what, place in the package); use inside `pretended_cuda`."""

    counting: ClassVar[list[Waits]] = []

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str]] = Counter()

    def __enter__(self) -> Waits:
        Waits.counting.append(self)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        Waits.counting.remove(self)
        super().__exit__(*error)

    def note(self, what: str) -> None:
        inside = [frame for frame in traceback.extract_stack() if "classspace_widgets/" in frame.filename]
        where = f"{inside[-1].filename.split('classspace_widgets/')[-1]}:{inside[-1].lineno}" if inside else "a test"
        self.found[what, where] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind, first = func.overloadpacket, args[0] if args else None
        there = isinstance(first, torch.Tensor) and first.device.type == "cuda"
        if kind is aten._local_scalar_dense:
            if there:
                self.note("one number")
            return True if first.dtype == torch.bool else 1.0 if first.is_floating_point() else 1
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
        if kind is aten.copy_ and first.device.type == "cpu" and args[1].device.type == "cuda":
            self.note("to the host")
        if kind in (aten.index, aten.index_put, aten.index_put_):
            places: list[Any] = []
            for index in args[1]:
                if index is None or index.dtype not in (torch.bool, torch.uint8):
                    places.append(index)
                    continue
                if index.device.type == "cuda":
                    self.note("boolean index")
                # As if every place were chosen.
                places += [torch.zeros(index.numel(), dtype=torch.long, device=index.device)] * index.ndim
            args = (first, places, *args[2:])
        return func(*args, **kwargs)
