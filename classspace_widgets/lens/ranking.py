"""Exact ranks by counting, and exact top classes, at a fraction of the price of sorting.

A rank is the number of strictly larger scores.  On a CPU the comparisons are written as ones into a buffer of floats and
summed, for which the processor's vector units are made.

The `Ranker` does the same in buffers that are made once, since fresh memory costs more than what is computed in it, and
finds the k best classes by group maxima: the classes are dealt into groups, and the k best scores lie in the k groups with
the largest maxima, so only those groups are looked into.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

COUNTED_CLASSES = 32
"""Up to so many classes are counted one by one; of more, all are sorted (measured: of 1000 classes 32 are counted in 1.6 ms,
and sorted in 7.9 ms, of 24 as quickly either way)."""

GROUP_MULTIPLE = 8
"""Numbers of groups, and of columns, are multiples of what a vector unit holds: eight float32."""

COARSE = 5
"""Scores of which a first maximum is taken, before that of a group; of 2 to 10, none was quicker where it was measured."""

GROUPS_SQUARED = 1.6
"""Square of the number of groups, for each class.  Groups should be about as many as their members, and with 1.6 the 1000
classes of ImageNet make 40 groups of 25, which `COARSE` divides: no column is padding."""

COUNTED_ROWS = 400
"""Rows whose ones are summed at a time on a CPU: 1.6 MB of 1000 classes, which stay in its cache."""

LONG_ROWS = 8192
"""From so many classes on, a row is counted by itself on a CPU: quicker by a third (11 rows of 21,843 classes), although it
takes a call for each."""

SORTED = 128
"""Up to so many columns a GPU sorts to find the best: ``topk`` selects digit by digit, with a block of threads to each row (not
measured yet: benchmarks/cuda.py times both)."""

DIRECT = 256
"""Up to so many classes, the best are looked for in all of them: groups would save nothing."""


def count_above(scores: Tensor, own: Tensor) -> Tensor:
    """How many scores are strictly larger than a score: its rank; 0 is best, and ties share the better rank.

    Parameters
    ----------
    scores : Tensor [..., C]
        Class logits (any positive multiple of them, plus any constant, gives the same ranks).  One that is NaN is not
        larger than any.
    own : Tensor [..., K]
        What to rank among them.

    Returns
    -------
    Tensor [..., K], int64
        0..C; -1 where ``own`` is NaN, as at tokens that were removed.

    Examples
    --------
    >>> count_above(torch.tensor([2.0, 5.0, 2.0]), torch.tensor([2.0, 5.0, torch.nan]))
    tensor([ 1,  0, -1])
    """
    scores, own = scores.detach(), own.detach()
    if own.shape[-1] == 0:
        return torch.empty(own.shape, dtype=torch.int64, device=own.device)
    if scores.device.type == "cpu" and scores.shape[-1] >= LONG_ROWS and scores.dtype != torch.bfloat16:
        return _row_by_row(scores, own).masked_fill_(own.isnan(), -1)
    if scores.device.type == "cpu":
        ones = torch.empty(scores.shape, dtype=_counting(scores.dtype, scores.shape[-1]))
        counts = [_ones_above(scores, one, ones) for one in torch.split(own, 1, dim=-1)]
    else:
        counts = [torch.count_nonzero(scores > one, dim=-1) for one in torch.split(own, 1, dim=-1)]
    return torch.stack(counts, dim=-1).long().masked_fill_(own.isnan(), -1)


def class_ranks(logits: Tensor, classes: Tensor | None = None) -> Tensor:
    """Rank of every class, or of some: `count_above` of each one's own logit.

    Parameters
    ----------
    logits : Tensor [..., C]
        Class logits.
    classes : Tensor [K], optional
        Rank only these classes.

    Returns
    -------
    Tensor [..., C] or [..., K], int64
        0 is best, ties share the better rank; -1 where a logit is NaN.

    Examples
    --------
    >>> class_ranks(torch.tensor([2.0, 5.0, 2.0]))
    tensor([1, 0, 1])
    """
    own = logits if classes is None else logits[..., classes]
    if own.shape[-1] <= COUNTED_CLASSES:
        return count_above(logits, own)
    # Sorted once, all larger scores of one stand behind it; NaN would be sorted as the largest.
    ordered = logits.masked_fill(logits.isnan(), -torch.inf).sort(dim=-1).values.contiguous()
    ranks = logits.shape[-1] - torch.searchsorted(ordered, own.contiguous(), right=True)
    return ranks.masked_fill_(own.isnan(), -1)


def _counting(dtype: torch.dtype, classes: int) -> torch.dtype:
    """A float type in which so many ones are summed exactly."""
    return torch.float64 if dtype == torch.float64 or classes > 2**24 else torch.float32


def _ones_above(scores: Tensor, own: Tensor, ones: Tensor) -> Tensor:
    """Number of larger scores ``[...]`` than ``own [..., 1]``, as floats; ``ones`` is a buffer of the scores' shape."""
    return torch.gt(scores, own, out=ones).sum(dim=-1)


def _row_by_row(scores: Tensor, own: Tensor) -> Tensor:
    """Number of scores ``[..., C]`` that are larger than each of ``own [..., K]``, for rows of many classes."""
    counts = torch.empty(own.shape, dtype=torch.int64)
    above = np.empty(scores.shape[-1], np.bool_)
    rows, targets = scores.flatten(0, -2).numpy(), own.flatten(0, -2).numpy()
    for row, some, found in zip(rows, targets, counts.flatten(0, -2).numpy(), strict=True):
        for k, one in enumerate(some):
            found[k] = np.count_nonzero(np.greater(row, one, out=above))
    return counts


def padded_classes(classes: int) -> int:
    """Number of columns that scores of ``classes`` classes are padded to (with scores below all others)."""
    if classes <= DIRECT:
        return GROUP_MULTIPLE * math.ceil(classes / GROUP_MULTIPLE)
    groups = COARSE * group_count(classes)
    return groups * math.ceil(classes / groups)


def group_count(classes: int) -> int:
    """Number of groups that the classes are dealt into, a multiple of 8."""
    return GROUP_MULTIPLE * math.ceil(math.sqrt(GROUPS_SQUARED * classes) / GROUP_MULTIPLE)


def found_directly(classes: int, k: int) -> bool:
    """Whether the k best of so many classes are looked for directly: among few classes, or for many of them."""
    if classes <= DIRECT:
        return True
    groups = group_count(classes)
    return k > min(groups, padded_classes(classes) // groups)


@dataclass(frozen=True)
class Found:
    """The best scores of rows, ``[n, k]`` best first, and where they were found (`found_classes` names them)."""

    values: Tensor
    place: Tensor
    inner: Tensor | None = None
    outer: Tensor | None = None


class Ranker:
    """Counts and finds in rows of scores ``[n, padded_classes(C)]``, up to ``rows`` of them at a time.

    Parameters
    ----------
    rows : int
        The most rows of one call.
    classes, k : int
        Number of classes C, and how many best ones to find.
    dtype, device
        Of the scores.
    """

    def __init__(self, rows: int, classes: int, k: int, *, dtype: torch.dtype, device: torch.device) -> None:
        self.classes, self.k = classes, k
        columns = padded_classes(classes)
        self.direct = found_directly(classes, k)

        def buffer(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty((rows, *shape), dtype=dtype, device=device)

        self.on_cpu = device.type == "cpu"
        counted = min(rows, COUNTED_ROWS) if self.on_cpu else 0
        self._above = torch.empty((counted, columns), dtype=dtype, device=device)
        if not self.direct:
            groups = group_count(classes)
            members = columns // groups
            self._coarse, self._maxima = buffer(columns // COARSE), buffer(groups)
            self._candidates, self._best = buffer(members, k), buffer(members)
            self._last = buffer(k, k)
            self._outer = buffer(k), buffer(k, dtype=torch.long)
            self._inner = buffer(k), buffer(k, dtype=torch.long)
        self._found = buffer(k), buffer(k, dtype=torch.long)

    def count_above(self, scores: Tensor, target: Tensor) -> Tensor:
        """How many scores of a row are strictly larger than its target: ``[n, C'], [n, 1] -> [n]``.

        Examples
        --------
        >>> ranker = Ranker(1, 8, 1, dtype=torch.float32, device=torch.device("cpu"))
        >>> ranker.count_above(torch.arange(8.0).view(1, 8), torch.tensor([[5.0]]))
        tensor([2], dtype=torch.int32)
        """
        if not self.on_cpu:
            return torch.gt(scores, target).sum(dim=1, dtype=torch.int32)
        step = len(self._above)
        # Sums of ones are exact in float32 up to 2^24 of them.
        counts = [
            _ones_above(some, own, self._above[: len(some)])
            for some, own in zip(torch.split(scores, step), torch.split(target, step), strict=True)
        ]
        return torch.cat(counts).to(torch.int32)

    def best(self, scores: Tensor) -> Found:
        """The k largest scores of every row, exactly.  The result lives in buffers: use it before the next call."""
        rows, k = len(scores), self.k
        if self.direct:
            return Found(*self._largest(scores, self._found))
        groups = group_count(self.classes)
        members = scores.view(rows, -1, groups)
        # A maximum over few is several times quicker than one over many, so it is taken in two steps.
        coarse, maxima = self._coarse[:rows], self._maxima[:rows]
        torch.amax(scores.view(rows, COARSE, -1), dim=1, out=coarse)
        torch.amax(coarse.view(rows, -1, groups), dim=1, out=maxima)
        outer = self._largest(maxima, self._outer, ordered=False)[1]
        candidates = self._candidates[:rows]
        torch.gather(members, 2, outer.unsqueeze(1).expand(-1, members.shape[1], -1), out=candidates)
        # Dealt anew into as many groups as before had members, and so once more.
        dealt = candidates.view(rows, k, -1)
        best = self._best[:rows]
        torch.amax(dealt, dim=1, out=best)
        inner = self._largest(best, self._inner, ordered=False)[1]
        last = self._last[:rows]
        torch.gather(dealt, 2, inner.unsqueeze(1).expand(-1, k, -1), out=last)
        return Found(*self._largest(last.view(rows, -1), self._found), inner, outer)

    def _largest(self, rows: Tensor, buffers: tuple[Tensor, Tensor], *, ordered: bool = True) -> tuple[Tensor, Tensor]:
        """The k largest numbers of every row, and their places; on a CPU in the buffers."""
        if not self.on_cpu and rows.shape[1] <= SORTED:
            values, places = rows.sort(dim=1, descending=True)
            return values[:, : self.k], places[:, : self.k]
        values, places = (buffer[: len(rows)] for buffer in buffers)
        torch.topk(rows, self.k, dim=1, sorted=ordered, out=(values, places))
        return values, places


def found_classes(found: Found, classes: int) -> Tensor:
    """Class indices ``[..., k]`` of what `Ranker.best` found; works on results stacked along leading axes."""
    if found.inner is None or found.outer is None:
        return found.place
    k, groups = found.place.shape[-1], group_count(classes)
    members = padded_classes(classes) // groups
    flat = (found.place // k) * members + found.inner.gather(-1, found.place % k)
    return (flat // k) * groups + found.outer.gather(-1, flat % k)
