"""Tests of token importance: perturbation curves and areas, and agreement with object masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch

from classspace_widgets.explain.importance import importance
from classspace_widgets.explain.masks import SCORES, mask_scores
from classspace_widgets.explain.methods import METHODS
from classspace_widgets.explain.perturbation import ORDERS, paper_area, perturbation, random_scores
from classspace_widgets.explain.reading import LOSSES
from classspace_widgets.images import Prepared
from classspace_widgets.interventions.resume import Resumable
from classspace_widgets.space.space import space_of
from classspace_widgets.studies.contrasts import Cell, Contrast
from classspace_widgets.studies.readings import OUTCOMES
from classspace_widgets.studies.shares import ShareStudy
from classspace_widgets.studies.tally import interval_of

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.explain.perturbation import PerturbationCurves
    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.studies.readings import Readings

    Scorer = Callable[[Readings], Tensor]

MEASURES = ("accuracy", "probability")
GRAIN = 2.0**-24
"""Values in [0, 1] are rounded to whole multiples of this, so that sums of up to 2**29 pictures are exact in any order."""


class ExplanationStudy(ShareStudy):
    """How well methods of token importance find the tokens that the model needs, and the object.

    Parameters
    ----------
    methods : sequence of str
        As in `explain.importance`; ``"gradient:cross_entropy"`` and ``"gradient:paper"`` set the gradient's loss,
        ``"flow:2"`` the block of the flow.
    loss : str
        Loss of ``"gradient"``.
    scorers : mapping of str to callable, optional
        More methods by name: functions from the batch (`Readings`) to scores ``[B, P]`` of the image tokens for the
        pictures' labels, such as `probing.ProbeScores` and `probing.LensScores`.
    steps : int
        Number of points on a curve, evenly spaced from one token to all; 0 for every number of tokens.
    random_orders : int
        Random orders per picture, as a control; 0 for none.
    """

    name = "explanation"
    title = "Tests of token importance"
    quantity = "Areas, accuracies and probabilities, 0 to 1; mask scores, 0 to 1"
    method = (
        "Image tokens are removed after the position embedding, by importance for the picture's label: the least "
        "important first ('negative', higher is better) or the most important first ('positive', lower is better); area "
        "under the curve over the share of tokens kept, by the trapezoid rule ('area'), and as in the paper's code ('area "
        "(paper)': the sum of the data set's curve over its largest value times the number of steps; Vilas et al. 2023). Against "
        "object masks: pointing game, IoU at each picture's best threshold, average precision, share of positive importance "
        "inside."
    )
    groups: ClassVar[tuple[str, ...]] = ("all",)
    about_image_tokens = False
    needs = frozenset({"pixels"})

    def __init__(
        self,
        *,
        methods: Sequence[str] = ("gradient", "direct", "chefer", "rollout"),
        loss: str = "logit",
        steps: int = 0,
        random_orders: int = 1,
        scorers: Mapping[str, Scorer] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        known = {*METHODS, *(f"gradient:{loss}" for loss in LOSSES)}
        unknown = [m for m in methods if m not in known and not (m.startswith("flow:") and m[5:].isdecimal())]
        if unknown or not methods:
            raise ValueError(
                f"methods must be among {tuple(sorted(known))} or 'flow:1' for a block, got {unknown or 'none'}"
            )
        if steps < 0 or steps == 1 or random_orders < 0:
            raise ValueError(f"expected steps = 0 or >= 2 and random_orders >= 0, got {steps} and {random_orders}")
        self.methods, self.loss, self.steps, self.random_orders = tuple(methods), loss, steps, random_orders
        self.scorers = dict(scorers or {})
        taken = [name for name in self.scorers if name in known or name == "random"]
        if taken:
            raise ValueError(f"scorers need new names, got {taken[0]!r}, which is the name of a method")

    def options(self) -> dict[str, Any]:
        """See `Study.options`."""
        own = {"methods": self.methods, "loss": self.loss, "steps": self.steps, "random_orders": self.random_orders}
        scorers = {"scorers": tuple(self.scorers)} if self.scorers else {}
        return {**super().options(), **own, **scorers}

    def rows(self, space: ClassSpace) -> list[dict[str, Any]]:
        """One row for every area, mask score and step of a curve (``kept`` is -1 if it is not a step)."""
        count = space.adapter.grid[0] * space.adapter.grid[1]
        steps = np.linspace(1, count, self.steps or count).round().astype(int)
        self.kept = tuple(sorted({int(n) for n in steps}, reverse=True))
        found = []
        for method in (*self.methods, *self.scorers, *(("random",) if self.random_orders else ())):
            for order in ORDERS:
                for measure in MEASURES:
                    found.append({"method": method, "measure": f"{order} {measure} area", "kept": -1})
                    found += [{"method": method, "measure": f"{order} {measure}", "kept": n} for n in self.kept]
            found += [{"method": method, "measure": score, "kept": -1} for score in SCORES]
        return found

    def start(self, space: ClassSpace) -> None:
        """See `Study.start`."""
        super().start(space)
        last = space.points.n_blocks
        # Scorers that read image tokens after the last block, which the model itself does not use.
        ends = {name: getattr(scorer, "block", None) == last for name, scorer in self.scorers.items()}
        self.unused_scorers = tuple(name for name, at_end in ends.items() if at_end and self.unused_image_tokens)

    def contrasts(self) -> list[Contrast]:
        """Every gradient against every other method, by both areas: positive if the gradient is better."""
        found = []
        methods = (*self.methods, *self.scorers, *(("random",) if self.random_orders else ()))
        for own in self.methods:
            for other in methods:
                if not own.startswith("gradient") or other.startswith("gradient"):
                    continue
                for order in ORDERS:
                    cells = [Cell({"method": m, "measure": f"{order} accuracy area"}) for m in (own, other)]
                    more, less = cells if order == "negative" else reversed(cells)
                    found.append(Contrast(f"{order}: {own} against {other}", more, less))
        return found

    def notes(self) -> tuple[str, ...]:
        """See `Study.notes`."""
        return tuple(
            f"'{name}' reads the image tokens after the last block, which this model does not use: it answers from its "
            "prefix tokens."
            for name in self.unused_scorers
        )

    def count(self, batch: Readings) -> tuple[Tensor, Tensor]:
        """Values, and 1 where they are defined, ``[B, S, 1]`` each."""
        if batch.trace.space is None or batch.pixels is None:
            raise ValueError("this study runs further passes: use run_study")
        space = space_of(batch.trace)
        run = Resumable.record(space.adapter, batch.pixels)
        count = space.adapter.grid[0] * space.adapter.grid[1]
        parts = []
        for name in self.methods:
            method, _, option = name.partition(":")
            given: dict[str, Any] = {}
            if method == "gradient":
                given["loss"] = option or self.loss
            elif option:
                given["block"] = int(option)
            found = importance(space, batch.labels.unsqueeze(1), images=Prepared(batch.pixels), method=method, **given)
            parts.append(self._measured(batch, space, run, found.scores[:, 0]))
        parts += [self._measured(batch, space, run, scorer(batch)) for scorer in self.scorers.values()]
        if self.random_orders:
            random = [
                self._measured(
                    batch, space, run, random_scores(batch.indices, count, repeat=r, seed=self.seed).to(space.device)
                )
                for r in range(self.random_orders)
            ]
            parts.append(torch.stack(random).mean(dim=0))
        values = torch.cat(parts, dim=1)[:, :, None]
        defined = ~values.isnan()
        return torch.round(values.nan_to_num(0.0) / GRAIN) * GRAIN, defined.double()

    def _measured(self, batch: Readings, space: ClassSpace, run: Resumable, scores: Tensor) -> Tensor:
        """Values ``[B, rows of one method]`` in the order of `rows`."""
        curves = perturbation(space, batch.pixels, batch.labels, scores, kept=self.kept, run=run)
        columns = [self._curve(curves, order, measure) for order in ORDERS for measure in MEASURES]
        masks = batch.token_masks
        agreement = None if masks is None else mask_scores(scores, masks)
        missing = torch.full((len(scores), 1), torch.nan, dtype=torch.float64, device=scores.device)
        columns += [missing if agreement is None else agreement[score].unsqueeze(1) for score in SCORES]
        return torch.cat(columns, dim=1)

    @staticmethod
    def _curve(curves: PerturbationCurves, order: str, measure: str) -> Tensor:
        steps = curves.correct[order] if measure == "accuracy" else curves.probability[order]
        return torch.cat([curves.area(order, measure).unsqueeze(1), steps.double()], dim=1)

    def tables(self) -> dict[str, pd.DataFrame]:
        """See `Study.tables`; ``curves`` has the steps of the curves, ``paper`` the form of the paper's table."""
        tables = super().tables()
        main = tables["main"]
        tables["curves"] = main[main["kept"] >= 0].reset_index(drop=True)
        areas = main[main["kept"] < 0].drop(columns="kept")
        tables["main"] = pd.concat([areas, self._paper_areas()], ignore_index=True)
        if "by_class" in tables:
            per_class = tables["by_class"]
            tables["by_class"] = per_class[per_class["kept"] < 0].drop(columns="kept").reset_index(drop=True)
        areas = tables["main"][tables["main"]["outcome"] == "all"]
        areas = areas[
            areas["measure"].isin([f"{order} accuracy area{kind}" for order in ORDERS for kind in ("", " (paper)")])
        ]
        paper = areas.pivot(index="method", columns="measure", values="value").reset_index()
        tables["paper"] = paper.rename_axis(columns=None)
        return tables

    def _paper_areas(self) -> pd.DataFrame:
        """Areas as in the paper's code, of the mean curve of all pictures of an outcome."""
        found = []
        labels = pd.DataFrame(self.row_labels)
        for method in dict.fromkeys(labels["method"]):
            for measure in (f"{order} {kind}" for order in ORDERS for kind in MEASURES):
                steps = np.flatnonzero((labels["method"] == method) & (labels["measure"] == measure))
                for outcome, name in ((None, "all"), *enumerate(OUTCOMES)):
                    samples = [self.tally.sample((int(step), 0), outcome, level=self.level) for step in steps]
                    known = [s for s in samples if s is not None]
                    if len(known) < len(samples):
                        continue
                    value = float(paper_area(torch.tensor([s.value for s in known])))
                    resampled = paper_area(torch.from_numpy(np.stack([s.resampled for s in known], axis=1))).numpy()
                    low = high = np.array(np.nan)
                    if len(resampled):
                        low, high = interval_of(value, resampled, known[0].pictures, self.level)
                    row = {"method": method, "measure": f"{measure} area (paper)", "outcome": name, "value": value}
                    found.append(row | {"low": float(low), "high": float(high), "count": known[0].pictures})
        frame = pd.DataFrame(found)
        return frame[frame["value"].notna()]
