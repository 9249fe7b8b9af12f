"""Attention weights of a pass: explicit with gradients, or only the rows of some tokens."""

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
    """Compute every block's attention weights ``[B, H, T, T]`` explicitly, and collect them by block.

    With ``leaves`` they are detached from their inputs, so that gradients end at them.
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
            # With gradient checkpointing, the backward pass runs the block again: the first weights count.
            kept.setdefault(block, weights)
            return weights @ value

        return compute

    with ExitStack() as stack:
        for number, block in enumerate(adapter.blocks, start=1):
            stack.enter_context(replaced_product(attention_module(block), product(number)))
        yield kept


@contextmanager
def read_rows(adapter: Adapter, take: Callable[[int, Tensor, Tensor], None], places: Tensor) -> Iterator[None]:
    """Call ``take(block, weights [B, H, n, T], values)`` with some rows of every block's attention.

    The pass itself uses fused attention; only the rows of the tokens ``places`` ``[n]`` are computed explicitly as well.
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
