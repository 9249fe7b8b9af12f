"""Exact ranks and top classes of many rows of scores, at a fraction of the price of sorting them.

Ranks are counted as sums of ones, in the scores' own type, for which the processor's vector units are made.  Top classes
are found by group maxima: the k best scores lie in the k groups with the largest maxima, so only those groups are looked
into.  All intermediate results go to buffers that are made once: fresh memory costs more than what is computed in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

WORD = 8
STEP = 5
COUNTED = 400
"""Rows whose ones are summed at a time on a CPU, while they are in its cache."""
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


def found_directly(classes: int, k: int) -> bool:
    """Whether the k best of so many classes are looked for directly: among few classes, or for many of them."""
    if classes <= SMALL:
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

        counted = min(rows, COUNTED) if device.type == "cpu" else rows
        self._above = torch.empty((counted, columns), dtype=dtype, device=device)
        if not self.direct:
            groups = group_count(classes)
            members = columns // groups
            self._coarse, self._maxima = buffer(columns // STEP), buffer(groups)
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
        step = len(self._above)
        # Sums of ones are exact in float32 up to 2^24 of them.
        counts = [
            torch.gt(some, own, out=self._above[: len(some)]).sum(dim=1)
            for some, own in zip(torch.split(scores, step), torch.split(target, step), strict=True)
        ]
        return torch.cat(counts).to(torch.int32)

    def best(self, scores: Tensor) -> Found:
        """The k largest scores of every row, exactly.  The result lives in buffers: use it before the next call."""
        rows, k = len(scores), self.k
        found = self._found[0][:rows], self._found[1][:rows]
        if self.direct:
            torch.topk(scores, k, dim=1, out=found)
            return Found(*found)
        groups = group_count(self.classes)
        members = scores.view(rows, -1, groups)
        # A maximum over few is several times quicker than one over many, so it is taken in two steps.
        coarse, maxima = self._coarse[:rows], self._maxima[:rows]
        torch.amax(scores.view(rows, STEP, -1), dim=1, out=coarse)
        torch.amax(coarse.view(rows, -1, groups), dim=1, out=maxima)
        outer = self._outer[0][:rows], self._outer[1][:rows]
        torch.topk(maxima, k, dim=1, sorted=False, out=outer)
        candidates = self._candidates[:rows]
        torch.gather(members, 2, outer[1].unsqueeze(1).expand(-1, members.shape[1], -1), out=candidates)
        # Dealt anew into as many groups as before had members, and so once more.
        dealt = candidates.view(rows, k, -1)
        best = self._best[:rows]
        torch.amax(dealt, dim=1, out=best)
        inner = self._inner[0][:rows], self._inner[1][:rows]
        torch.topk(best, k, dim=1, sorted=False, out=inner)
        last = self._last[:rows]
        torch.gather(dealt, 2, inner[1].unsqueeze(1).expand(-1, k, -1), out=last)
        torch.topk(last.view(rows, -1), k, dim=1, out=found)
        return Found(*found, inner[1], outer[1])


def found_classes(found: Found, classes: int) -> Tensor:
    """Class indices ``[..., k]`` of what `Ranker.best` found; works on results stacked along leading axes."""
    if found.inner is None or found.outer is None:
        return found.place
    k, groups = found.place.shape[-1], group_count(classes)
    members = padded_classes(classes) // groups
    flat = (found.place // k) * members + found.inner.gather(-1, found.place % k)
    return (flat // k) * groups + found.outer.gather(-1, flat % k)
