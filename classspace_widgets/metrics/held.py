"""One block as an affine map: its attention weights, norm scales and activation gates held at the values of a pass.

Attention adds up values with its weights; a norm divides by its scale; an activation multiplies by its gate,
``gate(h) = act(h) / h``, and the gated half of a SwiGLU by the other half.  With these numbers held at what they were in
the pass, all that is left is linear maps and biases, so the block is an affine map that gives the same output.

Every map ``y = A x + b`` on the way is pulled back by its transpose.  For a class with the slope ``g`` at ``y``,

    <g, y> = <A^T g, x> + <g, b>:

the slope at ``x`` is ``A^T g``, and ``<g, b>`` joins the share of the biases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn import functional

from classspace_widgets.lens import ClassLens
from classspace_widgets.models import UnsupportedModelError, attention_parts
from classspace_widgets.models.attention import is_linear, layer_scale

if TYPE_CHECKING:
    from torch import Tensor, nn

    from classspace_widgets.models import AttentionParts


class Slope(NamedTuple):
    """How class logits depend on a place, everything later held.

    Attributes
    ----------
    vectors : Tensor [B, K, T, N]
        Their slope by the N numbers of every token there.
    bias : Tensor [B, K]
        The share of the biases that come after the place.
    """

    vectors: Tensor
    bias: Tensor

    def __add__(self, other: Slope) -> Slope:  # type: ignore[override]
        """Slopes by two ways that lead on from one place."""
        return Slope(self.vectors + other.vectors, self.bias + other.bias)

    def alone(self) -> Slope:
        """The same slope with no share of biases, to be added to this one after a way round."""
        return Slope(self.vectors, torch.zeros_like(self.bias))

    def on(self, values: Tensor) -> Tensor:
        """What vectors ``[B, T, N]`` at the place bring to the logits: ``[B, T, K]``."""
        return torch.einsum("bktn,btn->btk", self.vectors, values.to(self.vectors))

    def before_bias(self, bias: Tensor | None) -> Slope:
        """The slope before a bias ``[N]`` is added."""
        if bias is None:
            return self
        return Slope(self.vectors, self.bias + self.vectors.sum(dim=2) @ bias.detach().to(self.vectors))

    def before_linear(self, weight: Tensor, bias: Tensor | None) -> Slope:
        """The slope before ``weight @ x + bias``."""
        vectors, share = self.before_bias(bias)
        return Slope(vectors @ weight.detach().to(vectors), share)

    def before_gate(self, gate: Tensor) -> Slope:
        """The slope before a product with held numbers ``[B, T, N]`` or ``[N]``."""
        gate = gate.to(self.vectors)
        return Slope(self.vectors * (gate.unsqueeze(1) if gate.ndim == 3 else gate), self.bias)

    def before_norm(self, norm: nn.Module | None, inputs: Tensor) -> Slope:
        """The slope before a norm with the scale that it has on ``inputs`` ``[B, T, N]``; its mean is taken, not held."""
        lens = ClassLens.fold(norm, self.vectors.new_zeros(0, inputs.shape[-1]), None)
        vectors, share = self.before_bias(getattr(norm, "bias", None))
        weight = getattr(norm, "weight", None)
        if weight is not None:
            vectors = vectors * weight.detach().to(vectors)
        if lens.centred:
            vectors = vectors - vectors.mean(dim=-1, keepdim=True)
        if lens.scaled:
            vectors = vectors / lens.sigma(inputs.to(vectors))[:, None, :, None]
        return Slope(vectors, share)


@dataclass(frozen=True)
class HeldAttention:
    """A block's attention with its norm, weights and scale held.

    Attributes
    ----------
    block : nn.Module
    parts : AttentionParts
    stream : Tensor [B, T, D]
        What the block is called with.
    weights : Tensor [B, H, T, T]
        Attention weights.
    """

    block: Any
    parts: AttentionParts
    stream: Tensor
    weights: Tensor

    def before(self, slope: Slope, *, heads: bool = False) -> tuple[Slope, Tensor | None]:
        """The slope before attention, and what passes through every head by the token that is read, ``[B, H, T, K]``."""
        (images, classes, tokens, _), count = slope.vectors.shape, self.parts.heads
        read = slope.before_linear(*self.parts.out_projection())
        split = read.vectors.reshape(images, classes, tokens, count, -1).permute(0, 3, 2, 1, 4)
        # One product for all classes: [B, H, T, K * D_head].
        back = self.weights.to(split).transpose(-1, -2) @ split.reshape(images, count, tokens, -1)
        back = back.view(images, count, tokens, classes, -1)
        through = None
        if heads:
            values = self.parts.values(self.block.norm1(self.stream)).to(back)
            through = torch.einsum("bhske,bhse->bhsk", back, values)
        weight, bias = self.parts.value_projection()
        joined = Slope(back.permute(0, 3, 2, 1, 4).reshape(images, classes, tokens, -1), read.bias)
        normed = joined.before_linear(weight.flatten(0, 1), None if bias is None else bias.flatten())
        return normed.before_norm(self.block.norm1, self.stream), through


@dataclass(frozen=True)
class HeldMlp:
    """A block's MLP with its norm, gates and scale held.

    Attributes
    ----------
    block : nn.Module
    stream : Tensor [B, T, D]
        The residual stream that the MLP reads: mid.
    """

    block: Any
    stream: Tensor

    def before(self, slope: Slope) -> Slope:
        """The slope before the MLP."""
        mlp = self.block.mlp
        scale = layer_scale(self.block, 2)
        if scale is not None:
            slope = slope.before_gate(scale)
        slope = slope.before_linear(mlp.fc2.weight, mlp.fc2.bias)
        weight, bias, gate, hidden = _gated(mlp, self.block.norm2(self.stream))
        if hidden is not None:
            slope = slope.before_norm(mlp.norm, hidden)
        return slope.before_gate(gate).before_linear(weight, bias).before_norm(self.block.norm2, self.stream)


def _gated(mlp: Any, inputs: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """The linear map whose output is gated, ``weight`` and ``bias``; its gates ``[B, T, M]``; the input of an inner norm."""
    inner = not isinstance(getattr(mlp, "norm", torch.nn.Identity()), torch.nn.Identity)
    if hasattr(mlp, "fc1_g"):
        gate = mlp.act(mlp.fc1_g(inputs))
        return mlp.fc1_x.weight, mlp.fc1_x.bias, gate, gate * mlp.fc1_x(inputs) if inner else None
    weight, bias = mlp.fc1.weight, mlp.fc1.bias
    if len(weight) == 2 * mlp.fc2.in_features:
        weights, biases = weight.chunk(2), (None, None) if bias is None else bias.chunk(2)
        gating = 1 if getattr(mlp, "gate_last", True) else 0
        gate = mlp.act(functional.linear(inputs, weights[gating], biases[gating]))
        weight, bias = weights[1 - gating], biases[1 - gating]
        return weight, bias, gate, gate * functional.linear(inputs, weight, bias) if inner else None
    before = mlp.fc1(inputs)
    after = mlp.act(before)
    return weight, bias, torch.where(before == 0, 0, after / before), after if inner else None


def require_held(block: nn.Module) -> AttentionParts:
    """The parts of a block's attention; `UnsupportedModelError` with the reason where the block cannot be held."""
    parts = attention_parts(block)
    reason = parts.split or parts.sources
    if reason is not None:
        raise UnsupportedModelError(
            f"flow is not defined for attention of type {type(parts.module).__name__}: {reason}"
        )
    mlp: Any = getattr(block, "mlp", None)
    name = type(mlp).__name__
    if not (hasattr(block, "norm1") and hasattr(block, "norm2")):
        raise UnsupportedModelError(
            f"flow is not defined for blocks of type {type(block).__name__}: expected a norm before attention and one "
            "before the MLP (norm1, norm2)"
        )
    first = [getattr(mlp, part, None) for part in ("fc1_g", "fc1_x" if hasattr(mlp, "fc1_g") else "fc1", "fc2")]
    wanted = first if hasattr(mlp, "fc1_g") else first[1:]
    if not all(is_linear(part) for part in wanted) or not hasattr(mlp, "act"):
        raise UnsupportedModelError(
            f"flow is not defined for an MLP of type {name}: expected linear maps (fc1, fc2) around one activation (act); "
            "merge adapters such as LoRA first"
        )
    if not isinstance(getattr(mlp, "gate", torch.nn.Identity()), torch.nn.Identity):
        raise UnsupportedModelError(f"flow is not defined for an MLP of type {name}: its gate reads other tokens")
    return parts
