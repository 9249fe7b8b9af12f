"""The gradient of a class reading with respect to the vectors that it is read from, which several methods share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from classspace_widgets.lens import Readout
from classspace_widgets.lens.lens import full_precision

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.lens import ClassLens
    from classspace_widgets.models import Adapter

LOSSES = ("logit", "cross_entropy", "paper")


def linear_readout(adapter: Adapter, n_tokens: int, token: int | None = None) -> Readout:
    """The model's own readout (``token=None``), or that of a token; refused where a module of the model pools the tokens."""
    if token is not None:
        return Readout.at(token, n_tokens)
    if not adapter.linear:
        raise adapter.not_linear()
    return Readout.of(adapter, n_tokens)


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
    with full_precision(u):
        return u @ lens.folded.T + lens.offset
