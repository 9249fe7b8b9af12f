"""Where a class reading is taken, and its gradient: the part that all attention-based methods share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.lens.lens import in_full
from classspace_widgets.lookup import whole_number

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.lens import ClassLens

LOSSES = ("logit", "cross_entropy", "paper")


@dataclass(frozen=True)
class Readout:
    """From which token a class is read: one token, the mean token, or the mean of the tokens' readings.

    Attributes
    ----------
    weights : Tensor [T]
        Weights over tokens that sum to 1 (one of them 1 for a single token).
    norm_first : bool
        True: tokens are normalised, then averaged; False: averaged, then normalised.
    """

    weights: Tensor
    norm_first: bool

    @classmethod
    def of(cls, source: Any, tokens: int, token: int | None, kept: tuple[int, ...] | None = None) -> Readout:
        """Of an adapter or a trace: the model's own (``token=None``), or a token given by index."""
        if source.pooling == "pool" and token is None:
            raise (source if hasattr(source, "not_linear") else source.space.adapter).not_linear()
        prefix = len(source.prefix)
        pooled = source.pooling in ("mean_norm", "norm_mean")
        weights = torch.zeros(tokens, device="cpu")
        if token is not None or not pooled:
            token = 0 if token is None else whole_number(token, "token", 0, tokens - 1)
            weights[token] = 1.0
            return cls(weights, False)
        first = 0 if source.pool_prefix else prefix
        places = [t for t in (range(tokens) if kept is None else kept) if t >= first]
        weights[places] = 1.0 / len(places)
        return cls(weights, source.pooling == "norm_mean")

    def places(self) -> Tensor:
        """Indices of the tokens that are read."""
        return self.weights.nonzero().squeeze(1)

    def vectors(self, stream: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors ``[B, n, D]`` that pass through the lens, and their weights ``[n]``."""
        places = self.places().to(stream.device)
        weights = self.weights.to(stream)[places]
        chosen = stream[:, places]
        if self.norm_first or len(places) == 1:
            return chosen, weights
        return torch.einsum("t,btd->bd", weights, chosen).unsqueeze(1), weights.new_ones(1)

    def rows(self, matrices: Tensor) -> Tensor:
        """Rows of ``[..., T, T]`` averaged over the tokens that are read: ``[..., T]``."""
        places = self.places().to(matrices.device)
        return torch.einsum("t,...ts->...s", self.weights.to(matrices)[places], matrices[..., places, :])


def reading_gradient(lens: ClassLens, vectors: Tensor, weights: Tensor, classes: Tensor, loss: str) -> Tensor:
    """Gradient of class readings with respect to the vectors, summed over them with weights.

    For the logit of class c at a vector u,

        d lens_c / d u = E_hat_c / sigma - (E_hat_c u) (u - mean u) / (D sigma^3)

    (no mean for an RMS norm).  Losses are linear combinations of classes at every vector: with p = softmax(lens(u)),

        cross_entropy  e_c - p                                (minus the gradient of the cross-entropy)
        paper          p * (d - <p, d>),  d = e_c - softmax(p)  (cross-entropy of the probabilities: softmax twice)

    Parameters
    ----------
    lens : ClassLens
    vectors : Tensor [B, n, D]
    weights : Tensor [n]
    classes : Tensor [B, K]
    loss : str

    Returns
    -------
    Tensor [B, K, D]
    """
    u = vectors.to(lens.folded.dtype)
    sigma = lens.sigma(u)
    if loss == "logit":
        # [B, K, D]: the same combination at every vector.
        rows = lens.folded[classes].unsqueeze(1)
        raw = torch.einsum("bnd,bkd->bnk", u, rows[:, 0])
    else:
        probabilities = lens.logits(u).softmax(dim=-1)
        target = torch.nn.functional.one_hot(classes, lens.folded.shape[0]).to(u.dtype).unsqueeze(1)
        if loss == "cross_entropy":
            combination = target - probabilities.unsqueeze(2)
        else:
            difference = target - probabilities.softmax(dim=-1).unsqueeze(2)
            p = probabilities.unsqueeze(2)
            combination = p * (difference - (p * difference).sum(dim=-1, keepdim=True))
        rows = combination @ lens.folded
        raw = torch.einsum("bnd,bnkd->bnk", u, rows)
    scale = weights.to(u) / sigma
    gradient = torch.einsum("bn,bnkd->bkd", scale, rows.expand(-1, u.shape[1], -1, -1))
    if not lens.scaled:
        return gradient
    centred = u - u.mean(dim=-1, keepdim=True) if lens.centred else u
    shrink = raw * (scale / sigma.square()).unsqueeze(-1) / u.shape[-1]
    return gradient - torch.einsum("bnk,bnd->bkd", shrink, centred)


def check_loss(loss: str) -> None:
    """Raise ``ValueError`` for an unknown loss."""
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {LOSSES}, got {loss!r}")


def differentiable_logits(lens: ClassLens, vectors: Tensor) -> Tensor:
    """Class logits ``[..., D] -> [..., C]`` that autograd sees through (the lens takes its scale from a kernel)."""
    u = vectors.to(lens.folded.dtype)
    if lens.scaled and lens.centred:
        u = torch.nn.functional.layer_norm(u, u.shape[-1:], eps=lens.eps)
    elif lens.scaled:
        u = u / (u.square().mean(dim=-1, keepdim=True) + lens.eps).sqrt()
    with in_full(u):
        return u @ lens.folded.T + lens.offset
