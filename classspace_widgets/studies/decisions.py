"""When models decide, over data sets: how many tokens have settled by each block, and how sure they are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from classspace_widgets.lens.readout import pools
from classspace_widgets.metrics.decision import decision_of
from classspace_widgets.metrics.tables import decision_numbers
from classspace_widgets.studies.contrasts import Cell, Contrast
from classspace_widgets.studies.shares import ShareStudy

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.metrics.decision import Decision
    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.studies.counted import Counted
    from classspace_widgets.studies.readings import Readings

    Floats = np.ndarray[Any, np.dtype[np.float64]]

GRAIN = 2.0**-24
"""Values are rounded to whole multiples of this, so that sums of up to 2**29 pictures are exact in any order."""

BY_PICTURE = (
    "correct", "decided_block", "decided_share", "margin", "entropy", "log_probability", "mean_tau", "mean_entropy",
    "mean_margin", "mean_log_probability", "mean_reciprocal_rank", "image_decided_share",
)  # fmt: skip
"""Columns of `metrics.decision(...).table()` that the table ``pictures`` has."""


class Decisions(ShareStudy):
    """When tokens and answers settle on a class, and how sure they are until then.

    An untrained network settles on some class too, since its stream changes less and less relative to its length: compare
    with random twins.

    Parameters
    ----------
    k : int, optional
        Final classes whose order is followed; by default 5, or all where there are fewer.
    pictures : int
        Pictures with a row of their own in the table ``pictures``: so many of the first in the data, so that a run over
        millions stays small.
    """

    name = "decisions"
    through_lens = True
    title = "When it is decided"
    quantity = "Share of tokens, Kendall's tau (-1 to 1), entropy as a share of log C, probability: each at most 1"
    method = (
        "Residual stream after each block. 'decided': share of tokens whose final class is first here and stays first. 'tau': "
        "Kendall's tau between the order of the k final classes here and their final order. 'entropy': of the softmax over "
        "classes, divided by log C. 'label': probability of the picture's label. 'reciprocal rank': of the label. Table "
        "'pictures': one row for each picture (of the first 10,000, unless asked for more), about its answer."
    )

    def __init__(self, *, k: int | None = None, pictures: int = 10_000, **options: Any) -> None:
        super().__init__(**options)
        if pictures < 0:
            raise ValueError(f"pictures must be a number of rows, 0 or more, got {pictures}")
        self.table_size = pictures
        if k is not None and k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.k = k
        self.picture_rows = np.zeros((0, 2 + len(BY_PICTURE)))

    def options(self) -> dict[str, Any]:
        """See `Study.options`."""
        return {**super().options(), "k": self.k, "pictures": self.table_size}

    def rows(self, space: ClassSpace) -> list[dict[str, Any]]:
        """One row for each measure and block."""
        measures = ("decided", "tau", "entropy", "label", "reciprocal rank")
        return [{"block": b, "measure": m} for m in measures for b in range(space.points.n_blocks + 1)]

    def contrasts(self) -> list[Contrast]:
        """Tokens that are decided halfway through the blocks, on the object against its context, and against twins."""
        last = max(row["block"] for row in self.row_labels)
        half = {"block": last // 2, "measure": "decided"}
        return [
            Contrast(
                "decided halfway: class against context", Cell(half, tokens="class"), Cell(half, tokens="context")
            ),
        ]

    def count(self, batch: Readings) -> tuple[Tensor, Tensor]:
        """Sums over tokens, and tokens that are read, ``[B, S, G]`` each."""
        return self._sums(self._decision(batch), batch)

    def _decision(self, batch: Readings) -> Decision:
        return decision_of(batch.trace, batch.labels, k=self.k, lens=batch.lens, mid=False)

    def _sums(self, found: Decision, batch: Readings) -> tuple[Tensor, Tensor]:
        width = batch.trace.n_tokens + int(pools(batch.trace.pooling))
        at = torch.arange(len(found.points), device=found.first.device).view(-1, 1, 1)
        decided = (found.decided_at >= 0) & (found.decided_at <= at)
        parts = [
            decided.double().masked_fill(found.first < 0, torch.nan),
            found.tau,
            found.entropy / math.log(batch.n_classes) if batch.n_classes > 1 else found.entropy,
            found.log_probability.exp(),
            found.reciprocal_rank,
        ]
        values = torch.cat([part.double() for part in parts]).transpose(0, 1)[..., :width]
        read = ~values.isnan()
        rounded = torch.round(values.nan_to_num(0.0) / GRAIN) * GRAIN
        return batch.group_sums(rounded), batch.group_sums(read)

    def _read(self, batch: Readings) -> dict[str, Tensor]:
        found = self._decision(batch)
        over, under = self._sums(found, batch)
        numbers = decision_numbers(found)
        return {"over": over, "under": under, "own": torch.stack([numbers[name] for name in BY_PICTURE], dim=1)}

    def _add(self, batch: Counted) -> None:
        super()._add(batch)
        own = np.round(batch.values["own"] / GRAIN) * GRAIN
        rows = np.concatenate([batch.indices[:, None], batch.labels[:, None], own], axis=1)
        self.picture_rows = self._first(self.picture_rows, rows)

    def _counts(self) -> dict[str, Any]:
        return {**super()._counts(), "rows": self.picture_rows}

    def _load_counts(self, counts: dict[str, Any]) -> None:
        rows = np.asarray(counts["rows"], np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.picture_rows.shape[1]:
            raise ValueError(f"rows must have shape [n, {self.picture_rows.shape[1]}], got {rows.shape}")
        self.picture_rows = rows
        super()._load_counts({name: array for name, array in counts.items() if name != "rows"})

    def _merge_counts(self, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        sums = [{name: array for name, array in part.items() if name != "rows"} for part in (first, second)]
        return {**super()._merge_counts(*sums), "rows": self._first(first["rows"], second["rows"])}

    def tables(self) -> dict[str, pd.DataFrame]:
        """See `Study.tables`; ``pictures`` has a row for each picture."""
        rows = self.picture_rows
        table = pd.DataFrame(rows[:, 2:], columns=list(BY_PICTURE))
        table.insert(0, "picture", rows[:, 0].astype(np.int64))
        labels = rows[:, 1].astype(np.int64)
        table.insert(1, "label", labels)
        table.insert(2, "label_name", np.asarray(self.class_names, dtype=object)[labels].astype(str))
        return {**super().tables(), "pictures": table}

    def _first(self, some: Floats, others: Floats) -> Floats:
        """The first pictures of both, by their position in the data."""
        rows = np.concatenate([some, others])
        return rows[np.argsort(rows[:, 0], kind="stable")[: self.table_size]]
