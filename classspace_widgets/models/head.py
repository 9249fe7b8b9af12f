"""What follows the last block of a model: the final norm, the pooling of tokens, and the classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from classspace_widgets.lens.lens import full_precision, norm_kind
from classspace_widgets.models.refusals import EMBEDDING_REMEDY, FIT, UnsupportedModelError, refuse_changed_head

if TYPE_CHECKING:
    from torch import Tensor, nn


def final_norm(model: nn.Module, name: str) -> nn.Module | None:
    """The one norm between the last block and the classifier; None where there is none."""
    norms = [getattr(model, part, None) for part in ("norm", "fc_norm")]
    try:
        found = [norm for norm in norms if norm_kind(norm) != "identity"]
    except ValueError as error:
        raise UnsupportedModelError(f"{name}: {error}") from None
    if len(found) > 1:
        raise UnsupportedModelError(
            f"{name} has two final norms in a row (norm and fc_norm), a single one was expected; "
            f"{EMBEDDING_REMEDY}, with class_norm='none'"
        )
    return found[0] if found else None


def linear_head(head: nn.Module | None) -> nn.Linear | None:
    """The linear layer that a head is, dropout and the like left aside; None where it is anything else."""
    if isinstance(head, torch.nn.Sequential):
        *before, last = list(head)
        plain = all(isinstance(m, (torch.nn.Dropout, torch.nn.Identity, torch.nn.Flatten)) for m in before)
        head = last if plain else None
    return head if isinstance(head, torch.nn.Linear) else None


def classifier_of(model: nn.Module) -> nn.Linear:
    """The model's linear classifier; refused where it has none."""
    name = type(model).__name__
    head = linear_head(getattr(model, "head", None))
    if head is None:
        found = getattr(model, "head", None)
        refuse_changed_head(found, name)
        kind = "no head at all" if found is None or isinstance(found, torch.nn.Identity) else type(found).__name__
        raise UnsupportedModelError(
            f"{name} has no linear classifier (found {kind}); {EMBEDDING_REMEDY}, or fit one: {FIT}"
        )
    return head


def given_embedding(
    model: nn.Module, embedding: Tensor, bias: Tensor | None, width: int
) -> tuple[Tensor, Tensor | None]:
    """A class embedding of the user's as ``[C, D]``, taken through the model's projection where it is of the joint space."""
    if embedding.ndim != 2 or 0 in embedding.shape:
        raise ValueError(f"class_embedding must have shape [C, D]=[C, {width}], got {tuple(embedding.shape)}")
    if not bool(torch.isfinite(embedding).all()):
        raise ValueError("class_embedding contains NaN or infinite values")
    if bias is not None and tuple(bias.shape) != (embedding.shape[0],):
        raise ValueError(f"class_bias must have shape [C]=({embedding.shape[0]},), got {tuple(bias.shape)}")
    head = linear_head(getattr(model, "head", None))
    parameter = next(model.parameters())
    embedding = embedding.detach().to(parameter)
    bias = None if bias is None else bias.detach().to(parameter)
    if embedding.shape[1] == width:
        return embedding, bias
    if head is not None and embedding.shape[1] == head.out_features:
        with full_precision(embedding):
            shift = None if head.bias is None else embedding @ head.bias.detach()
            total = bias if shift is None else shift if bias is None else bias + shift
            return embedding @ head.weight.detach(), total
    joint = f", or [C, {head.out_features}] to read through the model's projection" if head is not None else ""
    raise ValueError(f"class_embedding must have shape [C, D]=[C, {width}]{joint}, got {tuple(embedding.shape)}")


def has_pool(model: nn.Module) -> bool:
    """Whether a model pools its tokens by a module of its own."""
    return getattr(model, "attn_pool", None) is not None


def pooling_of(model: nn.Module, name: str, prefix: int, own: bool, class_norm: str) -> str:
    """How the answer is read from the tokens: one of `readout.POOLINGS`."""
    if class_norm not in ("final", "none", "pool"):
        raise ValueError(f"class_norm must be 'final', 'none' or 'pool', got {class_norm!r}")
    if class_norm == "pool" and not has_pool(model):
        raise ValueError(
            f"class_norm='pool' needs a model that pools its tokens by a module (attn_pool), {name} has none"
        )
    attentive = has_pool(model)
    if attentive and (own or class_norm == "pool"):
        return "pool"
    if own and linear_head(getattr(model, "head_dist", None)) is not None:
        return "distilled"
    pool = str(getattr(model, "global_pool", "token"))
    if pool == "token" and not attentive:
        return "token"
    if pool == "avg" and not attentive:
        return "mean_norm" if norm_kind(getattr(model, "fc_norm", None)) != "identity" else "norm_mean"
    if own:
        raise UnsupportedModelError(
            f"{name} pools its tokens by {pool!r} between the final norm and the classifier, so a token has no class "
            f"reading of its own; {EMBEDDING_REMEDY}, or fit a classifier that reads them otherwise: {FIT}"
        )
    # A foreign embedding reads tokens; without a pooling of the model's own it is summed up by the plainest one.
    return "token" if prefix else "norm_mean"
