"""Sums behind shares: numerators and denominators by class, and by unit of resampling and outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.studies.contrasts import Sample
from classspace_widgets.studies.statistics import UNITS, interval, resampling_units, unit_weights, wilson

if TYPE_CHECKING:
    Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Tally:
    """Sums of whole numbers over pictures, exact in float64, so the result does not depend on the order of merging.

    Attributes
    ----------
    over, under : ndarray [C, *cells]
        Numerators and denominators by class; C is 0 where they are not wanted by class.
    over_by_unit, under_by_unit : ndarray [U, 2, *cells]
        The same by unit of resampling (`statistics.resampling_units`) and outcome (0: the model's answer was correct,
        1: it was not).
    pictures : ndarray [2, *cells]
        Number of pictures behind a numerator and denominator, by outcome.
    replicates, seed : int
        Number of bootstrap resamples R, and their seed.
    """

    over: Floats
    under: Floats
    over_by_unit: Floats
    under_by_unit: Floats
    pictures: Floats
    replicates: int = 0
    seed: int = 0

    @classmethod
    def empty(
        cls, n_classes: int, over: tuple[int, ...], under: tuple[int, ...], *, replicates: int, seed: int
    ) -> Tally:
        """A tally that has counted nothing; ``under`` has as many axes as ``over``, of the same length or 1."""
        return cls(
            np.zeros((n_classes, *over)),
            np.zeros((n_classes, *under)),
            np.zeros((UNITS, 2, *over)),
            np.zeros((UNITS, 2, *under)),
            np.zeros((2, *over)),
            replicates,
            seed,
        )

    def add(self, over: Floats, under: Floats, *, labels: Any, outcome: Any, indices: Any) -> None:
        """Count pictures: ``over [B, *cells]``, ``under [B, *cells']``, ``labels``, ``outcome``, ``indices`` ``[B]``."""
        at = resampling_units(indices, seed=self.seed), np.asarray(outcome)
        np.add.at(self.over_by_unit, at, over)
        np.add.at(self.under_by_unit, at, under)
        np.add.at(self.pictures, at[1], np.broadcast_to(under > 0, over.shape))
        if len(self.over):
            np.add.at(self.over, labels, over)
            np.add.at(self.under, labels, under)

    def estimate(self, outcome: int | None = None, *, level: float = 0.95) -> tuple[Floats, Floats, Floats, Floats]:
        """Share, its interval and its denominator, ``[*cells]`` each; both outcomes together by default.

        The interval is a percentile interval of the bootstrap over pictures. Where all pictures have share 0, or all have
        share 1, it is Wilson's with the number of pictures; a single picture with any other share has none (NaN).
        """
        pick = slice(None) if outcome is None else slice(outcome, outcome + 1)
        over, under = self.over_by_unit[:, pick].sum(axis=1), self.under_by_unit[:, pick].sum(axis=1)
        share, pictures = _ratio(over.sum(axis=0), under.sum(axis=0)), self.pictures[pick].sum(axis=0)
        total = np.broadcast_to(under.sum(axis=0), share.shape)
        if self.replicates == 0:
            missing = np.full_like(share, np.nan)
            return share, missing, missing, total
        low, high = interval_of(share, _ratio(self._resampled(over), self._resampled(under)), pictures, level)
        return share, low, high, total

    def sample(self, cell: tuple[int, ...], outcome: int | None = None, *, level: float = 0.95) -> Sample | None:
        """Everything about one cell that a `Contrast` needs; None if nothing was counted."""
        pick = slice(None) if outcome is None else slice(outcome, outcome + 1)

        def of_cell(array: Floats) -> Floats:
            at: list[int] = [0 if size == 1 else c for size, c in zip(array.shape[2:], cell, strict=True)]
            chosen: Any = (slice(None), pick, *at)
            summed: Floats = array[chosen].sum(axis=1)
            return summed

        over, under = of_cell(self.over_by_unit), of_cell(self.under_by_unit)
        if under.sum() == 0:
            return None
        share = over.sum() / under.sum()
        counted: Any = (pick, *cell)
        pictures = self.pictures[counted].sum()
        resampled = _ratio(self._resampled(over), self._resampled(under))
        low = high = np.array(np.nan)
        if self.replicates:
            low, high = interval_of(share, resampled, pictures, level)
        return Sample(float(share), resampled, float(low), float(high), int(pictures))

    def _resampled(self, by_unit: Floats) -> Floats:
        """Sums ``[U, *cells]`` of the units over R Poisson bootstrap resamples of them, ``[R, *cells]``."""
        return np.tensordot(unit_weights(self.replicates, seed=self.seed), by_unit, axes=1)

    def by_class(self) -> tuple[Floats, Floats]:
        """Share and denominator per class ``[C, *cells]``, NaN for classes that have not been counted."""
        return _ratio(self.over, self.under), np.broadcast_to(self.under, self.over.shape)

    def arrays(self) -> dict[str, Floats]:
        """All counts by name."""
        return {
            "over": self.over,
            "under": self.under,
            "over_by_unit": self.over_by_unit,
            "under_by_unit": self.under_by_unit,
            "pictures": self.pictures,
        }

    def load(self, arrays: dict[str, Any]) -> None:
        """Restore counts from `arrays`; shapes must agree."""
        for name, own in self.arrays().items():
            given = np.asarray(arrays[name])
            if given.shape != own.shape:
                raise ValueError(f"{name} must have shape {own.shape}, got {given.shape}: it counts another model")
            setattr(self, name, given.astype(np.float64, copy=False))


def interval_of(share: Any, resampled: Floats, pictures: Any, level: float) -> tuple[Floats, Floats]:
    """Interval of shares from their resamples ``[R, ...]``; see `Tally.estimate` for shares of 0 and 1."""
    low, high = interval(resampled, level)
    single = pictures <= 1
    low, high = np.where(single, np.nan, low), np.where(single, np.nan, high)
    extreme = ((share == 0) | (share == 1)) & (pictures > 0)
    wide_low, wide_high = wilson(np.where(extreme, share, 0.0), np.maximum(pictures, 1), level)
    return np.where(extreme, wide_low, low), np.where(extreme, wide_high, high)


def _ratio(over: Floats, under: Floats) -> Floats:
    under = np.broadcast_to(under, over.shape)
    ratio: Floats = np.divide(over, under, out=np.full(over.shape, np.nan), where=under > 0)
    return ratio
