"""Scaled dot products with a different intervention for every element of the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from classspace_widgets.interventions.attention import explicit_weights
from classspace_widgets.interventions.resume import plain_product

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.interventions.attention import Drop


class AblateHeads:
    """A product that ablates head ``heads[i]`` of element i."""

    def __init__(self, heads: Tensor, mode: str) -> None:
        self.heads = heads
        self.mode = mode

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, drop: Drop | None
    ) -> Tensor:
        """See `attention.Product`."""
        result = plain_product(query, key, value, bias, scale, drop).clone()
        element = torch.arange(len(self.heads), device=result.device)
        chosen = result[element, self.heads]
        result[element, self.heads] = chosen.mean(dim=1, keepdim=True).expand_as(chosen) if self.mode == "mean" else 0.0
        return result


class HideTokens:
    """A product in which token ``tokens[i]`` of element i is read by no token but itself."""

    def __init__(self, tokens: Tensor, renormalise: bool) -> None:
        self.tokens = tokens
        self.renormalise = renormalise

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, drop: Drop | None
    ) -> Tensor:
        """See `attention.Product`."""
        element = torch.arange(len(self.tokens), device=query.device)
        if self.renormalise:
            blocked = query.new_zeros(len(element), 1, query.shape[2], key.shape[2])
            blocked[element, 0, :, self.tokens] = float("-inf")
            blocked[element, 0, self.tokens, self.tokens] = 0.0
            return plain_product(query, key, value, blocked if bias is None else blocked + bias, scale, drop)
        if drop is not None:
            weights = explicit_weights(query, key, bias, scale)
            diagonal = weights[element, :, self.tokens, self.tokens].clone()
            weights[element, :, :, self.tokens] = 0.0
            weights[element, :, self.tokens, self.tokens] = diagonal
            return drop(weights) @ value
        # One fused product over values without the token, and one for the token's own row.
        hidden = value.clone()
        hidden[element, :, self.tokens] = 0.0
        result = functional.scaled_dot_product_attention(query, key, hidden, attn_mask=bias, scale=scale)
        row = None if bias is None else bias.expand(len(element), *bias.shape[1:])[element, :, self.tokens].unsqueeze(2)
        single = query[element, :, self.tokens].unsqueeze(2)
        own_row = functional.scaled_dot_product_attention(single, key, value, attn_mask=row, scale=scale)
        result[element, :, self.tokens] = own_row.squeeze(2)
        return result
