"""The study protocol: update with batches, merge with another part of the data, give a result.

The law: ``merge(f(a), f(b)) == f(a + b)`` for data ``a`` and ``b``, exactly: studies add whole numbers in float64.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from classspace_widgets.describe import options_text
from classspace_widgets.studies.contrasts import COLUMNS, ITSELF, Contrast, difference
from classspace_widgets.studies.positions import CountedTwiceError, as_ranges, joined
from classspace_widgets.studies.readings import GROUPS, OUTCOMES, Readings
from classspace_widgets.studies.results import StudyResult
from classspace_widgets.studies.statistics import REPLICATES
from classspace_widgets.studies.tally import Tally

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import ArrayLike
    from torch import Tensor

    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.studies.contrasts import Cell, Sample
    from classspace_widgets.trace import Trace

    Floats = np.ndarray[Any, np.dtype[np.float64]]

UNREAD = (
    "This model answers from its prefix tokens: nothing reads what the last block leaves in the image tokens, so their values "
    "there are no step on the way to the answer."
)


class Study(ABC):
    """A streaming, mergeable measurement.

    Parameters
    ----------
    replicates : int
        Bootstrap resamples of the pictures for intervals; 0 for none.
    level : float
        Coverage of the intervals, 0 to 1.
    seed : int
        Of the resamples and permutations.
    per_class : bool
        Keep a table by class.

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
    """Whether a result shows values of image tokens after the last block."""

    def __init__(
        self, *, replicates: int = REPLICATES, level: float = 0.95, seed: int = 0, per_class: bool = True
    ) -> None:
        if replicates < 0 or not 0 < level < 1:
            raise ValueError(f"expected replicates >= 0 and 0 < level < 1, got {replicates} and {level}")
        self.replicates, self.level, self.seed, self.per_class = replicates, level, seed, per_class
        self.n_classes = 0
        self.class_names: tuple[str, ...] = ()
        self.unread = False
        self.seen = as_ranges([])

    def __repr__(self) -> str:
        return options_text(self)

    @property
    def chance(self) -> float | None:
        """The value where the model knows nothing, if it is one for all rows."""
        return None

    @property
    def started(self) -> bool:
        """Whether the study knows its model."""
        return self.n_classes > 0

    def start(self, space: ClassSpace) -> None:
        """Learn the model's sizes; called once before the first update."""
        self.n_classes = int(space.lens.offset.shape[0])
        self.class_names = tuple(space.class_names)
        self.unread = getattr(space.adapter, "pooling", None) in ("token", "distilled")

    def fresh(self) -> Self:
        """A copy with the same options that has seen nothing."""
        if self.started:
            raise RuntimeError(f"{self.name}: fresh() is for studies that have not started")
        return copy.deepcopy(self)

    def update(
        self,
        batch: Readings | Trace,
        labels: Tensor | None = None,
        masks: Tensor | None = None,
        indices: ArrayLike | None = None,
    ) -> None:
        """Take in a batch: `Readings`, or a trace with ``labels [B]`` and token masks ``[B, P]``.

        Parameters
        ----------
        batch : Readings or Trace
        labels : Tensor [B], int64
            Beside a trace: the class that each picture is read for.
        masks : Tensor [B, P], int8, optional
            Beside a trace: 1 inside the object, 0 context, -1 neither.
        indices : array_like [B], int, optional
            Beside a trace: the pictures' positions in the data, from which bootstrap weights are drawn; by default pictures
            are numbered in the order in which they come.  Needed where parts are merged later.

        Raises
        ------
        ValueError
            If a position has been counted before.
        """
        if not isinstance(batch, Readings):
            if labels is None:
                raise ValueError(f"{self.name}: labels are needed beside a trace")
            given = np.zeros(0, np.int64) if indices is None else np.asarray(indices)
            batch = Readings(batch, labels, masks, given, mid="mid" in self.needs)
        elif labels is not None or masks is not None or indices is not None:
            raise ValueError(f"{self.name}: labels, masks and indices belong beside a trace; Readings have their own")
        if not self.started:
            self.start(batch.trace.space)
        if len(batch.indices) == 0:
            first = int(self.seen[-1, 1]) if len(self.seen) else 0
            batch = batch.at(np.arange(first, first + len(batch.labels)))
        try:
            seen = joined(self.seen, as_ranges(batch.indices))
        except CountedTwiceError as error:
            raise ValueError(
                f"{self.name}: picture {error.position} of the data has been counted already; give every picture once, with "
                "its own position in indices"
            ) from None
        self._take(batch)
        self.seen = seen

    @abstractmethod
    def _take(self, batch: Readings) -> None: ...

    def state(self) -> dict[str, Any]:
        """Everything counted so far, as arrays by name; ``seen`` holds the pictures' positions as ranges ``[n, 2]``."""
        return {"seen": self.seen, **self._counts()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave; the study must have been started."""
        seen = np.asarray(state["seen"])
        if seen.ndim != 2 or seen.shape[1] != 2:
            raise ValueError(f"seen must have shape [n, 2], got {seen.shape}")
        self._load_counts({name: array for name, array in state.items() if name != "seen"})
        self.seen = seen.astype(np.int64)

    @abstractmethod
    def _counts(self) -> dict[str, Any]: ...

    @abstractmethod
    def _load_counts(self, counts: dict[str, Any]) -> None: ...

    def merge(self, other: Self) -> Self:
        """A new study that has seen the data of both.

        Parameters
        ----------
        other : Study
            Of the same type and options, with other pictures: each part's `update` is given its pictures' positions in
            the whole data as ``indices`` (`run_study` does so).

        Returns
        -------
        Study
            Counts are exact: merging parts gives what one pass over all of them gives.

        Raises
        ------
        ValueError
            If types or options differ, or a position was counted by both.
        """
        if type(other) is not type(self) or other.options() != self.options():
            raise ValueError(
                f"cannot merge {type(other).__name__} {other.options()} into {type(self).__name__} {self.options()}"
            )
        if not other.started:
            return copy.deepcopy(self)
        if not self.started:
            return copy.deepcopy(other)
        try:
            seen = joined(self.seen, other.seen)
        except CountedTwiceError as error:
            raise ValueError(
                f"cannot merge {self.name}: both parts count a picture {error.position}. If these are different pictures, say "
                "so: update(..., indices=their positions in the whole data), so that each has bootstrap weights of its own"
            ) from None
        merged = copy.deepcopy(self)
        merged._load_counts(self._merge_counts(self._counts(), other._counts()))
        merged.seen = seen
        return merged

    def _merge_counts(self, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        return {name: first[name] + second[name] for name in first}

    def options(self) -> dict[str, Any]:
        """What identifies the study beside its counts."""
        return {"replicates": self.replicates, "level": self.level, "seed": self.seed, "per_class": self.per_class}

    @abstractmethod
    def tables(self) -> dict[str, pd.DataFrame]:
        """Tables of the result, without the ``weights`` column."""

    def result(
        self, control: Self | Sequence[Self] | None = None, provenance: dict[str, Any] | None = None
    ) -> StudyResult:
        """The result so far, beside that of its random control if given.

        Parameters
        ----------
        control : Study or sequence of Study, optional
            The same study of one random twin, or of several.  With several, rows of ``weights == "random"`` are their mean,
            with ``low`` and ``high`` the least and greatest of them, and the table ``"twins"`` has a row of each.
        provenance : dict, optional
            Kept in the result.

        Returns
        -------
        StudyResult
        """
        if not self.started:
            raise RuntimeError(f"{self.name}: no batch has been taken in yet")
        controls = [] if control is None else list(control) if isinstance(control, Sequence) else [control]
        tables, random = self.tables(), [twin.tables() for twin in controls]
        stacked = {name: _stack(table, [r[name] for r in random if name in r]) for name, table in tables.items()}
        if len(controls) > 1:
            stacked["twins"] = _numbered([r["main"] for r in random])
        stacked |= self.compare(controls)
        notes = self.notes()
        if len(controls) > 1:
            notes += (
                f"Random control: {len(controls)} models with fresh weights; rows of weights 'random' are their mean, low and "
                "high the least and greatest of them; each one's own interval is in the table 'twins'.",
            )
        elif controls:
            notes += ("Random control: one model with fresh weights. Others differ; random_twin=5 shows by how much.",)
        about = (self.quantity, self.method, dict(provenance or {}), notes, self.chance)
        return StudyResult(self.name, self.title, stacked, *about)

    def compare(self, controls: Sequence[Self]) -> dict[str, pd.DataFrame]:
        """Further tables of differences, within the model and against its random twins."""
        return {}

    def notes(self) -> tuple[str, ...]:
        """What a reader must know about this result."""
        return (UNREAD,) if self.unread and self.about_image_tokens else ()


def _stack(trained: pd.DataFrame, random: Sequence[pd.DataFrame]) -> pd.DataFrame:
    parts = [("trained", trained)]
    if random:
        parts.append(("random", random[0] if len(random) == 1 else _mean_of(random)))
    return pd.concat([part.assign(weights=weights)[["weights", *part]] for weights, part in parts], ignore_index=True)


def _numbered(twins: Sequence[pd.DataFrame]) -> pd.DataFrame:
    framed = [table.assign(twin=number)[["twin", *table]] for number, table in enumerate(twins, start=1)]
    return pd.concat(framed, ignore_index=True)


def _mean_of(twins: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows of several twins as one table: means, with the least and greatest value as ``low`` and ``high``."""
    measured = [c for c in twins[0] if c == "count" or pd.api.types.is_float_dtype(twins[0][c])]
    labels = [c for c in twins[0] if c not in measured]
    together = pd.concat(twins, ignore_index=True)
    grouped = together.groupby(labels, sort=False) if labels else together.groupby(lambda _: 0)
    mean = grouped[measured].mean()
    if "value" in mean:
        for edge, extreme in (("low", "min"), ("high", "max")):
            if edge in mean:
                mean[edge] = grouped["value"].agg(extreme)
    for column in mean:
        if str(column).startswith("p_"):
            mean[column] = np.nan  # the mean of several p is no p
    if "count" in mean:
        mean["count"] = mean["count"].round().astype(np.int64)
    mean = mean.reset_index() if labels else mean.reset_index(drop=True)
    return mean[list(twins[0])]


class ShareStudy(Study):
    """A study whose values are shares of tokens (or pictures), by row and token group.

    A subclass names its rows, such as blocks and streams, and counts numerators and denominators per picture.
    """

    groups: ClassVar[tuple[str, ...]] = GROUPS
    one_denominator: ClassVar[bool] = False
    """Whether all rows have the same denominators, which then are kept once."""

    @abstractmethod
    def rows(self, space: ClassSpace) -> list[dict[str, Any]]:
        """Labels of the S rows."""

    @abstractmethod
    def count(self, batch: Readings) -> tuple[Floats, Floats]:
        """Numerators ``[B, S, G]`` and denominators ``[B, S or 1, G]``, whole numbers."""

    def start(self, space: ClassSpace) -> None:
        """See `Study.start`."""
        super().start(space)
        self.row_labels = self.rows(space)
        cells = (len(self.row_labels), len(self.groups))
        under = (1, len(self.groups)) if self.one_denominator else cells
        self.tally = Tally.empty(self.n_classes, cells, under, replicates=self.replicates, seed=self.seed)

    def _take(self, batch: Readings) -> None:
        over, under = self.count(batch)
        if not self.one_denominator:
            under = np.broadcast_to(under, over.shape)
        self.tally.add(over, under, labels=batch.class_ids, outcome=batch.outcome, indices=batch.indices)

    def _counts(self) -> dict[str, Any]:
        return dict(self.tally.arrays())

    def _load_counts(self, counts: dict[str, Any]) -> None:
        self.tally.load(counts)

    def contrasts(self) -> Sequence[Contrast]:
        """Differences to test: they make up the table ``"differences"``."""
        return ()

    def sample(self, cell: Cell) -> Sample | None:
        """A share with its resamples; None where there is no such row, or nothing was counted."""
        rows = [i for i, row in enumerate(self.row_labels) if dict(cell.labels).items() <= row.items()]
        if len(rows) != 1:
            return None
        group = self.groups.index(cell.tokens) if cell.tokens else 0
        return self.tally.sample((rows[0], group), cell.outcome, level=self.level)

    def compare(self, controls: Sequence[Self]) -> dict[str, pd.DataFrame]:
        """The table ``"differences"``: every contrast of the study, by itself and against every random twin."""
        found = []
        for contrast in self.contrasts():
            parts = [_pair(study, contrast) for study in (self, *controls)]
            if parts[0] is None:
                continue
            plus, minus = parts[0]
            if minus:
                found.append({"comparison": contrast.name, "against": ITSELF} | difference(plus, minus, self.level))
            for number, other in enumerate(parts[1:] if contrast.control else [], start=1):
                if other is not None:
                    held = difference([*plus, *other[1]], [*minus, *other[0]], self.level)
                    found.append({"comparison": contrast.name, "against": f"twin {number}"} | held)
        return {"differences": pd.DataFrame(found, columns=list(COLUMNS))} if found else {}

    def tables(self) -> dict[str, pd.DataFrame]:
        """See `Study.tables`."""
        parts = []
        for outcome, name in ((None, "all"), (0, OUTCOMES[0]), (1, OUTCOMES[1])):
            value, low, high, count = self.tally.estimate(outcome, level=self.level)
            part = self._labelled(count > 0, outcome=name)
            for column, array in (("value", value), ("low", low), ("high", high), ("count", count)):
                part[column] = array[count > 0]
            parts.append(part)
        tables = {"main": _whole(pd.concat(parts, ignore_index=True))}
        if self.per_class:
            tables["by_class"] = self._by_class()
        return tables

    def _labelled(self, keep: np.ndarray[Any, np.dtype[np.bool_]], **constants: str) -> pd.DataFrame:
        row, group = np.nonzero(keep)
        frame = pd.DataFrame(self.row_labels).iloc[row].reset_index(drop=True)
        if len(self.groups) > 1:
            frame["tokens"] = np.asarray(self.groups)[group]
        for name, constant in constants.items():
            frame[name] = constant
        return frame

    def _by_class(self) -> pd.DataFrame:
        value, count = self.tally.by_class()
        class_id, row, group = np.nonzero(count > 0)
        frame = pd.DataFrame(self.row_labels).iloc[row].reset_index(drop=True)
        if len(self.groups) > 1:
            frame["tokens"] = np.asarray(self.groups)[group]
        frame.insert(0, "class", class_id)
        frame.insert(1, "class_name", np.asarray(self.class_names, dtype=object)[class_id].astype(str))
        frame["value"], frame["count"] = value[count > 0], count[count > 0]
        return _whole(frame)


def _pair(study: ShareStudy, contrast: Contrast) -> tuple[list[Sample], list[Sample]] | None:
    samples = [study.sample(cell) for cell in (contrast.more, contrast.less) if cell is not None]
    known = [sample for sample in samples if sample is not None]
    return None if len(known) < len(samples) else (known[:1], known[1:])


def _whole(frame: pd.DataFrame) -> pd.DataFrame:
    frame["count"] = frame["count"].astype(np.int64)
    return frame
