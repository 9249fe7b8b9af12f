"""Hooks that collect what one forward pass adds to the residual stream; they come off whatever happens.

A hook is a function that torch calls with what goes into a module or comes out of it.  The embedding goes into the first
block.  What attention and MLP add comes out of the modules that hand it on (`models.sublayers.on_added`); where a block has
none, what it adds is the difference between what comes out and what goes in.  Every hook is entered into an `ExitStack`,
which removes it at the end of the pass, after an error too.

Hooks and flags belong to the model, not to a pass.  So one thread at a time may use a model (`exclusive`), and a pass runs
in evaluation mode, uncompiled, with no block computed twice (`evaluating`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from classspace_widgets.lookup import items_of, whole_number
from classspace_widgets.models import UnsupportedModelError, attention_parts
from classspace_widgets.models.adapter import unwrapped
from classspace_widgets.models.refusals import REMEDY
from classspace_widgets.models.sublayers import on_added
from classspace_widgets.points import SUBLAYERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from classspace_widgets.models import Adapter

    Choice = bool | Sequence[int] | Mapping[int, Sequence[int]]


_part: ContextVar[tuple[slice, int] | None] = ContextVar("images of a pass, and how many there are", default=None)


@contextmanager
def part_of_batch(images: slice, total: int) -> Iterator[None]:
    """Say which images of a batch the passes inside are of, where a batch is run in chunks."""
    token = _part.set((images, total))
    try:
        yield
    finally:
        _part.reset(token)


def rows_of_this_pass(values: Tensor) -> Tensor:
    """Rows of ``[B, ...]`` of the images of the present pass; all, where it is of all images."""
    part = _part.get()
    return values if part is None or len(values) != part[1] else values[part[0]]


def is_part_of_batch() -> bool:
    """Whether the present pass is of some images of a batch only."""
    part = _part.get()
    return part is not None and part[0].stop - part[0].start < part[1]


_LOCKS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()

KEPT_BY_BLOCK = ("attention_weights", "head_inputs", "attention_inputs", "mlp_keys")
"""What is kept on request, by block."""


class Recording(list["Tensor"]):
    """The increments ``[B, T, D]`` of a pass, in order, and what else was asked for.

    Attributes
    ----------
    attention_weights : dict of int to Tensor [B, H, T, T]
    head_inputs : dict of int to Tensor [B, T, H * D_head]
        Input of the attention's output projection.
    attention_inputs : dict of int to Tensor [B, T, D]
        Input of the attention, from which values follow.
    mlp_keys : dict of int to Tensor [B, T, M]
        Input of the MLP's output projection.
    last : Tensor [B, T, D] or None
        Output of the last block.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attention_weights: dict[int, Tensor] = {}
        self.head_inputs: dict[int, Tensor] = {}
        self.attention_inputs: dict[int, Tensor] = {}
        self.mlp_keys: dict[int, Tensor] = {}
        self.last: Tensor | None = None

    @classmethod
    def joined(cls, records: Sequence[Recording]) -> Recording:
        """One record of several chunks."""
        whole = cls()
        for parts in zip(*records, strict=True):
            whole.append(torch.cat(parts))
        for name in KEPT_BY_BLOCK:
            getattr(whole, name).update(
                {block: torch.cat([getattr(r, name)[block] for r in records]) for block in getattr(records[0], name)}
            )
        return whole


@contextmanager
def recording(
    adapter: Adapter, *, attention: Choice = False, heads: Choice = False, keys: Choice = False
) -> Iterator[Recording]:
    """Collect the increments of the pass run inside; hooks come off and flags go back on leaving, also after an error.

    Parameters
    ----------
    adapter : Adapter
    attention : bool, sequence of int, or mapping of int to sequence of int
        Keep attention weights: of all blocks, of some (numbered from 1), or of some heads of some blocks.
    heads : bool or sequence of int
        Keep the heads' outputs, of all blocks or of some.
    keys : bool or sequence of int
        Keep the MLPs' key coefficients, of all blocks or of some.

    Yields
    ------
    Recording
        A list of the increments, filled by the pass; ``attention_weights`` and the like are its attributes.

    Raises
    ------
    UnsupportedModelError
        Where something is asked for that the model's attention or MLP does not have.

    Examples
    --------
    >>> space = ClassSpace.bundled()
    >>> with recording(space.adapter) as increments:
    ...     _ = space.model(torch.zeros(1, 3, 96, 96))
    >>> len(increments), increments[0].shape  # x_0, a_1, m_1, ..., m_8
    (17, torch.Size([1, 145, 128]))
    """
    kept = Recording()
    with ExitStack() as stack:
        stack.enter_context(exclusive(adapter.model))
        on_increments(adapter, stack, kept.append)
        hook(
            stack,
            adapter.blocks[-1].register_forward_hook(
                lambda m, _a, out: setattr(kept, "last", _stream(out, m, "returns").detach())
            ),
        )
        for block, chosen in _chosen(attention, adapter, "attention", has_weights).items():
            _keep_weights(adapter, stack, kept, block, chosen)
        for block in _chosen(heads, adapter, "heads", has_heads):
            _keep_heads(adapter, stack, kept, block)
        for block in _chosen(keys, adapter, "keys", has_keys):
            _keep_keys(adapter, stack, kept, block)
        yield kept


def hook(stack: ExitStack, handle: Any) -> None:
    """Remove a hook when the stack closes."""
    stack.callback(handle.remove)


def on_increments(adapter: Adapter, stack: ExitStack, take: Callable[[Tensor], Any]) -> None:
    """Call ``take`` with every increment ``[B, T, D]`` during a pass, in the order in which they are added."""

    def first(module: nn.Module, args: tuple[Any, ...]) -> None:
        take(_stream(args[0] if args else None, module, "is called with").detach())

    def added(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
        take(output.detach())

    def difference(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        take(_stream(output, module, "returns").detach() - args[0].detach())

    hook(stack, adapter.blocks[0].register_forward_pre_hook(first))
    for block in adapter.blocks:
        parts: Any = block
        if adapter.points.sequential:
            for sublayer in SUBLAYERS:
                for handle in on_added(block, sublayer, added):
                    hook(stack, handle)
        elif hasattr(parts, "drop_path"):
            hook(stack, parts.drop_path.register_forward_hook(added))
        else:
            hook(stack, parts.register_forward_hook(difference))


def _stream(value: Any, block: nn.Module, does: str) -> Tensor:
    """The residual stream that a block is called with, or returns; refused where it is anything else."""
    if not isinstance(value, torch.Tensor):
        raise UnsupportedModelError(
            f"a block of type {type(block).__name__} {does} {_kind(value)} instead of the residual stream [B, T, D] as a "
            f"tensor; {REMEDY}"
        )
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "no positional argument"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (tuple, list, dict)) else "")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a pass, in one thread at a time, nothing compiled or computed twice; all goes back as it was."""
    with exclusive(model), ExitStack() as stack:
        training = [module for module in model.modules() if module.training]
        # Every pass brings hooks of its own, and compiled parts would be compiled anew for each.
        compiled = any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in model.modules())
        eager: Any = getattr(torch.compiler, "set_stance", None) if compiled else None
        for module in model.modules():
            for flag in ("grad_checkpointing", "gradient_checkpointing"):
                # Blocks that are run again on the way back would be recorded again.
                if module.__dict__.get(flag) is True:
                    setattr(module, flag, False)
                    stack.callback(setattr, module, flag, True)
        model.eval()
        try:
            with eager("force_eager") if eager else nullcontext():
                yield
        finally:
            for module in training:
                module.training = True


@contextmanager
def exclusive(model: nn.Module) -> Iterator[None]:
    """Let one thread at a time use a model: hooks and flags belong to the model, so they would change other passes too."""
    with _LOCKS_LOCK:
        lock = _LOCKS.setdefault(unwrapped(model), threading.RLock())
    with lock:
        yield


def has_weights(block: nn.Module) -> bool:
    """Whether a block has one attention map per head."""
    module: Any = getattr(block, "attn", None)
    return hasattr(module, "attn_drop") and "Diff" not in type(module).__name__


def has_heads(block: nn.Module) -> bool:
    """Whether a block's attention ends in one output projection."""
    return isinstance(getattr(getattr(block, "attn", None), "proj", None), torch.nn.Linear)


def has_keys(block: nn.Module) -> bool:
    """Whether a block's MLP ends in one output projection."""
    return isinstance(getattr(getattr(block, "mlp", None), "fc2", None), torch.nn.Linear)


def _chosen(
    choice: Choice, adapter: Adapter, name: str, has: Callable[[nn.Module], bool]
) -> dict[int, list[int] | None]:
    """Blocks, with the heads wanted of each (None: all)."""
    count = len(adapter.blocks)
    if choice is True:
        # "Everything" is everything that is defined; what is asked for by number is refused where it is not.
        return {b: None for b in range(1, count + 1) if has(adapter.blocks[b - 1])}
    if choice is False:
        return {}
    blocks, single = items_of(choice)
    if single:
        raise TypeError(f"{name} must be True, False or blocks such as [1, {count}], got {choice!r}")
    chosen: dict[int, list[int] | None] = {}
    for b in blocks:
        heads = items_of(choice[b])[0] if isinstance(choice, Mapping) else None
        block = whole_number(b, f"{name}: a block", 1, count)
        chosen[block] = (
            None if heads is None else [whole_number(h, f"{name}: a head", 0, adapter.heads - 1) for h in heads]
        )
    return chosen


def _keep_weights(adapter: Adapter, stack: ExitStack, kept: Recording, block: int, heads: list[int] | None) -> None:
    module: Any = attention_parts(adapter.blocks[block - 1]).module
    if not has_weights(adapter.blocks[block - 1]):
        raise UnsupportedModelError(f"attention of type {type(module).__name__} has no single attention map per head")
    unfuse(module, stack)

    def keep(_module: nn.Module, _args: tuple[Any, ...], weights: Tensor) -> None:
        kept.attention_weights[block] = weights.detach() if heads is None else weights.detach()[:, heads]

    hook(stack, module.attn_drop.register_forward_hook(keep))


def unfuse(module: Any, stack: ExitStack) -> None:
    """Let an attention form its weights until the stack closes."""
    if getattr(module, "fused_attn", False):
        # The fused kernel never forms the weights; the module's own explicit branch does.
        module.fused_attn = False
        stack.callback(setattr, module, "fused_attn", True)


def _keep_heads(adapter: Adapter, stack: ExitStack, kept: Recording, block: int) -> None:
    module: Any = attention_parts(adapter.blocks[block - 1]).module
    if not has_heads(adapter.blocks[block - 1]):
        raise UnsupportedModelError(f"attention of type {type(module).__name__} has no output projection to read")

    def entered(_module: nn.Module, args: tuple[Any, ...]) -> None:
        kept.attention_inputs[block] = args[0].detach()

    def projecting(_module: nn.Module, args: tuple[Any, ...]) -> None:
        kept.head_inputs[block] = args[0].detach()

    hook(stack, module.register_forward_pre_hook(entered))
    hook(stack, module.proj.register_forward_pre_hook(projecting))


def _keep_keys(adapter: Adapter, stack: ExitStack, kept: Recording, block: int) -> None:
    if not has_keys(adapter.blocks[block - 1]):
        raise UnsupportedModelError(
            f"block {block} has no MLP with one output projection, so it has no key coefficients"
        )

    def projecting(_module: nn.Module, args: tuple[Any, ...]) -> None:
        kept.mlp_keys[block] = args[0].detach()

    module: Any = adapter.blocks[block - 1]
    hook(stack, module.mlp.fc2.register_forward_pre_hook(projecting))
