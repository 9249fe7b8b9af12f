"""Sums behind shares: numerators and denominators by class and outcome, with bootstrap replicates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.studies.contrasts import Sample
from classspace_widgets.studies.statistics import interval, picture_weights, wilson

if TYPE_CHECKING:
    Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Tally:
    """Sums of whole numbers over pictures, exact in float64, so the result does not depend on the order of merging.

    Attributes
    ----------
    over, under : ndarray [C, 2, *cells]
        Numerators and denominators by class and outcome (0: the model's answer was correct, 1: it was not).
    over_resampled, under_resampled : ndarray [R, 2, *cells]
        The same over R Poisson bootstrap resamples of the pictures, all classes together.
    pictures : ndarray [2, *cells]
        Number of pictures behind a numerator and denominator, by outcome.
    """

    over: Floats
    under: Floats
    over_resampled: Floats
    under_resampled: Floats
    pictures: Floats
    seed: int = 0

    @classmethod
    def empty(
        cls, n_classes: int, over: tuple[int, ...], under: tuple[int, ...], *, replicates: int, seed: int
    ) -> Tally:
        """A tally that has counted nothing; ``under`` has as many axes as ``over``, of the same length or 1."""
        return cls(
            np.zeros((n_classes, 2, *over)),
            np.zeros((n_classes, 2, *under)),
            np.zeros((replicates, 2, *over)),
            np.zeros((replicates, 2, *under)),
            np.zeros((2, *over)),
            seed,
        )

    def add(self, over: Floats, under: Floats, *, labels: Any, outcome: Any, indices: Any) -> None:
        """Count pictures: ``over [B, *cells]``, ``under [B, *cells']``, ``labels``, ``outcome``, ``indices`` ``[B]``."""
        np.add.at(self.over, (labels, outcome), over)
        np.add.at(self.under, (labels, outcome), under)
        np.add.at(self.pictures, np.asarray(outcome), np.broadcast_to(under > 0, over.shape))
        replicates = len(self.over_resampled)
        if replicates == 0:
            return
        weights = picture_weights(indices, replicates, seed=self.seed)
        for which in (0, 1):
            chosen = np.flatnonzero(np.asarray(outcome) == which)
            if len(chosen) == 0:
                continue
            for target, source in ((self.over_resampled, over), (self.under_resampled, under)):
                flat = source[chosen].reshape(len(chosen), -1)
                target[:, which] += (weights[:, chosen] @ flat).reshape(replicates, *source.shape[1:])

    def estimate(self, outcome: int | None = None, *, level: float = 0.95) -> tuple[Floats, Floats, Floats, Floats]:
        """Share, its interval and its denominator, ``[*cells]`` each; both outcomes together by default.

        The interval is a percentile interval of the bootstrap over pictures. Where all pictures have share 0, or all have
        share 1, it is Wilson's with the number of pictures; a single picture with any other share has none (NaN).
        """
        pick = slice(None) if outcome is None else slice(outcome, outcome + 1)
        over, under = self.over[:, pick].sum(axis=(0, 1)), self.under[:, pick].sum(axis=(0, 1))
        share, pictures = _ratio(over, under), self.pictures[pick].sum(axis=0)
        if len(self.over_resampled) == 0:
            missing = np.full_like(share, np.nan)
            return share, missing, missing, np.broadcast_to(under, share.shape)
        resampled = _ratio(self.over_resampled[:, pick].sum(axis=1), self.under_resampled[:, pick].sum(axis=1))
        low, high = interval_of(share, resampled, pictures, level)
        return share, low, high, np.broadcast_to(under, share.shape)

    def sample(self, cell: tuple[int, ...], outcome: int | None = None, *, level: float = 0.95) -> Sample | None:
        """Everything about one cell that a `Contrast` needs; None if nothing was counted."""
        pick = slice(None) if outcome is None else slice(outcome, outcome + 1)

        def total(array: Floats, axis: int | tuple[int, ...]) -> Floats:
            at: list[int] = [0 if size == 1 else c for size, c in zip(array.shape[2:], cell, strict=True)]
            chosen: Any = (slice(None), pick, *at)
            summed: Floats = array[chosen].sum(axis=axis)
            return summed

        over, under = total(self.over, (0, 1)), total(self.under, (0, 1))
        if under == 0:
            return None
        of_cell: Any = (pick, *cell)
        pictures = self.pictures[of_cell].sum()
        resampled = _ratio(total(self.over_resampled, 1), total(self.under_resampled, 1))
        low = high = np.array(np.nan)
        if len(resampled):
            low, high = interval_of(over / under, resampled, pictures, level)
        return Sample(float(over / under), resampled, float(low), float(high), int(pictures))

    def by_class(self) -> tuple[Floats, Floats]:
        """Share and denominator per class ``[C, *cells]``, NaN for classes that have not been counted."""
        over, under = self.over.sum(axis=1), self.under.sum(axis=1)
        return _ratio(over, under), np.broadcast_to(under, over.shape)

    def arrays(self) -> dict[str, Floats]:
        """All counts by name."""
        return {
            "over": self.over,
            "under": self.under,
            "over_resampled": self.over_resampled,
            "under_resampled": self.under_resampled,
            "pictures": self.pictures,
        }

    def load(self, arrays: dict[str, Any]) -> None:
        """Restore counts from `arrays`; shapes must agree."""
        for name, own in self.arrays().items():
            given = np.asarray(arrays[name])
            if given.shape != own.shape:
                raise ValueError(f"{name} must have shape {own.shape}, got {given.shape}: it counts another model")
            setattr(self, name, given.astype(np.float64))


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
