"""Where the class shows: accuracy, class identifiability by place, and its rate of change from block to block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from classspace_widgets.studies.hidden import stream_points
from classspace_widgets.studies.protocol import ShareStudy, Study
from classspace_widgets.studies.statistics import interval, permutation_test_counts, picture_signs, picture_weights

if TYPE_CHECKING:
    from classspace_widgets.space import ClassSpace
    from classspace_widgets.studies.readings import Readings

    Floats = np.ndarray[Any, np.dtype[np.float64]]


class Accuracy(ShareStudy):
    """Share of pictures whose label is the model's answer (top-1), or among its ``k`` best.

    Parameters
    ----------
    k : sequence of int
        The numbers of best classes that count.
    **options
        As in `Study`.
    """

    name = "accuracy"
    title = "Accuracy"
    quantity = "Share of pictures, 0 to 1"
    method = "A picture counts for top-k where fewer than k classes have a strictly larger logit than its label."
    groups = ("picture",)

    def __init__(self, *, k: tuple[int, ...] = (1, 5), **options: Any) -> None:
        super().__init__(**options)
        self.k = tuple(k)

    def options(self) -> dict[str, Any]:
        """See `Study.options`."""
        return {**super().options(), "k": self.k}

    def rows(self, space: ClassSpace) -> list[dict[str, Any]]:
        """One row for each k."""
        return [{"measure": f"top-{k}"} for k in self.k]

    def count(self, batch: Readings) -> tuple[Floats, Floats]:
        """Pictures whose label is among the k best."""
        output = batch.trace.output
        rank = (output > output.gather(1, batch.labels[:, None])).sum(dim=1).cpu().numpy()
        hits = np.stack([rank < k for k in self.k], axis=1)[:, :, None].astype(np.float64)
        return hits, np.ones_like(hits)

    def tables(self) -> dict[str, pd.DataFrame]:
        """See `Study.tables`; splitting accuracy by outcome would be empty talk."""
        tables = super().tables()
        main = tables["main"]
        tables["main"] = main[main["outcome"] == "all"].drop(columns="outcome").reset_index(drop=True)
        return tables


class Identifiability(ShareStudy):
    """Class identifiability ``1 - rank / C`` of every stream by block and token group.

    Parameters
    ----------
    mid : bool
        Read also the residual stream between attention and MLP.
    """

    name = "identifiability"
    title = "Class identifiability"
    quantity = "Mean of 1 - rank/C over tokens; 1: the label is the first class everywhere, about 0.5: chance"
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
        points = stream_points(len(space.adapter.blocks), space.adapter.layout, mid=self.mid)
        return [{"block": block, "stream": stream} for block, stream in points]

    def count(self, batch: Readings) -> tuple[Floats, Floats]:
        """Sums of ``C - rank`` over tokens, and tokens times C."""
        keep = [batch.hidden.index(r["block"], r["stream"]) for r in self.row_labels]
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


class IdentifiabilityChange(ShareStudy):
    """Share of tokens that come closer to their class from one block to the next."""

    name = "identifiability_change"
    title = "Identifiability change rate"
    quantity = "Share of tokens, 0 to 1"
    method = (
        "Residual stream x_l against x_{l-1}: share of tokens whose class logit rises (measure 'logit', the paper's), "
        "and whose class rank strictly improves (measure 'identifiability')."
    )

    def rows(self, space: ClassSpace) -> list[dict[str, Any]]:
        """One row for each block and measure."""
        blocks = range(1, len(space.adapter.blocks) + 1)
        return [{"block": b, "measure": m} for m in ("logit", "identifiability") for b in blocks]

    def count(self, batch: Readings) -> tuple[Floats, Floats]:
        """Tokens that rise."""
        hidden = batch.hidden
        at = [hidden.index(b, "residual") for b in range(batch.trace.n_blocks + 1)]
        logit, rank = hidden.label_logit[:, at], hidden.label_rank[:, at]
        rises = np.concatenate(
            [batch.group_sums(logit[:, 1:] > logit[:, :-1]), batch.group_sums(rank[:, 1:] < rank[:, :-1])], axis=1
        )
        return rises, batch.group_sizes()[:, None]


class PlaceDifference(Study):
    """Class tokens against context tokens: difference in identifiability, with permutation tests.

    Parameters
    ----------
    permutations : int
        Of each test; the paper's is 300.
    """

    name = "place_difference"
    title = "Class tokens against context tokens"
    quantity = "Mean identifiability of tokens inside the object minus outside it, -1 to 1"
    method = (
        "p_tokens: labels permuted over all tokens, as in the paper, with p = (k+1)/(n+1) and exact hypergeometric "
        "draws from the histogram of ranks. p_pictures: signs of the pictures' own differences flipped, which respects "
        "that tokens of one picture are not independent. Both one-sided (class tokens higher). Interval: percentile "
        "bootstrap over pictures of the difference between the two means over tokens."
    )
    needs = frozenset({"masks"})

    def __init__(self, *, permutations: int = 300, **options: Any) -> None:
        super().__init__(**options)
        self.permutations = permutations

    def options(self) -> dict[str, Any]:
        """See `Study.options`."""
        return {**super().options(), "permutations": self.permutations}

    def start(self, space: ClassSpace) -> None:
        """See `Study.start`."""
        super().start(space)
        self.points = stream_points(len(space.adapter.blocks), space.adapter.layout)
        s = len(self.points)
        # histogram of ranks; resampled sums and counts; per picture differences, sign-flipped.
        self._state: dict[str, Any] = {
            "histogram": np.zeros((2, s, self.n_classes)),
            "resampled": np.zeros((self.replicates, 2, s + 1)),
            "differences": np.zeros(s),
            "flipped": np.zeros((self.permutations, s)),
            "pictures": np.zeros(1),
        }

    def _take(self, batch: Readings) -> None:
        if batch.token_masks is None:
            return
        hidden, prefix, tokens = batch.hidden, len(batch.trace.prefix), batch.trace.n_tokens
        at = [hidden.index(*point) for point in self.points]
        ranks = hidden.label_rank[:, at, prefix:tokens].cpu().numpy()
        masks = batch.token_masks.cpu().numpy()
        state, s = self._state, len(self.points)
        offsets = np.arange(s)[:, None] * self.n_classes
        for which, value in ((0, 1), (1, 0)):
            chosen = np.moveaxis(ranks, 1, 0)[:, masks == value] + offsets
            counts = np.bincount(chosen.ravel(), minlength=s * self.n_classes)
            state["histogram"][which] += counts.reshape(s, self.n_classes)
        sizes = np.stack([(masks == 1).sum(axis=1), (masks == 0).sum(axis=1)], axis=1)
        points = self.n_classes - ranks
        sums = np.stack([np.einsum("bsp,bp->bs", points, masks == v) for v in (1, 0)], axis=1)
        seen = np.flatnonzero(sizes.sum(axis=1) > 0)
        if len(seen) and self.replicates:
            weights = picture_weights(batch.indices[seen], self.replicates, seed=self.seed)
            full = np.concatenate([sums, sizes[:, :, None]], axis=2)[seen].astype(np.float64)
            state["resampled"] += np.einsum("rb,bks->rks", weights, full)
        both = np.flatnonzero((sizes > 0).all(axis=1))
        if len(both):
            # Whole numbers: differences of means in units of 2**-32, so that sums do not depend on their order.
            means = sums[both] / sizes[both][:, :, None] / self.n_classes
            own = np.round((means[:, 0] - means[:, 1]) * 2**32)
            state["differences"] += own.sum(axis=0)
            state["flipped"] += picture_signs(batch.indices[both], self.permutations, seed=self.seed) @ own
            state["pictures"] += len(both)

    def state(self) -> dict[str, Any]:
        """See `Study.state`."""
        return dict(self._state)

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Study.load_state`."""
        for name, own in self._state.items():
            if np.shape(state[name]) != own.shape:
                raise ValueError(f"{name} must have shape {own.shape}, got {np.shape(state[name])}")
        self._state = {name: np.array(state[name], dtype=np.float64) for name in self._state}

    def tables(self) -> dict[str, pd.DataFrame]:
        """See `Study.tables`."""
        state = self._state
        levels = 1 - np.arange(self.n_classes) / self.n_classes
        sums, sizes = state["resampled"][..., :-1], state["resampled"][..., -1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            means = sums / sizes / self.n_classes
        resampled = means[:, 0] - means[:, 1]
        empty = np.full(len(self.points), np.nan)
        low, high = interval(resampled, self.level) if self.replicates else (empty, empty)
        rows = []
        for at, (block, stream) in enumerate(self.points):
            table = state["histogram"][:, at].astype(np.int64)
            if (table.sum(axis=1) == 0).any():
                continue
            difference, p = permutation_test_counts(levels, table, permutations=self.permutations, seed=self.seed)
            extreme = int((state["flipped"][:, at] >= state["differences"][at]).sum())
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
                    "p_pictures": (extreme + 1) / (self.permutations + 1),
                    "count": int(table.sum()),
                }
            )
        names = ["block", "stream", "class", "context", "value", "low", "high", "p_tokens", "p_pictures", "count"]
        return {"main": pd.DataFrame(rows, columns=names)}

    def notes(self) -> tuple[str, ...]:
        """See `Study.notes`."""
        if not self._state["histogram"].any():
            return ("The data set has no object masks, so there is nothing to compare.",)
        return (f"{int(self._state['pictures'][0])} pictures have both class and context tokens.",)
