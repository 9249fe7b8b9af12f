"""The study protocol: update with batches, merge with another part of the data, give a result.

The law: ``merge(f(a), f(b)) == f(a + b)`` for data ``a`` and ``b``, exactly: studies add whole numbers in float64.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from classspace_widgets.describe import options_text
from classspace_widgets.studies.readings import GROUPS, OUTCOMES, Readings
from classspace_widgets.studies.results import StudyResult
from classspace_widgets.studies.tally import Tally

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

    from classspace_widgets.space import ClassSpace
    from classspace_widgets.trace import Trace

    Floats = np.ndarray[Any, np.dtype[np.float64]]


class Study(ABC):
    """A streaming, mergeable measurement.

    Parameters
    ----------
    replicates : int
        Bootstrap resamples of the pictures for intervals; 0 for none.
    level : float
        Coverage of the intervals.
    seed : int
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

    def __init__(self, *, replicates: int = 200, level: float = 0.95, seed: int = 0, per_class: bool = True) -> None:
        if replicates < 0 or not 0 < level < 1:
            raise ValueError(f"expected replicates >= 0 and 0 < level < 1, got {replicates} and {level}")
        self.replicates, self.level, self.seed, self.per_class = replicates, level, seed, per_class
        self.n_classes = 0
        self.class_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return options_text(self)

    @property
    def started(self) -> bool:
        """Whether the study knows its model."""
        return self.n_classes > 0

    def start(self, space: ClassSpace) -> None:
        """Learn the model's sizes; called once before the first update."""
        self.n_classes = int(space.lens.offset.shape[0])
        self.class_names = tuple(space.class_names)

    def fresh(self) -> Self:
        """A copy with the same options that has seen nothing."""
        if self.started:
            raise RuntimeError(f"{self.name}: fresh() is for studies that have not started")
        return copy.deepcopy(self)

    def update(self, batch: Readings | Trace, labels: Tensor | None = None, masks: Tensor | None = None) -> None:
        """Take in a batch: `Readings`, or a trace with ``labels [B]`` and token masks ``[B, P]``.

        Parameters
        ----------
        batch : Readings or Trace
        labels : Tensor [B], int64
            Beside a trace: the class that each picture is read for.
        masks : Tensor [B, P], int8, optional
            Beside a trace: 1 inside the object, 0 context, -1 neither.
        """
        if not isinstance(batch, Readings):
            if labels is None:
                raise ValueError(f"{self.name}: labels are needed beside a trace")
            batch = Readings(batch, labels, masks, mid="mid" in self.needs)
        if not self.started:
            self.start(batch.trace.space)
        self._take(batch)

    @abstractmethod
    def _take(self, batch: Readings) -> None: ...

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything counted so far, as arrays by name."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave; the study must have been started."""

    def merge(self, other: Self) -> Self:
        """A new study that has seen the data of both.

        Parameters
        ----------
        other : Study
            Of the same type and options.

        Returns
        -------
        Study
            Counts are exact: merging parts gives what one pass over all of them gives.

        Raises
        ------
        ValueError
            If types or options differ.
        """
        if type(other) is not type(self) or other.options() != self.options():
            raise ValueError(
                f"cannot merge {type(other).__name__} {other.options()} into {type(self).__name__} {self.options()}"
            )
        if not other.started:
            return copy.deepcopy(self)
        if not self.started:
            return copy.deepcopy(other)
        merged = copy.deepcopy(self)
        merged.load_state(self._merge_states(self.state(), other.state()))
        return merged

    def _merge_states(self, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        return {name: first[name] + second[name] for name in first}

    def options(self) -> dict[str, Any]:
        """What identifies the study beside its counts."""
        return {"replicates": self.replicates, "level": self.level, "seed": self.seed, "per_class": self.per_class}

    @abstractmethod
    def tables(self) -> dict[str, pd.DataFrame]:
        """Tables of the result, without the ``weights`` column."""

    def result(self, control: Self | None = None, provenance: dict[str, Any] | None = None) -> StudyResult:
        """The result so far, beside that of a random control if given."""
        if not self.started:
            raise RuntimeError(f"{self.name}: no batch has been taken in yet")
        tables = self.tables()
        if control is not None:
            random = control.tables()
            tables = {k: _stack(t, random.get(k)) for k, t in tables.items()}
            tables |= self.compare(control)
        else:
            tables = {k: _stack(t, None) for k, t in tables.items()}
        return StudyResult(
            self.name, self.title, tables, self.quantity, self.method, dict(provenance or {}), self.notes()
        )

    def compare(self, control: Self) -> dict[str, pd.DataFrame]:
        """Further tables that set the model against its random control."""
        return {}

    def notes(self) -> tuple[str, ...]:
        """What a reader must know about this result."""
        return ()


def _stack(trained: pd.DataFrame, random: pd.DataFrame | None) -> pd.DataFrame:
    parts = [("trained", trained)] + ([] if random is None else [("random", random)])
    framed = []
    for weights, part in parts:
        part = part.copy()
        part.insert(0, "weights", weights)
        framed.append(part)
    return pd.concat(framed, ignore_index=True)


class ShareStudy(Study):
    """A study whose values are shares of tokens (or pictures), by row and token group.

    A subclass names its rows, such as blocks and streams, and counts numerators and denominators per picture.
    """

    groups: ClassVar[tuple[str, ...]] = GROUPS

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
        self.tally = Tally.empty(self.n_classes, cells, cells, replicates=self.replicates, seed=self.seed)

    def _take(self, batch: Readings) -> None:
        over, under = self.count(batch)
        under = np.broadcast_to(under, over.shape)
        self.tally.add(over, under, labels=batch.class_ids, outcome=batch.outcome, indices=batch.indices)

    def state(self) -> dict[str, Any]:
        """See `Study.state`."""
        return dict(self.tally.arrays())

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Study.load_state`."""
        self.tally.load(state)

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


def _whole(frame: pd.DataFrame) -> pd.DataFrame:
    frame["count"] = frame["count"].astype(np.int64)
    return frame
