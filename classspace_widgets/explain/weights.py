"""Attention weights during a pass: explicit, with gradients, or only the rows that are read."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from classspace_widgets.interventions.attention import attention_module, explicit_weights, replaced_product
from classspace_widgets.interventions.resume import plain_product

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from classspace_widgets.interventions.attention import Drop
    from classspace_widgets.models import Adapter


@contextmanager
def explicit_attention(adapter: Adapter, *, leaves: bool = False) -> Iterator[dict[int, Tensor]]:
    """Compute every block's attention weights ``[B, H, T, T]`` explicitly, and keep them by block.

    With ``leaves`` they are cut off from what they were computed from, so that gradients end at them.
    """
    kept: dict[int, Tensor] = {}

    def product(block: int) -> Callable[..., Tensor]:
        def compute(
            query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, _drop: Drop | None
        ) -> Tensor:
            weights = explicit_weights(query, key, bias, scale)
            if leaves:
                weights = weights.detach()
            if not weights.requires_grad and not weights.is_inference():
                weights.requires_grad_()
            # A block that is run again on the way back (gradient checkpointing) is the same block.
            kept.setdefault(block, weights)
            return weights @ value

        return compute

    with ExitStack() as stack:
        for number, block in enumerate(adapter.blocks, start=1):
            stack.enter_context(replaced_product(attention_module(block), product(number)))
        yield kept


@contextmanager
def read_rows(adapter: Adapter, take: Callable[[int, Tensor, Tensor], None], places: Tensor) -> Iterator[None]:
    """Hand over some rows of every block's attention, ``take(block, weights [B, H, n, T], values)``.

    The pass itself stays fused; only the rows at ``places`` ``[n]`` are computed again.
    """

    def product(block: int) -> Callable[..., Tensor]:
        def compute(
            query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, drop: Drop | None
        ) -> Tensor:
            at = places.to(query.device)
            rows = explicit_weights(query[:, :, at], key, None if bias is None else bias[..., at, :], scale)
            take(block, rows, value)
            return plain_product(query, key, value, bias, scale, drop)

        return compute

    with ExitStack() as stack:
        for number, block in enumerate(adapter.blocks, start=1):
            stack.enter_context(replaced_product(attention_module(block), product(number)))
        yield
