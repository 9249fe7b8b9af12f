"""Changing attention in place: a model's own attention module runs unchanged except for its scaled dot product.

Every supported attention computes queries, keys and values in its own way (query/key norm, rotary or relative position,
gates, grouped queries) and then calls ``scaled_dot_product_attention``.  Only that call is replaced, while the
module's forward runs: no attention is implemented again, and the caller's model is as before afterwards.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from classspace_widgets.models import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    Drop = Callable[[Tensor], Tensor]

_REFUSED = {
    "DiffAttention": "differential attention subtracts two attention maps, so its edges have no single weight",
    "DiffParallelScalingBlock": "differential attention subtracts two attention maps",
}


class Product(Protocol):
    """A replacement for the scaled dot product of queries, keys and values, each ``[B, H, T, D_head]``."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, drop: Drop | None
    ) -> Tensor:
        """Compute the heads' outputs ``[B, H, T, D_head]``.

        ``bias`` is added to the scaled scores. ``drop`` is given if the module would compute attention weights explicitly
        (unfused, or in training); apply it to the weights.
        """
        ...


def attention_module(block: nn.Module) -> nn.Module:
    """The module of a block that computes scaled dot products; raises `UnsupportedModelError` with the reason."""
    module = getattr(block, "attn", block)
    name = type(module).__name__
    if name in _REFUSED:
        raise UnsupportedModelError(f"attention of type {name} cannot be intervened on: {_REFUSED[name]}")
    if not hasattr(module, "fused_attn"):
        raise UnsupportedModelError(
            f"attention of type {name} cannot be intervened on: it has no scaled dot product to replace"
        )
    return module


@contextmanager
def replaced_product(module: nn.Module, product: Product) -> Iterator[None]:
    """Inside the context, one attention module uses ``product`` as its scaled dot product."""
    original = module.forward
    own = "forward" in module.__dict__

    def forward(*args: Any, **kwargs: Any) -> Any:
        fused: Any = module.fused_attn
        explicit = not fused or module.training
        mode = _Replace(product, getattr(module, "attn_drop", torch.nn.Identity()) if explicit else None)
        # The fused branch of every module calls the function that is replaced.
        module.fused_attn = True  # type: ignore[assignment]
        try:
            with mode:
                result = original(*args, **kwargs)
        finally:
            module.fused_attn = fused
        if mode.calls != 1:
            raise UnsupportedModelError(
                f"attention of type {type(module).__name__} cannot be intervened on: expected one scaled dot product, "
                f"it computed {mode.calls}"
            )
        return result

    module.forward = forward
    try:
        yield
    finally:
        if own:
            module.forward = original
        else:
            del module.__dict__["forward"]


class _Replace(TorchFunctionMode):
    """Passes scaled dot products to ``product``; all other functions are unchanged."""

    def __init__(self, product: Product, drop: Drop | None) -> None:
        super().__init__()
        self.product = product
        self.drop = drop
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        self.calls += 1
        return self._call(*args, **kwargs)

    def _call(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if is_causal or enable_gqa:
            raise UnsupportedModelError("causal or grouped scaled dot products cannot be intervened on")
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, -math.inf)
        return self.product(query, key, value, attn_mask, scale or query.shape[-1] ** -0.5, self.drop)


def explicit_weights(query: Tensor, key: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Attention weights ``[B, H, T, T]``, computed as in timm's unfused branch."""
    scores = (query * scale) @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(dim=-1)


def masked(bias: Tensor | None, keep: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The additive bias, with the edges that are not kept masked before the softmax."""
    if keep is None:
        return bias
    masking = torch.zeros(keep.shape, dtype=dtype, device=keep.device).masked_fill_(~keep, -math.inf)
    return masking if bias is None else bias + masking


class AfterSoftmax:
    """Attention whose weights are set to 0 outside ``keep``, without renormalising.

    Readers that keep the same sources share one fused product over values that are 0 elsewhere. With more than
    ``max_groups`` groups of readers, explicit weights are cheaper.

    Parameters
    ----------
    keep : Tensor [1 or H, T, T], bool
        Edges that are kept, by reader and source; on the CPU.
    device : torch.device
        Where attention is computed.
    """

    max_groups = 3

    def __init__(self, keep: Tensor, device: torch.device) -> None:
        self.keep = keep.to(device)
        self.groups: list[tuple[Tensor | slice, Tensor | None]] | None = None
        if keep.shape[0] == 1:
            patterns, group = torch.unique(keep[0], dim=0, return_inverse=True)
            if len(patterns) <= self.max_groups:
                self.groups = [
                    (_indices(group == i, device), None if bool(p.all()) else p.unsqueeze(-1).to(device))
                    for i, p in enumerate(patterns)
                ]

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, drop: Drop | None
    ) -> Tensor:
        """See `Product`."""
        if drop is not None or self.groups is None:
            weights = explicit_weights(query, key, bias, scale) * self.keep
            return (weights if drop is None else drop(weights)) @ value
        result = value.new_empty(*query.shape[:-1], value.shape[-1])
        for readers, pattern in self.groups:
            result[:, :, readers] = functional.scaled_dot_product_attention(
                query[:, :, readers],
                key,
                value if pattern is None else value * pattern,
                attn_mask=None if bias is None else bias[..., readers, :],
                scale=scale,
            )
        return result


def _indices(chosen: Tensor, device: torch.device) -> Tensor | slice:
    """Indices of the chosen tokens on a device; a slice if they are contiguous, which avoids a copy."""
    indices = chosen.nonzero().squeeze(1)
    first, last = int(indices[0]), int(indices[-1])
    return slice(first, last + 1) if last - first + 1 == len(indices) else indices.to(device)
