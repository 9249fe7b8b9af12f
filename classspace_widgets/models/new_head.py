"""A linear classifier put into a vision transformer: what it reads of the tokens, and the features that it is given."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.lens.lens import norm_kind
from classspace_widgets.models.convert.pools import FirstAndMean
from classspace_widgets.models.head import has_pool, linear_head
from classspace_widgets.models.refusals import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

KINDS = ("token", "mean", "both", "pooled")
"""What a classifier may read: the first token ([CLS]), the mean of the image tokens, both side by side, or what a module of the
model's own makes of all tokens (attention pooling)."""


def own_kind(model: nn.Module) -> str:
    """What a model reads its answer from, or would if it had a classifier: one of `KINDS`.

    Parameters
    ----------
    model : nn.Module

    Returns
    -------
    str
    """
    if has_pool(model):
        return "both" if isinstance(model.attn_pool, FirstAndMean) else "pooled"
    if str(getattr(model, "global_pool", "token")) == "token" and _has_first(model):
        return "token"
    return "mean"


def possible_kinds(model: nn.Module) -> tuple[str, ...]:
    """What a classifier of a model could read with linear readings of single tokens, the model's own way first.

    A module of the model's own that pools its tokens stays, as does whatever a model that is not timm's does.

    Parameters
    ----------
    model : nn.Module

    Returns
    -------
    tuple of str
    """
    own = own_kind(model)
    if own in ("pooled", "both") or not hasattr(model, "forward_head"):
        return (own,)
    other = "mean" if own == "token" else "token"
    return (own, other) if other == "mean" or _has_first(model) else (own,)


def install_head(model: nn.Module, kind: str, classes: int) -> nn.Linear:
    """Give a model a classifier of zeros that reads its tokens in some way; the model itself is changed.

    Parameters
    ----------
    model : nn.Module
        A timm vision transformer.
    kind : str
        One of `KINDS`.
    classes : int

    Returns
    -------
    nn.Linear
        The classifier, for weights to be copied into.

    Raises
    ------
    UnsupportedModelError
        For a model that cannot read its tokens in that way.
    """
    owner: Any = model
    if linear_head(getattr(model, "head_dist", None)) is not None:
        raise UnsupportedModelError(
            f"{type(model).__name__} has two classifiers, and fitting makes one; use the model without distillation, or pass "
            "the embedding yourself: ClassSpace(model, class_embedding=[C, D])"
        )
    _read(model, kind)
    parameter = next(model.parameters())
    width = int(getattr(owner.attn_pool, "out_features", owner.embed_dim)) if has_pool(model) else int(owner.embed_dim)
    head = torch.nn.Linear(width, classes, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    owner.head, owner.num_classes = head.eval(), classes
    return head


def _read(model: nn.Module, kind: str) -> None:
    """Set what a model makes of its tokens in front of the classifier."""
    owner: Any = model
    name = type(model).__name__
    if kind not in KINDS:
        raise ValueError(f"features must be 'auto' or one of {', '.join(map(repr, KINDS))}, got {kind!r}")
    if kind == own_kind(model) and (kind != "mean" or str(getattr(model, "global_pool", "avg")) == "avg"):
        return
    if kind == "pooled":
        raise UnsupportedModelError(f"{name} has no module that pools its tokens; pass features='token' or 'mean'")
    if not hasattr(model, "global_pool"):
        raise UnsupportedModelError(f"{name} does not say how it pools its tokens (global_pool); pass features='auto'")
    if kind == "token" and not _has_first(model):
        raise UnsupportedModelError(f"{name} has no [CLS] token; pass features='mean'")
    if kind == "both":
        if not hasattr(model, "attn_pool") or norm_kind(getattr(model, "fc_norm", None)) != "identity":
            raise UnsupportedModelError(
                f"{name} has no place for two kinds of features side by side; pass features='token' or 'mean'"
            )
        owner.attn_pool = FirstAndMean(owner.embed_dim, owner.num_prefix_tokens)
        owner.global_pool, owner.pool_include_prefix = "map", True
        return
    if has_pool(model):
        owner.attn_pool = None
    owner.global_pool = "token" if kind == "token" else "avg"


def _has_first(model: nn.Module) -> bool:
    return getattr(model, "cls_token", None) is not None


def features_of(model: nn.Module, pixels: Tensor, kinds: Sequence[str]) -> list[Tensor]:
    """What a classifier of each kind is given, ``[B, F]``, from one pass; the model has a head of the first kind.

    Parameters
    ----------
    model : nn.Module
    pixels : Tensor [B, 3, height, width]
    kinds : sequence of str
        The model's own, then others of ``"token"`` and ``"mean"``.

    Returns
    -------
    list of Tensor [B, F]
    """
    owner: Any = model
    if len(kinds) == 1:
        with _input_of(owner.head) as kept:
            model(pixels)
        return [kept[0]]
    tokens = owner.forward_features(pixels)
    found, before = [], owner.global_pool
    try:
        for kind in kinds:
            owner.global_pool = before if kind == kinds[0] else "token" if kind == "token" else "avg"
            found.append(owner.forward_head(tokens, pre_logits=True))
    finally:
        owner.global_pool = before
    return found


@contextmanager
def _input_of(head: nn.Module) -> Iterator[list[Tensor]]:
    kept: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _head, args: kept.append(args[0]))
    try:
        yield kept
    finally:
        handle.remove()
