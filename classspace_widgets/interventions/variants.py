"""Scaled dot products in which every element of the batch is another variant of the same picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from classspace_widgets.interventions.attention import explicit_weights
from classspace_widgets.interventions.resume import plain_product

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.interventions.attention import Drop


class AblateOwnHead:
    """A product where the i-th variant's i-th chosen head is ablated."""

    def __init__(self, heads: Tensor, mode: str) -> None:
        self.heads = heads
        self.mode = mode

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, drop: Drop | None
    ) -> Tensor:
        """See `attention.Product`."""
        result = plain_product(query, key, value, bias, scale, drop).clone()
        own = torch.arange(len(self.heads), device=result.device)
        chosen = result[own, self.heads]
        result[own, self.heads] = chosen.mean(dim=1, keepdim=True).expand_as(chosen) if self.mode == "mean" else 0.0
        return result


class HideOwnToken:
    """A product where in the i-th variant only the i-th chosen token itself may read it."""

    def __init__(self, tokens: Tensor, renormalise: bool) -> None:
        self.tokens = tokens
        self.renormalise = renormalise

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, drop: Drop | None
    ) -> Tensor:
        """See `attention.Product`."""
        own = torch.arange(len(self.tokens), device=query.device)
        if self.renormalise:
            closed = query.new_zeros(len(own), 1, query.shape[2], key.shape[2])
            closed[own, 0, :, self.tokens] = float("-inf")
            closed[own, 0, self.tokens, self.tokens] = 0.0
            return plain_product(query, key, value, closed if bias is None else closed + bias, scale, drop)
        if drop is not None:
            weights = explicit_weights(query, key, bias, scale)
            diagonal = weights[own, :, self.tokens, self.tokens].clone()
            weights[own, :, :, self.tokens] = 0.0
            weights[own, :, self.tokens, self.tokens] = diagonal
            return drop(weights) @ value
        # One fused product over values that lack the token, and one for the token's own row.
        hidden = value.clone()
        hidden[own, :, self.tokens] = 0.0
        result = functional.scaled_dot_product_attention(query, key, hidden, attn_mask=bias, scale=scale)
        row = None if bias is None else bias.expand(len(own), *bias.shape[1:])[own, :, self.tokens].unsqueeze(2)
        single = query[own, :, self.tokens].unsqueeze(2)
        alone = functional.scaled_dot_product_attention(single, key, value, attn_mask=row, scale=scale)
        result[own, :, self.tokens] = alone.squeeze(2)
        return result
