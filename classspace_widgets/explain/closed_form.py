"""The paper's token importance without autograd (Vilas et al. 2023).

The importance of token s in head h of block l for class c is the gradient of the class reading of the attention
output at the output token, with respect to the attention weight from that token to s. The attention output is linear in the weights, ``a = sum_h sum_s A_h[s] (W_O,h V_h[s]) + b``, so

    d lens_c(a) / d A_h[s] = (d lens_c / d a) W_O,h V_h[s],        V_h[s] = W_V,h n_s + b_V,h.

This needs neither attention weights nor values: the gradient is multiplied back through ``W_O`` and ``W_V`` to the
attention's input n, where one product gives all tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from classspace_widgets.models import UnsupportedModelError, attention_parts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from classspace_widgets.models import AttentionParts


def checked_parts(block: nn.Module) -> AttentionParts:
    """The parts of a block's attention; raises `UnsupportedModelError` if the closed form does not hold."""
    parts = attention_parts(block)
    reason = parts.split or parts.sources
    if reason is not None:
        raise UnsupportedModelError(
            f"importance has no closed form for attention of type {type(parts.module).__name__}: {reason}; "
            "pass fallback='autograd' to differentiate instead"
        )
    return parts


def block_importance(parts: AttentionParts, gradient: Tensor, inputs: Tensor, *, heads: bool) -> Tensor:
    """Importance of every token in one block.

    Parameters
    ----------
    parts : AttentionParts
    gradient : Tensor [B, K, D]
        Gradient of the class readings with respect to the attention output.
    inputs : Tensor [B, T, D]
        The attention's input.
    heads : bool
        True: by head; False: summed over heads, which is cheaper.

    Returns
    -------
    Tensor [B, K, H, T] or [B, K, T]
    """
    dtype = gradient.dtype
    projection, _ = parts.out_projection()
    weight, bias = parts.value_projection()
    weight, inputs = weight.to(dtype), inputs.to(dtype)
    n_images, n_classes, _ = gradient.shape
    n_tokens, width = inputs.shape[1:]
    pulled = (gradient @ projection.to(dtype)).view(n_images, n_classes, parts.heads, -1)
    constant = 0.0 if bias is None else torch.einsum("bkhe,he->bkh", pulled, bias.to(dtype)).unsqueeze(-1)
    if heads:
        # Multiply every class back to the input, or every token forward to its values: whichever costs less.
        if n_classes * (width + parts.heads * n_tokens) < n_tokens * (width + n_classes):
            back = torch.einsum("bkhe,hed->bkhd", pulled, weight)
            return torch.einsum("bkhd,btd->bkht", back, inputs) + constant
        values = torch.einsum("btd,hed->bhte", inputs, weight)
        return torch.einsum("bkhe,bhte->bkht", pulled, values) + constant
    flat = weight.reshape(-1, width)
    pulled = pulled.flatten(2)
    if isinstance(constant, torch.Tensor):
        constant = constant.sum(dim=2)
    if n_classes <= n_tokens:
        return (pulled @ flat) @ inputs.transpose(1, 2) + constant
    return pulled @ (inputs @ flat.T).transpose(1, 2) + constant
