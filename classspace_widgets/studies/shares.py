"""Studies of shares: numerators and denominators counted per picture, row and token group."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from classspace_widgets.studies.contrasts import COLUMNS, ITSELF, Contrast, difference
from classspace_widgets.studies.protocol import Study
from classspace_widgets.studies.readings import GROUPS, OUTCOMES, Readings
from classspace_widgets.studies.tally import Tally

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.studies.contrasts import Cell, Sample
    from classspace_widgets.studies.counted import Counted

    Floats = np.ndarray[Any, np.dtype[np.float64]]


class ShareStudy(Study):
    """A study whose values are shares of tokens, or of pictures, by row and token group.

    A subclass lists its rows, such as blocks and streams, and counts numerators and denominators per picture.
    """

    groups: ClassVar[tuple[str, ...]] = GROUPS
    one_denominator: ClassVar[bool] = False
    """Whether all rows have the same denominators, which are then stored once."""

    @abstractmethod
    def rows(self, space: ClassSpace) -> list[dict[str, Any]]:
        """Labels of the S rows."""

    def points_read(self, row: dict[str, Any]) -> list[tuple[str, int]]:
        """The stream points, stream and block, whose readings a row compares; none where it does not read through the lens."""
        return []

    @abstractmethod
    def count(self, batch: Readings) -> tuple[Tensor, Tensor]:
        """Numerators ``[B, S, G]`` and denominators ``[B, S or 1, G]``, whole numbers, on the batch's device."""

    def start(self, space: ClassSpace) -> None:
        """See `Study.start`."""
        super().start(space)
        self.row_labels = self.rows(space)
        cells = (len(self.row_labels), len(self.groups))
        denominators = (1, len(self.groups)) if self.one_denominator and self.lens_used is None else cells
        lens = self.lens_used
        reads = [[lens is None or lens.reads(self.points_read(r), g) for g in self.groups] for r in self.row_labels]
        self._known = np.array(reads)
        by_class = self.n_classes if self.per_class else 0
        self.tally = Tally.empty(by_class, cells, denominators, replicates=self.replicates, seed=self.seed)

    def _read(self, batch: Readings) -> dict[str, Tensor]:
        over, under = self.count(batch)
        return {"over": over, "under": under}

    def _add(self, batch: Counted) -> None:
        over, under = (batch.values[name].astype(np.float64, copy=False) for name in ("over", "under"))
        if under.shape[1:] != self.tally.under_by_unit.shape[2:]:
            under = np.broadcast_to(under, over.shape)
        if self.lens_used is not None:
            # Tokens that the lens cannot read are not counted, as if they were not there.
            over, under = np.where(self._known, over, 0), np.where(self._known, under, 0)
        self.tally.add(over, under, labels=batch.labels, outcome=batch.outcome, indices=batch.indices)

    def _counts(self) -> dict[str, Any]:
        return dict(self.tally.arrays())

    def _load_counts(self, counts: dict[str, Any]) -> None:
        self.tally.load(counts)

    def contrasts(self) -> Sequence[Contrast]:
        """Differences to test: the rows of the table ``"differences"``."""
        return ()

    def sample(self, cell: Cell) -> Sample | None:
        """A share with its resamples; None if there is no such row, or nothing was counted."""
        rows = [i for i, row in enumerate(self.row_labels) if dict(cell.labels).items() <= row.items()]
        if len(rows) != 1:
            return None
        group = self.groups.index(cell.tokens) if cell.tokens else 0
        return self.tally.sample((rows[0], group), cell.outcome, level=self.level)

    def compare(self, controls: Sequence[Self]) -> dict[str, pd.DataFrame]:
        """The table ``"differences"``: every contrast within the model, and compared with every random twin."""
        rows = []
        for contrast in self.contrasts():
            parts = [_samples(study, contrast) for study in (self, *controls)]
            if parts[0] is None:
                continue
            plus, minus = parts[0]
            if minus:
                rows.append({"comparison": contrast.name, "against": ITSELF} | difference(plus, minus, self.level))
            for number, other in enumerate(parts[1:] if contrast.control else [], start=1):
                if other is not None:
                    gap = difference([*plus, *other[1]], [*minus, *other[0]], self.level)
                    rows.append({"comparison": contrast.name, "against": f"twin {number}"} | gap)
        return {"differences": pd.DataFrame(rows, columns=list(COLUMNS))} if rows else {}

    def tables(self) -> dict[str, pd.DataFrame]:
        """See `Study.tables`."""
        parts = []
        for outcome, name in ((None, "all"), (0, OUTCOMES[0]), (1, OUTCOMES[1])):
            value, low, high, count = self.tally.estimate(outcome, level=self.level)
            part = self._labelled(count > 0, outcome=name)
            for column, array in (("value", value), ("low", low), ("high", high), ("count", count)):
                part[column] = array[count > 0]
            parts.append(part)
        tables = {"main": _integer_counts(pd.concat(parts, ignore_index=True))}
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
        return _integer_counts(frame)


def _samples(study: ShareStudy, contrast: Contrast) -> tuple[list[Sample], list[Sample]] | None:
    """The shares of a contrast that count positively and negatively; None if one of them was not measured."""
    samples = [study.sample(cell) for cell in (contrast.more, contrast.less) if cell is not None]
    known = [sample for sample in samples if sample is not None]
    return None if len(known) < len(samples) else (known[:1], known[1:])


def _integer_counts(frame: pd.DataFrame) -> pd.DataFrame:
    frame["count"] = frame["count"].astype(np.int64)
    return frame
