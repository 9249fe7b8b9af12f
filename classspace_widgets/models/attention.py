"""The parts of an attention that readings by head and by source token need, exact or refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from classspace_widgets.models.refusals import UnsupportedModelError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class AttentionParts:
    """One block's attention, taken apart.

    ``a = sum_h concat(A_h V_h) W_O + b`` holds where ``split`` is None; otherwise ``split`` says why not.

    Made by `attention_parts` and `Trace.attention_parts`.

    Attributes
    ----------
    module : nn.Module
        The attention.
    heads : int
        Number of heads H.
    split : str or None
        Why what attention adds is not the sum of its heads' outputs; None where it is.
    sources : str or None
        Why a head's output is not the weighted sum of its values; None where it is.
    """

    module: nn.Module
    block: nn.Module
    heads: int
    split: str | None
    sources: str | None

    def values(self, inputs: Tensor) -> Tensor:
        """Values ``[B, H, T, D_head]`` from the attention's input ``[B, T, D]``."""
        self.require_values()
        values = functional.linear(inputs, *self._value_map())
        split: Tensor = values.reshape(*values.shape[:2], self.heads // self._groups, -1).transpose(1, 2)
        return split.repeat_interleave(self._groups, dim=1) if self._groups > 1 else split

    def value_projection(self) -> tuple[Tensor, Tensor | None]:
        """Weight ``[H, D_head, D]`` and bias ``[H, D_head]`` that take the attention's input to values."""
        self.require_values()
        weight, bias = self._value_map()
        heads = self.heads // self._groups
        weight = weight.detach().reshape(heads, -1, weight.shape[-1])
        bias = None if bias is None else bias.detach().reshape(heads, -1)
        if self._groups > 1:
            weight = weight.repeat_interleave(self._groups, dim=0)
            bias = None if bias is None else bias.repeat_interleave(self._groups, dim=0)
        return weight, bias

    @property
    def _groups(self) -> int:
        """How many heads share their keys and values."""
        return int(getattr(self.module, "num_kv_groups", 1))

    def _value_map(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the linear map to the values."""
        module: Any = self.module
        if getattr(module, "qkv", None) is None:
            return module.v_proj.weight, module.v_proj.bias
        # BEiT and EVA keep the three biases apart and never call the qkv module itself.
        bias = getattr(module, "v_bias", None)
        size = module.qkv.out_features // 3
        if bias is None and module.qkv.bias is not None:
            bias = module.qkv.bias[-size:]
        return module.qkv.weight[-size:], bias

    def require_values(self) -> None:
        """Raise `UnsupportedModelError` where a head's output is not the weighted sum of its values."""
        if self.sources is not None:
            raise UnsupportedModelError(f"values of {type(self.module).__name__} are not defined: {self.sources}")

    def out_projection(self) -> tuple[Tensor, Tensor]:
        """Weight ``[D, H * D_head]`` and bias ``[D]`` of the output projection, LayerScale included."""
        if self.split is not None:
            raise UnsupportedModelError(f"heads of {type(self.module).__name__} cannot be told apart: {self.split}")
        projection: Any = self.module.proj
        scale = layer_scale(self.block, 1)
        weight = projection.weight.detach()
        bias = projection.bias.detach() if projection.bias is not None else weight.new_zeros(weight.shape[0])
        return (weight, bias) if scale is None else (weight * scale[:, None], bias * scale)


def layer_scale(block: nn.Module, sublayer: int) -> Tensor | None:
    """LayerScale ``[D]`` of a block's attention (1) or MLP (2), or None."""
    scale: Any = getattr(getattr(block, f"ls{sublayer}", None), "gamma", None)
    scale = scale if scale is not None else getattr(block, f"gamma_{sublayer}", None)
    return None if scale is None else scale.detach()


def is_linear(module: Any) -> bool:
    """Whether a module maps only by its weight and bias: a subclass that adds to them (LoRA) does not."""
    return isinstance(module, torch.nn.Linear) and type(module).forward is torch.nn.Linear.forward


def attention_parts(block: nn.Module) -> AttentionParts:
    """Take the attention of a block apart; ``split`` and ``sources`` say what cannot be.

    Parameters
    ----------
    block : nn.Module
        One transformer block.

    Returns
    -------
    AttentionParts

    Examples
    --------
    >>> import timm
    >>> parts = attention_parts(timm.create_model("test_vit").blocks[0])
    >>> parts.heads, parts.split, parts.sources
    (2, None, None)
    """
    module: Any = getattr(block, "attn", None)
    if module is None:
        reason = f"a block of type {type(block).__name__} adds attention and MLP together"
        return AttentionParts(block, block, int(getattr(block, "num_heads", 1)), reason, reason)
    split = sources = None
    if "Diff" in type(module).__name__:
        split = sources = "differential attention subtracts two attention maps and normalises each head"
    elif not is_linear(getattr(module, "proj", None)):
        split = sources = "it has no output projection that is a plain linear map (merge adapters such as LoRA first)"
    elif not is_linear(getattr(module, "qkv", None) or getattr(module, "v_proj", None)):
        sources = "its values are not a plain linear map of its input (merge adapters such as LoRA first)"
    if not isinstance(getattr(module, "norm", torch.nn.Identity()), torch.nn.Identity):
        sources = sources or "a norm acts on the heads' outputs before the output projection"
    if getattr(module, "gate", None) is not None:
        sources = sources or "a gate acts on the heads' outputs before the output projection"
    if not hasattr(module, "num_heads"):
        split = sources = split or "it does not say how many heads it has (num_heads)"
    if "Post" in type(block).__name__:
        split = split or "a norm acts on what attention adds, after the output projection"
    return AttentionParts(module, block, int(getattr(module, "num_heads", 1)), split, sources)
