"""`ClassLens`; the algebra stands in the package's text."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.describe import short_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

__all__ = ["ClassLens", "LiveLens"]


@dataclass(frozen=True, eq=False)
class ClassLens:
    """The final norm and the classifier of a model, folded into one linear map and a scale.

    Made by `ClassLens.fold`; a model's own is ``space.lens``.

    Attributes
    ----------
    folded : Tensor [C, D]
        ``E_hat``: the class embedding times the norm's weight, with the norm's mean subtraction folded in.
    offset : Tensor [C]
        What the lens adds to every reading: the norm's bias read through the class embedding, plus the
        classifier's bias.
    centred, scaled : bool
        Whether the final norm subtracts the mean (LayerNorm) and divides by a scale (LayerNorm, RMSNorm).
    eps : float
        The norm's epsilon.
    """

    __repr__ = short_repr

    folded: Tensor
    offset: Tensor
    centred: bool
    scaled: bool
    eps: float

    @classmethod
    def fold(cls, norm: nn.Module | None, embedding: Tensor, bias: Tensor | None) -> ClassLens:
        """Fold a norm layer and a class embedding ``[C, D]`` (with bias ``[C]``) into a lens.

        The lens is in float32 whatever the model's dtype (float64 for a float64 model).
        """
        weight = getattr(norm, "weight", None)
        shift = getattr(norm, "bias", None)
        dtype = torch.float64 if embedding.dtype == torch.float64 else torch.float32
        folded = embedding.detach().to(dtype)
        offset = bias.detach().to(dtype).clone() if bias is not None else folded.new_zeros(folded.shape[0])
        if shift is not None:
            with full_precision(folded):
                offset = offset + folded @ shift.detach().to(dtype)
        # Never the model's own tensor: a lens stays what it is when the model goes on learning.
        folded = folded.clone() if weight is None else folded * weight.detach().to(dtype)
        kind = norm_kind(norm)
        if kind == "layer":
            folded = folded - folded.mean(dim=1, keepdim=True)
        eps = getattr(norm, "eps", 0.0)
        # torch's RMSNorm has none of its own by default, and takes that of the precision.
        eps = torch.finfo(embedding.dtype).eps if eps is None else float(eps)
        return cls(folded.contiguous(), offset.contiguous(), kind == "layer", kind != "identity", eps)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of readings."""
        return self.folded.dtype

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that readings go through."""
        return self.folded, self.offset

    def sigma(self, vectors: Tensor) -> Tensor:
        """Scale of the final norm: ``[..., D] -> [...]``, 1 where the model has none."""
        if not self.scaled:
            return vectors.new_ones(vectors.shape[:-1])
        width = vectors.shape[-1]
        if self.centred and vectors.requires_grad:
            # The kernel below hides its statistics from autograd.
            return (vectors.var(dim=-1, correction=0) + self.eps).sqrt()
        if self.centred:
            # A norm's own statistics: several times quicker than `var`, and in one pass.
            scale: Tensor = torch.native_layer_norm(vectors, [width], None, None, self.eps)[2].squeeze(-1)
            return scale.reciprocal()
        norm: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
        return (norm.square() / width + self.eps).sqrt()

    def quick_sigma(self, vectors: Tensor) -> Tensor:
        """`sigma` from sums and norms: quicker, and as good unless a vector's mean is far larger than its spread."""
        if not (self.scaled and self.centred):
            return self.sigma(vectors)
        width = vectors.shape[-1]
        mean = vectors.sum(dim=-1) / width
        square: Tensor = torch.linalg.vector_norm(vectors, dim=-1).square_() / width
        return square.addcmul_(mean, mean, value=-1).clamp_min_(0).add_(self.eps).sqrt_()

    def raw(self, vectors: Tensor, classes: Tensor | None = None) -> Tensor:
        """Readings before the norm's scale: ``[..., D] -> [..., C]`` (or only ``classes`` ``[K]``)."""
        folded = self.folded if classes is None else self.folded[classes]
        with full_precision(folded):
            return vectors.to(folded.dtype) @ folded.T

    def pooled(self, vectors: Tensor) -> Tensor:
        """Class logits ``[B, C]`` of tokens ``[B, T, D]`` that the model's own module pools; see `PooledLens`."""
        raise NotImplementedError("a linear lens reads tokens one by one")

    def logits(self, vectors: Tensor, classes: Tensor | None = None) -> Tensor:
        """Class logits of vectors ``[..., D] -> [..., C]`` (or only ``classes`` ``[K]``)."""
        offset = self.offset if classes is None else self.offset[classes]
        return self.raw(vectors, classes) / self.sigma(vectors.to(self.folded.dtype)).unsqueeze(-1) + offset


class LiveLens:
    """The lens of a norm and a classifier as they are now: folded again when their weights have changed.

    Made by `ClassSpace`, whose ``space.lens`` asks it.

    Steps of an optimizer, ``load_state_dict`` and other changes in place are seen, and so are new tensors in the place
    of old ones; what is written through ``weight.data``, past autograd, is not.

    Parameters
    ----------
    norm : nn.Module or None
    classifier : callable
        Returns the class embedding ``[C, D]`` and the bias, ``[C]`` or None.
    pooled : callable, optional
        Of a model that pools all tokens by a module of its own: makes the lens from the class embedding and the bias.
    parts : sequence of nn.Module
        What ``pooled`` reads besides.
    """

    def __init__(
        self,
        norm: nn.Module | None,
        classifier: Callable[[], tuple[Tensor, Tensor | None]],
        *,
        pooled: Callable[[Tensor, Tensor | None], ClassLens] | None = None,
        parts: Sequence[nn.Module] = (),
    ) -> None:
        self._norm, self._classifier, self._pooled, self._parts = norm, classifier, pooled, tuple(parts)
        self._folded: tuple[list[Tensor], list[Any], ClassLens] | None = None

    def __call__(self) -> ClassLens:
        """The lens of this moment; the same object as long as nothing has changed."""
        embedding, bias = self._classifier()
        shown = (getattr(self._norm, "weight", None), getattr(self._norm, "bias", None), embedding, bias)
        parts = [one for one in shown if one is not None] + [one for part in self._parts for one in part.parameters()]
        states = [(one.dtype, one.device, None if one.is_inference() else one._version) for one in parts]
        if self._folded is not None:
            before, states_before, lens = self._folded
            if states == states_before and all(a is b for a, b in zip(parts, before, strict=True)):
                return lens
        with to_be_kept():
            lens = (
                ClassLens.fold(self._norm, embedding, bias) if self._pooled is None else self._pooled(embedding, bias)
            )
        self._folded = parts, states, lens
        return lens


@contextmanager
def to_be_kept() -> Iterator[None]:
    """For tensors that later calls use too: made in a caller's inference mode, they could never be differentiated through."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def full_precision(tensor: Tensor) -> Any:
    """A context without autocast, so that readings are as precise under a caller's autocast as elsewhere."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def norm_kind(norm: nn.Module | None) -> str:
    """``"layer"``, ``"rms"`` or ``"identity"``; raises for any other norm."""
    if norm is None or isinstance(norm, torch.nn.Identity):
        return "identity"
    name = type(norm).__name__.lower()
    if "rmsnorm" in name or "simplenorm" in name:
        return "rms"
    if isinstance(norm, torch.nn.LayerNorm) or "layernorm" in name:
        return "layer"
    raise ValueError(
        f"the final norm must be a LayerNorm, an RMSNorm or nothing, got {type(norm).__name__}; "
        "its scale cannot be separated from the class embedding"
    )
