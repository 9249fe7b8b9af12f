"""Differences between measured shares, resampled over the same pictures: within a model and from its random twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.studies.statistics import bootstrap_p, interval

if TYPE_CHECKING:
    Floats = np.ndarray[Any, np.dtype[np.float64]]

COLUMNS = ("comparison", "against", "value", "low", "high", "p", "p_least", "pictures")
ITSELF = "itself"
"""In the column ``against``: the difference within the model, not compared with a twin."""


@dataclass(frozen=True)
class Cell:
    """One share of a study: the labels of its row, its token group, and the outcome of its pictures."""

    labels: Mapping[str, Any]
    tokens: str = ""
    outcome: int | None = None


@dataclass(frozen=True)
class Contrast:
    """A difference to test: ``more`` minus ``less``, and how much it exceeds that of every random twin.

    Attributes
    ----------
    name : str
        Text in the column ``comparison``.
    more, less : Cell
        Without ``less``, the share itself is compared with the twins'.
    control : bool
        Whether to compare with the twins.
    """

    name: str
    more: Cell
    less: Cell | None = None
    control: bool = False


@dataclass(frozen=True)
class Sample:
    """A share, its R bootstrap resamples, its interval, and the number of pictures behind it."""

    value: float
    resampled: Floats = field(repr=False)
    low: float
    high: float
    pictures: int


def difference(plus: Sequence[Sample], minus: Sequence[Sample], level: float) -> dict[str, float]:
    """Sum of some shares minus the sum of others, with its interval and one-sided p.

    Resamples are subtracted one by one: shares of the same pictures are resampled with the same weights, so what they have in
    common cancels (a paired bootstrap). Where all resamples are equal, because every picture has share 0 or 1, the interval
    combines those of the shares (Zou and Donner 2008).
    """
    value = sum(s.value for s in plus) - sum(s.value for s in minus)
    resampled = sum((s.resampled for s in plus), np.zeros(1)) - sum((s.resampled for s in minus), np.zeros(1))
    pictures = min(s.pictures for s in (*plus, *minus))
    if not all(len(s.resampled) for s in (*plus, *minus)):
        low = high = p = least = np.nan
    else:
        low, high = (float(edge) for edge in interval(resampled, level))
        if low == high:
            down = [s.value - s.low for s in plus] + [s.high - s.value for s in minus]
            up = [s.high - s.value for s in plus] + [s.value - s.low for s in minus]
            low, high = value - float(np.linalg.norm(down)), value + float(np.linalg.norm(up))
        p, least = bootstrap_p(resampled, pictures)
    return {"value": value, "low": low, "high": high, "p": p, "p_least": least, "pictures": pictures}
