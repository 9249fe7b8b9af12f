"""Studies of key-value memories: class-value agreement, key-value agreement rate, memory compositionality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from classspace_widgets.memories.values import value_vectors
from classspace_widgets.points import SUBLAYERS
from classspace_widgets.studies.contrasts import Cell, Contrast
from classspace_widgets.studies.protocol import Study
from classspace_widgets.studies.shares import ShareStudy
from classspace_widgets.studies.statistics import bootstrap_ci, least_wilcoxon_p, wilcoxon_greater

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.studies.counted import Counted
    from classspace_widgets.studies.readings import Readings


class ClassValueAgreement(Study):
    """Agreement of single value vectors with class embeddings: depends only on the weights."""

    name = "class_value_agreement"
    title = "Class-value agreement"
    quantity = "Mean over classes of the largest cosine between a class embedding and a value vector, -1 to 1"
    method = (
        "For every class, the largest cosine between its row of the class embedding and a column of the sublayer's output "
        "projection (Vilas et al. 2023). Against each random twin: Wilcoxon's signed-rank test over classes, one-sided, exact "
        "for up to 50 untied classes. Class c is paired with the twin's class c, as in the authors' code, although the twin's "
        "row c is a fresh draw and unrelated to that class. Intervals: percentile bootstrap over classes."
    )
    about_image_tokens = False

    def start(self, space: ClassSpace) -> None:
        """Compute all agreements, which depend only on the weights."""
        super().start(space)
        blocks = space.points.blocks
        self.row_labels = [{"block": b, "stream": s} for s in SUBLAYERS for b in blocks]
        with torch.inference_mode():
            agreements = [value_vectors(space, r["block"], r["stream"]).agreement() for r in self.row_labels]  # type: ignore[arg-type]
        self.agreement = torch.stack(agreements).double().cpu().numpy()

    def _read(self, batch: Readings) -> dict[str, Tensor]:
        """Nothing to read: pictures do not change agreements."""
        return {}

    def _add(self, batch: Counted) -> None:
        pass

    def _counts(self) -> dict[str, Any]:
        return {"agreement": self.agreement}

    def _load_counts(self, counts: dict[str, Any]) -> None:
        given = np.asarray(counts["agreement"])
        if given.shape != self.agreement.shape:
            raise ValueError(f"agreement must have shape {self.agreement.shape}, got {given.shape}")
        self.agreement = given

    def _merge_counts(self, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        if not np.allclose(first["agreement"], second["agreement"], atol=1e-5):
            raise ValueError("class-value agreements differ: the two parts were measured on different weights")
        return first

    def tables(self) -> dict[str, pd.DataFrame]:
        """See `Study.tables`."""
        main = pd.DataFrame(self.row_labels)
        main["value"] = self.agreement.mean(axis=1)
        main["low"] = main["high"] = np.nan
        if self.replicates:
            main["low"], main["high"] = bootstrap_ci(
                self.agreement.T, replicates=self.replicates, level=self.level, seed=self.seed
            )
        main["count"] = self.n_classes
        tables = {"main": main}
        if self.per_class:
            frame = pd.DataFrame(self.row_labels * self.n_classes)
            classes = np.repeat(np.arange(self.n_classes), len(self.row_labels))
            frame.insert(0, "class", classes)
            frame.insert(1, "class_name", np.asarray(self.class_names, dtype=object)[classes].astype(str))
            frame["value"] = self.agreement.T.ravel()
            tables["by_class"] = frame
        return tables

    def compare(self, controls: Sequence[ClassValueAgreement]) -> dict[str, pd.DataFrame]:
        """Wilcoxon's signed-rank test of every row against every random twin."""
        rows = []
        for number, control in enumerate(controls, start=1):
            for label, differences in zip(self.row_labels, self.agreement - control.agreement, strict=True):
                statistic, p = wilcoxon_greater(differences)
                measured = {"difference": differences.mean(), "statistic": statistic, "p": p}
                rows.append({"twin": number, **label, **measured, "p_least": least_wilcoxon_p(differences)})
        return {"wilcoxon": pd.DataFrame(rows)} if rows else {}


class _MemoryShare(ShareStudy):
    """Shares over tokens by block and sublayer, from the most active memories."""

    needs = frozenset({"active"})
    one_denominator = True

    def rows(self, space: ClassSpace) -> list[dict[str, Any]]:
        """One row for each block and sublayer."""
        blocks = space.points.blocks
        return [{"block": b, "stream": s} for s in SUBLAYERS for b in blocks]

    def start(self, space: ClassSpace) -> None:
        """Read the value vectors once."""
        super().start(space)
        with torch.inference_mode():
            self.of_values = [self._read_values(space, row["block"], row["stream"]) for row in self.row_labels]

    def _read_values(self, space: ClassSpace, block: int, sublayer: str) -> Tensor:
        raise NotImplementedError

    def _active(self, batch: Readings, row: dict[str, Any]) -> Tensor:
        key = (row["block"], row["stream"])
        if key not in batch.active:
            raise ValueError(f"{self.name} needs the active memories of block {key[0]}; use run_study")
        return batch.active[key]


class KeyValueAgreement(_MemoryShare):
    """Share of tokens with a memory of the picture's class among their five most active ones.

    Parameters
    ----------
    definition : str
        ``"value_of_class"``: the memory is among the five value vectors with the highest projection on the class (the
        authors' code); ``"class_of_value"``: the class is among the five classes of the value vector (the paper's text).
    """

    name = "key_value_agreement"
    title = "Key-value agreement rate"
    quantity = "Share of tokens, 0 to 1"

    def __init__(self, *, definition: str = "value_of_class", **options: Any) -> None:
        super().__init__(**options)
        if definition not in ("value_of_class", "class_of_value"):
            raise ValueError(f"definition must be 'value_of_class' or 'class_of_value', got {definition!r}")
        self.definition = definition
        condition = {
            "value_of_class": "is among the 5 value vectors of highest projection on the class (as in the authors' code)",
            "class_of_value": "has the class among its 5 classes of highest projection (as in the paper's text)",
        }[definition]
        self.method = (
            f"Share of tokens for which one of the 5 memories with the highest key coefficients {condition} "
            "(Vilas et al. 2023)."
        )

    def options(self) -> dict[str, Any]:
        """See `Study.options`."""
        return {**super().options(), "definition": self.definition}

    def contrasts(self) -> list[Contrast]:
        """The last block compared with random weights, and correct with wrong answers."""
        contrasts = []
        for row in self.row_labels:
            if row["block"] == self.row_labels[-1]["block"]:
                own = Cell(row, "image")
                contrasts.append(Contrast(f"{row['stream']}, last block", own, control=True))
                right, wrong = Cell(row, "image", outcome=0), Cell(row, "image", outcome=1)
                contrasts.append(Contrast(f"{row['stream']}, right against wrong answers", right, wrong))
        return contrasts

    def _read_values(self, space: ClassSpace, block: int, sublayer: str) -> Tensor:
        values = value_vectors(space, block, sublayer)
        hits = torch.zeros(values.scores.shape, dtype=torch.bool, device=values.scores.device)
        if self.definition == "value_of_class":
            return hits.scatter_(1, values.top_values(5), True)
        return hits.scatter_(0, values.top_class_ids(5).T, True)

    def count(self, batch: Readings) -> tuple[Tensor, Tensor]:
        """Tokens with a memory of the class."""
        agree = []
        for row, hits in zip(self.row_labels, self.of_values, strict=True):
            active = self._active(batch, row)
            own = hits[batch.labels]
            agree.append(own.gather(1, active.flatten(1)).view(active.shape).any(dim=-1))
        return batch.group_sums(torch.stack(agree, dim=1)), batch.group_sizes(pooled=False)[:, None]


class MemoryCompositionality(_MemoryShare):
    """Share of tokens where the sublayer's top class is not that of any of its five most active memories."""

    name = "memory_compositionality"
    title = "Memory compositionality"
    quantity = "Share of tokens, 0 to 1"
    method = (
        "Share of tokens for which the first class read from the sublayer's output is the first class of none of the 5 "
        "memories with the highest key coefficients (Vilas et al. 2023)."
    )

    def _read_values(self, space: ClassSpace, block: int, sublayer: str) -> Tensor:
        return value_vectors(space, block, sublayer).top_class_ids(1)[:, 0]

    def count(self, batch: Readings) -> tuple[Tensor, Tensor]:
        """Tokens whose top class is that of no single memory."""
        composed = []
        for row, top_class in zip(self.row_labels, self.of_values, strict=True):
            active = self._active(batch, row)
            top1 = batch.hidden.top1[:, batch.hidden.points.number(row["stream"], row["block"]), : active.shape[1]]
            composed.append((top_class[active] != top1.unsqueeze(-1)).all(dim=-1))
        return batch.group_sums(torch.stack(composed, dim=1)), batch.group_sizes(pooled=False)[:, None]
