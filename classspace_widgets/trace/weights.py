"""Attention weights of single blocks, computed again from the stream that a trace holds.

A block computes its weights before anything else.  So it is run until they are there, and left.  What it is called with
besides the stream (rotary positions, a bias that blocks share) comes from a pass in which every block does nothing.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.models import UnsupportedModelError, attention_parts
from classspace_widgets.trace.hooks import evaluating, has_weights, hook, unfuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from classspace_widgets.models import Adapter


class _Reached(Exception):
    """The weights are there: the rest of the block is not run."""


def block_arguments(adapter: Adapter, grid: tuple[int, int]) -> list[dict[str, Any]]:
    """What a model calls each of its blocks with besides the stream, for pictures of this grid of patches."""
    found: list[dict[str, Any]] = []

    def skip(x: Tensor, **arguments: Any) -> Tensor:
        found.append(arguments)
        return x

    with evaluating(adapter.model), torch.no_grad(), _forwards(adapter, skip):
        adapter.model(adapter.blank_pixels(1, grid))
    return found


@contextmanager
def _forwards(adapter: Adapter, forward: Any) -> Iterator[None]:
    """Inside the context every block of the model does only this."""
    kept = [block.__dict__.get("forward") for block in adapter.blocks]
    try:
        for block in adapter.blocks:
            block.forward = forward
        yield
    finally:
        for block, own in zip(adapter.blocks, kept, strict=True):
            if own is None:
                block.__dict__.pop("forward", None)
            else:
                block.forward = own


def weights_of(block: nn.Module, stream: Tensor, arguments: dict[str, Any]) -> Tensor:
    """Attention weights ``[B, H, T, T]`` of a block from the stream ``[B, T, D]`` that it is called with."""
    module: Any = attention_parts(block).module
    if not has_weights(block):
        raise UnsupportedModelError(f"attention of type {type(module).__name__} has no single attention map per head")
    found: list[Tensor] = []

    def reached(_module: nn.Module, _args: tuple[Any, ...], weights: Tensor) -> None:
        found.append(weights)
        raise _Reached

    with ExitStack() as stack:
        unfuse(module, stack)
        hook(stack, module.attn_drop.register_forward_hook(reached))
        try:
            block(stream, **arguments)
        except _Reached:
            return found[0]
    raise UnsupportedModelError(f"attention of type {type(module).__name__} gave no attention weights in a pass")
