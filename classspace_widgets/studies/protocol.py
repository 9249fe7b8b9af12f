"""The study protocol: update with batches, merge with the counts of other data, return a result.

Studies add whole numbers in float64, so counts are exact and ``merge(f(a), f(b)) == f(a + b)`` for data ``a`` and ``b``.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from classspace_widgets.describe import options_text
from classspace_widgets.lens.readout import pools
from classspace_widgets.space.space import space_of
from classspace_widgets.studies.controls import numbered, with_controls
from classspace_widgets.studies.counted import Contribution, Counted
from classspace_widgets.studies.lenses import LensUsed
from classspace_widgets.studies.positions import CountedTwiceError, as_ranges, joined
from classspace_widgets.studies.readings import Readings
from classspace_widgets.studies.results import StudyResult
from classspace_widgets.studies.statistics import REPLICATES

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import ArrayLike
    from torch import Tensor

    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.trace import Trace

UNUSED = (
    "This model answers from its prefix tokens, so image tokens are not used after the last block: their values there do not "
    "contribute to the answer."
)


class Study(ABC):
    """A streaming, mergeable measurement.

    Parameters
    ----------
    replicates : int
        Bootstrap resamples of the pictures for intervals; 0 for no intervals.
    level : float
        Coverage of the intervals, 0 to 1.
    seed : int
        Seed of resamples and permutations.
    per_class : bool
        Add a table by class to the result.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> from classspace_widgets.studies import Identifiability, run_study
    >>> study = Identifiability(mid=True, replicates=50)
    >>> results = run_study(ClassSpace.bundled(), ScenesDataset(4, seed=2), study, progress=False)
    >>> sorted(set(results["identifiability"].table["stream"]))
    ['attention', 'mid', 'mlp', 'residual']
    """

    name: ClassVar[str]
    title: ClassVar[str]
    quantity: str = ""
    method: str = ""
    needs: frozenset[str] = frozenset()
    about_image_tokens: ClassVar[bool] = True
    """Whether results contain values of image tokens after the last block."""
    through_lens: ClassVar[bool] = False
    """Whether the study can be run with a fitted lens, or does not depend on the lens at all."""

    def __init__(
        self, *, replicates: int = REPLICATES, level: float = 0.95, seed: int = 0, per_class: bool = True
    ) -> None:
        if replicates < 0 or not 0 < level < 1:
            raise ValueError(f"expected replicates >= 0 and 0 < level < 1, got {replicates} and {level}")
        self.replicates, self.level, self.seed, self.per_class = replicates, level, seed, per_class
        self.n_classes = 0
        self.class_names: tuple[str, ...] = ()
        self.unused_image_tokens = False
        self.lens_used: LensUsed | None = None
        self.seen = as_ranges([])

    def __repr__(self) -> str:
        return options_text(self)

    @property
    def chance(self) -> float | None:
        """The value at chance, if it is the same for all rows."""
        return None

    @property
    def started(self) -> bool:
        """Whether `start` has been called."""
        return self.n_classes > 0

    def start(self, space: ClassSpace) -> None:
        """Read the model's sizes; called once before the first update."""
        self.n_classes = int(space.lens.offset.shape[0])
        self.class_names = tuple(space.class_names)
        self.unused_image_tokens = not pools(space.adapter.pooling)

    def fresh(self) -> Self:
        """A copy with the same options that has counted nothing."""
        if self.started:
            raise RuntimeError(f"{self.name}: fresh() needs a study that has not started")
        return copy.deepcopy(self)

    def update(
        self,
        batch: Readings | Trace,
        labels: Tensor | None = None,
        masks: Tensor | None = None,
        indices: ArrayLike | None = None,
    ) -> None:
        """Count a batch: `Readings`, or a trace with ``labels [B]`` and token masks ``[B, P]``.

        Parameters
        ----------
        batch : Readings or Trace
        labels : Tensor [B], int64
            With a trace: the class that each picture is read for.
        masks : Tensor [B, P], int8, optional
            With a trace: 1 inside the object, 0 context, -1 neither.
        indices : array_like [B], int, optional
            With a trace: the pictures' positions in the data, which seed their bootstrap weights; by default pictures are
            numbered in the order of updates. Needed if parts are merged later.

        Raises
        ------
        ValueError
            If a position has already been counted.
        """
        if not isinstance(batch, Readings):
            if labels is None:
                raise ValueError(f"{self.name}: a trace needs labels: update(trace, labels)")
            given = np.zeros(0, np.int64) if indices is None else np.asarray(indices)
            batch = Readings(batch, labels, masks, given, mid="mid" in self.needs)
        elif labels is not None or masks is not None or indices is not None:
            raise ValueError(f"{self.name}: labels, masks and indices are for a trace; Readings contain their own")
        if not self.started:
            self._take(None if batch.lens is None else LensUsed.of(batch.lens))
            self.start(space_of(batch.trace))
        if len(batch.indices) == 0:
            first = int(self.seen[-1, 1]) if len(self.seen) else 0
            batch = batch.with_indices(np.arange(first, first + len(batch.labels)))
        Contribution(batch, [self]).count()

    def read(self, batch: Readings) -> dict[str, Tensor]:
        """The device's half of `update`: what the batch contributes, as tensors by name, without waiting for the device."""
        lens = None if batch.lens is None else LensUsed.of(batch.lens)
        if lens != self.lens_used:
            raise ValueError(
                f"{self.name}: all batches must be read through the same lens; use another study for another lens"
            )
        return self._read(batch)

    def add(self, batch: Counted) -> None:
        """The host's half of `update`: add what `read` gave to the counts.

        Raises
        ------
        ValueError
            If a position has already been counted.
        """
        try:
            seen = joined(self.seen, as_ranges(batch.indices))
        except CountedTwiceError as error:
            raise ValueError(
                f"{self.name}: picture {error.position} of the data has already been counted; pass every picture once, with "
                "its own position in indices"
            ) from None
        self._add(batch)
        self.seen = seen

    def _take(self, lens: LensUsed | None) -> None:
        if lens is not None and not self.through_lens:
            raise ValueError(f"{self.name} cannot be read through a fitted lens; leave lens= out")
        self.lens_used = lens

    @abstractmethod
    def _read(self, batch: Readings) -> dict[str, Tensor]: ...

    @abstractmethod
    def _add(self, batch: Counted) -> None: ...

    def state(self) -> dict[str, Any]:
        """Everything counted so far, as arrays by name; ``seen`` holds the pictures' positions as ranges ``[n, 2]``."""
        return {"seen": self.seen, **self._counts()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned; the study must have been started."""
        seen = np.asarray(state["seen"])
        if seen.ndim != 2 or seen.shape[1] != 2:
            raise ValueError(f"seen must have shape [n, 2], got {seen.shape}")
        self._load_counts({name: np.array(array) for name, array in state.items() if name != "seen"})
        self.seen = seen.astype(np.int64)

    def absorb(self, state: dict[str, Any]) -> None:
        """Add what `state` returned of a study with the same options that has seen other data.

        Raises
        ------
        ValueError
            If a position was counted by both.
        """
        try:
            seen = joined(self.seen, np.asarray(state["seen"]))
        except CountedTwiceError as error:
            raise ValueError(
                f"cannot merge {self.name}: both parts count a picture {error.position}. If these are different pictures, use "
                "update(..., indices=their positions in the whole data), so that each has its own bootstrap weights"
            ) from None
        counts = {name: array for name, array in state.items() if name != "seen"}
        self._load_counts(self._merge_counts(self._counts(), counts))
        self.seen = seen

    @abstractmethod
    def _counts(self) -> dict[str, Any]: ...

    @abstractmethod
    def _load_counts(self, counts: dict[str, Any]) -> None:
        """Take over counts, which may be kept as they are: nobody else has them."""

    def merge(self, other: Self) -> Self:
        """A new study that has seen the data of both.

        Parameters
        ----------
        other : Study
            Of the same type and options, with other pictures. The updates of each part need the pictures' positions in
            the whole data as ``indices``; `run_study` passes them.

        Returns
        -------
        Study
            Counts are exact: merged parts equal one pass over all of them.

        Raises
        ------
        ValueError
            If types or options differ, or a position was counted by both.
        """
        if type(other) is not type(self) or other.options() != self.options():
            raise ValueError(
                f"cannot merge {type(other).__name__} {other.options()} into {type(self).__name__} {self.options()}"
            )
        if other.started and self.started and other.lens_used != self.lens_used:
            raise ValueError(f"cannot merge {self.name}: the parts were read through different lenses")
        if not other.started:
            return copy.deepcopy(self)
        if not self.started:
            return copy.deepcopy(other)
        merged = copy.deepcopy(self)
        merged.absorb(other.state())
        return merged

    def _merge_counts(self, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        return {name: first[name] + second[name] for name in first}

    def options(self) -> dict[str, Any]:
        """The study's options: only studies with equal options can be merged."""
        return {"replicates": self.replicates, "level": self.level, "seed": self.seed, "per_class": self.per_class}

    @abstractmethod
    def tables(self) -> dict[str, pd.DataFrame]:
        """Tables of the result, without the ``weights`` column."""

    def result(
        self, control: Self | Sequence[Self] | None = None, provenance: dict[str, Any] | None = None
    ) -> StudyResult:
        """The result so far, with that of its random control if given.

        Parameters
        ----------
        control : Study or sequence of Study, optional
            The same study of one random twin, or of several. With several, rows with ``weights == "random"`` are their
            mean, ``low`` and ``high`` the least and greatest of them, and the table ``"twins"`` has the rows of each.
        provenance : dict, optional
            Copied into the result.

        Returns
        -------
        StudyResult
        """
        if not self.started:
            raise RuntimeError(f"{self.name}: no batch has been counted yet")
        controls = [] if control is None else list(control) if isinstance(control, Sequence) else [control]
        tables, random = self.tables(), [twin.tables() for twin in controls]
        stacked = {name: with_controls(table, [r[name] for r in random if name in r]) for name, table in tables.items()}
        if len(controls) > 1:
            stacked["twins"] = numbered([r["main"] for r in random])
        stacked |= self.compare(controls)
        notes = self.notes()
        if len(controls) > 1:
            notes += (
                f"Random control: {len(controls)} models with fresh weights; rows of weights 'random' are their mean, low and "
                "high the least and greatest of them; the interval of each is in the table 'twins'.",
            )
        elif controls:
            notes += (
                "Random control: one model with fresh weights. Other draws differ; random_twin=5 shows by how much.",
            )
        about = (self.quantity, self.method, dict(provenance or {}), notes, self.chance)
        return StudyResult(self.name, self.title, stacked, *about)

    def compare(self, controls: Sequence[Self]) -> dict[str, pd.DataFrame]:
        """More tables: differences within the model and from its random twins."""
        return {}

    def notes(self) -> tuple[str, ...]:
        """Remarks that a reader of this result needs."""
        unused = (UNUSED,) if self.unused_image_tokens and self.about_image_tokens else ()
        return unused if self.lens_used is None else (self.lens_used.note, *unused)
