"""Shares that add up: numerators and denominators by class and outcome, with bootstrap replicates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.studies.statistics import interval, picture_weights

if TYPE_CHECKING:
    Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Tally:
    """Sums of whole numbers over pictures, exact in float64, so that merging in any order gives the same result.

    Attributes
    ----------
    over, under : ndarray [C, 2, *cells]
        Numerators and denominators by class and outcome (0: the model was right, 1: it was not).
    over_resampled, under_resampled : ndarray [R, 2, *cells]
        The same over R Poisson bootstrap resamples of the pictures, all classes together.
    """

    over: Floats
    under: Floats
    over_resampled: Floats
    under_resampled: Floats
    seed: int = 0

    @classmethod
    def empty(
        cls, n_classes: int, over: tuple[int, ...], under: tuple[int, ...], *, replicates: int, seed: int
    ) -> Tally:
        """Nothing counted yet; ``under`` has as many axes as ``over``, of the same length or 1."""
        return cls(
            np.zeros((n_classes, 2, *over)),
            np.zeros((n_classes, 2, *under)),
            np.zeros((replicates, 2, *over)),
            np.zeros((replicates, 2, *under)),
            seed,
        )

    def add(self, over: Floats, under: Floats, *, labels: Any, outcome: Any, indices: Any) -> None:
        """Count pictures: ``over [B, *cells]``, ``under [B, *cells']``, ``labels``, ``outcome``, ``indices`` ``[B]``."""
        np.add.at(self.over, (labels, outcome), over)
        np.add.at(self.under, (labels, outcome), under)
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
        """Share, its interval and its denominator, ``[*cells]`` each; both outcomes together by default."""
        pick = slice(None) if outcome is None else slice(outcome, outcome + 1)
        over, under = self.over[:, pick].sum(axis=(0, 1)), self.under[:, pick].sum(axis=(0, 1))
        share = _ratio(over, under)
        if len(self.over_resampled) == 0:
            nothing = np.full_like(share, np.nan)
            return share, nothing, nothing, np.broadcast_to(under, share.shape)
        resampled = _ratio(self.over_resampled[:, pick].sum(axis=1), self.under_resampled[:, pick].sum(axis=1))
        low, high = interval(resampled, level)
        return share, low, high, np.broadcast_to(under, share.shape)

    def by_class(self) -> tuple[Floats, Floats]:
        """Share and denominator per class ``[C, *cells]``, NaN for classes that have not been seen."""
        over, under = self.over.sum(axis=1), self.under.sum(axis=1)
        return _ratio(over, under), np.broadcast_to(under, over.shape)

    def arrays(self) -> dict[str, Floats]:
        """Everything that has been counted, by name."""
        return {
            "over": self.over,
            "under": self.under,
            "over_resampled": self.over_resampled,
            "under_resampled": self.under_resampled,
        }

    def load(self, arrays: dict[str, Any]) -> None:
        """Take counts from `arrays`; shapes must agree."""
        for name, own in self.arrays().items():
            given = np.asarray(arrays[name])
            if given.shape != own.shape:
                raise ValueError(f"{name} must have shape {own.shape}, got {given.shape}: it counts another model")
            setattr(self, name, given.astype(np.float64))


def _ratio(over: Floats, under: Floats) -> Floats:
    under = np.broadcast_to(under, over.shape)
    ratio: Floats = np.divide(over, under, out=np.full(over.shape, np.nan), where=under > 0)
    return ratio
