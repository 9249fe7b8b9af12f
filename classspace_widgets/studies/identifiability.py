"""Accuracy, class identifiability by place, and its rate of change from block to block."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from classspace_widgets.lens import count_above
from classspace_widgets.metrics.identifiability import chance_identifiability
from classspace_widgets.studies.contrasts import Cell, Contrast
from classspace_widgets.studies.protocol import Study
from classspace_widgets.studies.shares import ShareStudy
from classspace_widgets.studies.statistics import (
    UNITS,
    interval,
    permutation_test_counts,
    resampling_units,
    unit_signs,
    unit_weights,
)

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.studies.counted import Counted
    from classspace_widgets.studies.readings import Readings

    Floats = np.ndarray[Any, np.dtype[np.float64]]


# Means are rounded to whole multiples of this, so that their sums are exact in any order: 2**53 / 2**32 allows for two
# million pictures.
_GRAIN = 2.0**-32


class Accuracy(ShareStudy):
    """Share of pictures whose label is the model's answer (top-1), or among its ``k`` best.

    Parameters
    ----------
    k : sequence of int
        One row for each k.
    **options
        As in `Study`.
    """

    name = "accuracy"
    through_lens = True  # the model's own answers, whatever the lens
    title = "Accuracy"
    quantity = "Share of pictures, 0 to 1"
    method = "A picture counts for top-k if fewer than k classes have a strictly larger logit than its label."
    groups = ("picture",)
    about_image_tokens = False

    def __init__(self, *, k: tuple[int, ...] = (1, 5), **options: Any) -> None:
        super().__init__(**options)
        self.k = tuple(k)

    def options(self) -> dict[str, Any]:
        """See `Study.options`."""
        return {**super().options(), "k": self.k}

    def rows(self, space: ClassSpace) -> list[dict[str, Any]]:
        """One row for each k."""
        return [{"measure": f"top-{k}"} for k in self.k]

    def count(self, batch: Readings) -> tuple[Tensor, Tensor]:
        """Pictures whose label is among the k best."""
        output = batch.trace.output
        rank = count_above(output, output.gather(1, batch.labels[:, None]))[:, 0]
        hits = torch.stack([rank < k for k in self.k], dim=1)[:, :, None].double()
        return hits, torch.ones_like(hits)

    def tables(self) -> dict[str, pd.DataFrame]:
        """See `Study.tables`; without rows by outcome, whose accuracy is 1 or 0 by definition."""
        tables = super().tables()
        main = tables["main"]
        tables["main"] = main[main["outcome"] == "all"].drop(columns="outcome").reset_index(drop=True)
        return tables


class Identifiability(ShareStudy):
    """Class identifiability ``1 - rank / C`` of every stream by block and token group.

    Parameters
    ----------
    mid : bool
        Also read the residual stream between attention and MLP.
    """

    name = "identifiability"
    through_lens = True
    title = "Class identifiability"
    one_denominator = True
    quantity = "Mean of 1 - rank/C over tokens; 1: the label ranks first everywhere; (C + 1) / (2 C): chance"
    method = (
        "Every stream is read through the final norm and the class embedding; the rank of the picture's label is the "
        "number of classes with a strictly larger logit (Vilas et al. 2023). Intervals: percentile "
        "bootstrap over pictures."
    )

    def __init__(self, *, mid: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.mid = mid
        if mid:
            self.needs = frozenset({"mid"})

    def options(self) -> dict[str, Any]:
        """See `Study.options`."""
        return {**super().options(), "mid": self.mid}

    def rows(self, space: ClassSpace) -> list[dict[str, Any]]:
        """One row for each stream point."""
        return [{"block": block, "stream": stream} for block, stream in replace(space.points, mid=self.mid)]

    def points_read(self, row: dict[str, Any]) -> list[tuple[str, int]]:
        """The row's own point."""
        return [(row["stream"], row["block"])]

    def contrasts(self) -> list[Contrast]:
        """The rise in image tokens from the embedding to the last block, in the model and compared with the twins' rise."""
        first, last = self.row_labels[0], self.row_labels[-1]
        return [Contrast("rise in image tokens", Cell(last, "image"), Cell(first, "image"), control=True)]

    def count(self, batch: Readings) -> tuple[Tensor, Tensor]:
        """Sums of ``C - rank`` over tokens, and tokens times C."""
        keep = [batch.hidden.points.number(r["stream"], r["block"]) for r in self.row_labels]
        sums = batch.group_sums(batch.n_classes - batch.hidden.label_rank[:, keep])
        return sums, (batch.group_sizes() * batch.n_classes)[:, None]

    def tables(self) -> dict[str, pd.DataFrame]:
        """See `Study.tables`; ``count`` is in tokens, and ``last_block`` is the paper's table."""
        tables = super().tables()
        for table in tables.values():
            table["count"] //= self.n_classes
        main = tables["main"]
        last = main["block"] == main["block"].max()
        tables["last_block"] = main[last & (main["stream"] == "residual")].reset_index(drop=True)
        return tables

    @property
    def chance(self) -> float:
        """The mean identifiability over all ranks."""
        return chance_identifiability(self.n_classes)


class IdentifiabilityChange(ShareStudy):
    """Share of tokens whose class becomes more identifiable from one block to the next."""

    name = "identifiability_change"
    through_lens = True
    title = "Identifiability change rate"
    one_denominator = True
    quantity = "Share of tokens, 0 to 1"
    method = (
        "Residual stream x_l against x_{l-1}: share of tokens whose class logit rises (measure 'logit', the paper's), "
        "and whose class rank strictly improves (measure 'identifiability')."
    )

    def rows(self, space: ClassSpace) -> list[dict[str, Any]]:
        """One row for each block and measure."""
        return [{"block": b, "measure": m} for m in ("logit", "identifiability") for b in space.points.blocks]

    def points_read(self, row: dict[str, Any]) -> list[tuple[str, int]]:
        """The block's output and its input."""
        return [("residual", row["block"]), ("residual", row["block"] - 1)]

    def count(self, batch: Readings) -> tuple[Tensor, Tensor]:
        """Tokens whose class rises."""
        hidden = batch.hidden
        at = hidden.points.of_streams("residual")
        logit, rank = hidden.label_logit[:, at], hidden.label_rank[:, at]
        rises = torch.cat(
            [batch.group_sums(logit[:, 1:] > logit[:, :-1]), batch.group_sums(rank[:, 1:] < rank[:, :-1])], dim=1
        )
        return rises, batch.group_sizes()[:, None]


class PlaceDifference(Study):
    """Class tokens against context tokens: difference in identifiability, with permutation tests.

    Parameters
    ----------
    permutations : int
        Number for the test over tokens; the paper uses 300.
    sign_flips : int
        Number for the test over pictures; p is at least ``1 / (sign_flips + 1)``.

    Notes
    -----
    There are two weightings. ``value`` in the table ``"main"`` is a mean over all tokens, as in the paper, so a picture counts
    by the number of its tokens; in ``"by_picture"`` it is a mean over pictures of the means of each, which ``p_pictures``
    tests.
    """

    name = "place_difference"
    through_lens = True
    title = "Class tokens against context tokens"
    quantity = "Mean identifiability of tokens inside the object minus outside it, -1 to 1"
    method = (
        "Main table: means over all tokens; table 'by_picture': means over the pictures that have both kinds of tokens, of the "
        "means of each. p_tokens: labels permuted over all tokens, as in the paper, with p = (k+1)/(n+1) and exact "
        "hypergeometric draws from the histogram of ranks. p_pictures: signs of the pictures' differences flipped, because "
        "tokens of one picture are not independent (of more than 512 pictures, the signs of 512 random groups of them); "
        "p_least is the smallest value it can have. Both are one-sided (class tokens higher). Intervals: percentile bootstrap over pictures."
    )
    needs = frozenset({"masks"})

    def __init__(self, *, permutations: int = 300, sign_flips: int = 2000, **options: Any) -> None:
        super().__init__(**options)
        if permutations < 1 or sign_flips < 1:
            raise ValueError(f"expected permutations and sign_flips of at least 1, got {permutations} and {sign_flips}")
        self.permutations, self.sign_flips = permutations, sign_flips

    def options(self) -> dict[str, Any]:
        """See `Study.options`."""
        return {**super().options(), "permutations": self.permutations, "sign_flips": self.sign_flips}

    def start(self, space: ClassSpace) -> None:
        """See `Study.start`."""
        super().start(space)
        self.points = replace(space.points, mid=False)
        s = len(self.points)
        self.known = np.array(
            [
                self.lens_used is None or self.lens_used.reads([(stream, block)], "image")
                for block, stream in self.points
            ]
        )
        # For tokens: histograms of ranks, and by unit of resampling their sums with counts. For pictures: sums of their
        # means inside and outside, and by unit of resampling sums of their differences with counts.
        self._state: dict[str, Any] = {
            "histogram": np.zeros((2, s, self.n_classes)),
            "by_unit": np.zeros((UNITS, 2, s + 1)),
            "means": np.zeros((2, s)),
            "differences": np.zeros((UNITS, s + 1)),
            "pictures": np.zeros(1),
        }

    def _read(self, batch: Readings) -> dict[str, Tensor]:
        if batch.token_masks is None:
            return {}
        hidden, prefix, tokens = batch.hidden, len(batch.trace.prefix), batch.trace.n_tokens
        at = [hidden.points.number(stream, block) for block, stream in self.points]
        return {"ranks": hidden.label_rank[:, at, prefix:tokens].int(), "masks": batch.token_masks}

    def _add(self, batch: Counted) -> None:
        if not batch.values:
            return
        # Points that the lens cannot read count nothing: they are left out of the tables.
        ranks = np.where(self.known[:, None], batch.values["ranks"], 0)
        masks = batch.values["masks"]
        state, s = self._state, len(self.points)
        offsets = np.arange(s)[:, None] * self.n_classes
        for which, value in ((0, 1), (1, 0)):
            chosen = np.moveaxis(ranks, 1, 0)[:, masks == value] + offsets
            counts = np.bincount(chosen.ravel(), minlength=s * self.n_classes)
            state["histogram"][which] += counts.reshape(s, self.n_classes) * self.known[:, None]
        sizes = np.stack([(masks == 1).sum(axis=1), (masks == 0).sum(axis=1)], axis=1)
        points = self.n_classes - ranks
        sums = np.stack([np.einsum("bsp,bp->bs", points, masks == v) for v in (1, 0)], axis=1)
        units = resampling_units(batch.indices, seed=self.seed)
        np.add.at(state["by_unit"], units, np.concatenate([sums, sizes[:, :, None]], axis=2))
        both = np.flatnonzero((sizes > 0).all(axis=1))
        if len(both):
            # Whole multiples of _GRAIN, so that sums do not depend on their order.
            means = np.round(sums[both] / sizes[both][:, :, None] / self.n_classes / _GRAIN)
            own = means[:, 0] - means[:, 1]
            state["means"] += means.sum(axis=0)
            state["pictures"] += len(both)
            np.add.at(state["differences"], units[both], np.concatenate([own, np.ones((len(own), 1))], axis=1))

    def _counts(self) -> dict[str, Any]:
        return dict(self._state)

    def _load_counts(self, counts: dict[str, Any]) -> None:
        for name, own in self._state.items():
            if np.shape(counts[name]) != own.shape:
                raise ValueError(f"{name} must have shape {own.shape}, got {np.shape(counts[name])}")
        self._state = {name: np.asarray(counts[name], dtype=np.float64) for name in self._state}

    def tables(self) -> dict[str, pd.DataFrame]:
        """See `Study.tables`."""
        return {"main": self._over_tokens(), "by_picture": self._over_pictures()}

    def _over_tokens(self) -> pd.DataFrame:
        state = self._state
        levels = 1 - np.arange(self.n_classes) / self.n_classes
        drawn = np.tensordot(unit_weights(self.replicates, seed=self.seed), state["by_unit"], axes=1)
        sums, sizes = drawn[..., :-1], drawn[..., -1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            means = sums / sizes / self.n_classes
        resampled = means[:, 0] - means[:, 1]
        # A single picture has no spread.
        spread = self.replicates and state["pictures"][0] > 1
        empty = np.full(len(self.points), np.nan)
        low, high = interval(resampled, self.level) if spread else (empty, empty)
        by_picture, rows = self._p_pictures(), []
        for at, (block, stream) in enumerate(self.points):
            table = state["histogram"][:, at].astype(np.int64)
            if (table.sum(axis=1) == 0).any():
                continue
            difference, p = permutation_test_counts(levels, table, permutations=self.permutations, seed=self.seed)
            rows.append(
                {
                    "block": block,
                    "stream": stream,
                    "class": float(table[0] @ levels / table[0].sum()),
                    "context": float(table[1] @ levels / table[1].sum()),
                    "value": difference,
                    "low": low[at],
                    "high": high[at],
                    "p_tokens": p,
                    "p_pictures": by_picture[at],
                    "count": int(table.sum()),
                }
            )
        names = ["block", "stream", "class", "context", "value", "low", "high", "p_tokens", "p_pictures", "count"]
        return pd.DataFrame(rows, columns=names)

    def _p_pictures(self) -> Floats:
        state = self._state
        if state["pictures"][0] == 0:
            return np.full(len(self.points), np.nan)
        # Rounding changes a picture's difference by one unit at most: sums within that distance count as ties.
        own = state["means"][0] - state["means"][1] - 2 * state["pictures"]
        flipped = unit_signs(self.sign_flips, seed=self.seed) @ state["differences"][:, :-1]
        extreme = (flipped >= own).sum(axis=0)
        p: Floats = (extreme + 1) / (self.sign_flips + 1)
        return p

    def _over_pictures(self) -> pd.DataFrame:
        state, pictures = self._state, int(self._state["pictures"][0])
        names = ["block", "stream", "class", "context", "value", "low", "high", "p_pictures", "p_least", "count"]
        if pictures == 0:
            return pd.DataFrame(columns=names)
        table = pd.DataFrame(self.points, columns=["block", "stream"])
        table["class"], table["context"] = state["means"] * _GRAIN / pictures
        differences = state["means"][0] - state["means"][1]
        table["value"] = differences * _GRAIN / pictures
        table["low"] = table["high"] = np.nan
        if self.replicates and pictures > 1:
            resampled = unit_weights(self.replicates, seed=self.seed) @ state["differences"]
            sums, drawn = resampled[:, :-1], resampled[:, -1:]
            resampled = np.divide(sums, drawn, out=np.full_like(sums, np.nan), where=drawn > 0) * _GRAIN
            table["low"], table["high"] = interval(resampled, self.level)
        table["p_pictures"] = self._p_pictures()
        table["p_least"] = 1 / (self.sign_flips + 1)
        table["count"] = pictures
        return table.loc[self.known, names].reset_index(drop=True)

    def notes(self) -> tuple[str, ...]:
        """See `Study.notes`."""
        if not self._state["histogram"].any():
            return ("The data set has no object masks, so there is nothing to compare.",)
        return (f"{int(self._state['pictures'][0])} pictures have both class and context tokens.", *super().notes())
