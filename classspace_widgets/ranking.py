"""Exact ranks and top classes of many rows of scores, at a fraction of the price of sorting them.

Ranks are counted: ``scores > target`` gives one byte per class, eight of which are added at a time as one 64-bit word
(no byte can overflow up to 255 words).  Top classes are found by group maxima: the k best scores lie in the k groups
with the largest maxima, so only those groups are looked into.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

WORD = 8
MOST_WORDS = 255
STEP = 5
SMALL = 256
"""Up to so many classes, top classes are looked for directly."""


def padded_classes(classes: int) -> int:
    """Number of columns that scores of ``classes`` classes are padded to (with scores below all others)."""
    if classes <= SMALL:
        return WORD * math.ceil(classes / WORD)
    groups = STEP * group_count(classes)
    return groups * math.ceil(classes / groups)


def group_count(classes: int) -> int:
    """Number of groups that the classes are dealt into, a multiple of 8."""
    return WORD * math.ceil(math.sqrt(1.6 * classes) / WORD)


def count_above(scores: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """How many scores of a row are strictly larger than its target: ``[n, C], [n, 1] -> [n]``, int64.

    Parameters
    ----------
    scores : Tensor [n, C]
        C a multiple of 8.
    target : Tensor [n, 1]
    mask : Tensor [n, C], bool, optional
        A buffer to work in.

    Examples
    --------
    >>> count_above(torch.arange(8.0).view(1, 8), torch.tensor([[5.0]]))
    tensor([2])
    """
    above = torch.gt(scores, target, out=mask) if mask is not None else scores > target
    total = None
    step = WORD * MOST_WORDS
    for start in range(0, scores.shape[-1], step):
        words = above[:, start : start + step].view(torch.int64).sum(dim=1)
        count = words.view(torch.uint8).view(-1, WORD).sum(dim=1)
        total = count if total is None else total + count
    assert total is not None
    return total


@dataclass(frozen=True)
class Found:
    """The best scores of rows, ``[n, k]`` best first, and where they were found (classes follow in `classes`)."""

    values: Tensor
    place: Tensor
    inner: Tensor | None = None
    outer: Tensor | None = None


def best(scores: Tensor, k: int, classes: int) -> Found:
    """The k largest scores of every row of ``[n, padded_classes(C)]``, exactly."""
    if classes <= SMALL:
        return Found(*scores.topk(k, dim=1))
    rows, groups = scores.shape[0], group_count(classes)
    members = scores.view(rows, -1, groups)
    # A maximum over few is several times quicker than one over many, so it is taken in two steps.
    maxima = scores.view(rows, STEP, -1).amax(dim=1).view(rows, -1, groups).amax(dim=1)
    outer = maxima.topk(k, dim=1, sorted=False).indices
    candidates = members.gather(2, outer.unsqueeze(1).expand(-1, members.shape[1], -1)).view(rows, k, -1)
    inner = candidates.amax(dim=1).topk(k, dim=1, sorted=False).indices
    last = candidates.gather(2, inner.unsqueeze(1).expand(-1, k, -1)).view(rows, -1)
    return Found(*last.topk(k, dim=1), inner, outer)


def found_classes(found: Found, classes: int) -> Tensor:
    """Class indices ``[..., k]`` of what `best` found; works on results stacked along leading axes."""
    if found.inner is None or found.outer is None:
        return found.place
    k, groups = found.place.shape[-1], group_count(classes)
    members = padded_classes(classes) // groups
    flat = (found.place // k) * members + found.inner.gather(-1, found.place % k)
    return (flat // k) * groups + found.outer.gather(-1, flat % k)
