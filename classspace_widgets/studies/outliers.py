"""Long tokens over data sets: how many there are after each block, and how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.metrics.norms import THRESHOLD, token_norms
from classspace_widgets.studies.shares import ShareStudy

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.studies.readings import Readings


GRAIN = 2.0**-24
"""Values are rounded to whole multiples of this, so that sums of up to 2**29 pictures are exact in any order."""


class Outliers(ShareStudy):
    """Tokens that are much longer than the others of their block, which large models use as scratch paper.

    Parameters
    ----------
    threshold : float
        How many medians of the picture's image tokens an outlier is long, above 0.
    """

    name = "outliers"
    title = "Long tokens"
    one_denominator = True
    through_lens = True

    def __init__(self, *, threshold: float = THRESHOLD, **options: Any) -> None:
        super().__init__(**options)
        if not threshold > 0:
            raise ValueError(f"threshold must be above 0 (in medians of the block), got {threshold}")
        self.threshold = float(threshold)
        self.quantity = f"Share of tokens longer than {threshold:g} medians, 0 to 1; length in medians"
        self.method = (
            "Length of the residual stream after each block, in units of the median of the picture's image tokens there. "
            f"'outliers': share of tokens longer than {threshold:g} (Darcet et al. 2024). 'length': mean over tokens."
        )

    def options(self) -> dict[str, Any]:
        """See `Study.options`."""
        return {**super().options(), "threshold": self.threshold}

    def rows(self, space: ClassSpace) -> list[dict[str, Any]]:
        """One row for each measure and block."""
        blocks = range(space.points.n_blocks + 1)
        return [{"block": b, "measure": m} for m in ("outliers", "length") for b in blocks]

    def count(self, batch: Readings) -> tuple[Tensor, Tensor]:
        """Sums over tokens, and tokens."""
        norms = token_norms(batch.trace, threshold=self.threshold).norms.double().transpose(0, 1)
        rounded = torch.round(norms / GRAIN) * GRAIN
        values = torch.cat([(norms > self.threshold).double(), rounded], dim=1)
        return batch.group_sums(values), batch.group_sizes(pooled=False)[:, None]

    def notes(self) -> tuple[str, ...]:
        """Whether there are outliers among the image tokens."""
        image = self.groups.index("image")
        values, _, _, count = self.tally.estimate(None, level=self.level)
        found = [
            (float(values[i, image]), row["block"])
            for i, row in enumerate(self.row_labels)
            if row["measure"] == "outliers" and count[i, image] > 0
        ]
        share, block = max(found, default=(0.0, 0), key=lambda one: one[0])
        if share == 0:
            text = f"No image token is longer than {self.threshold:g} times the median of its block."
        else:
            text = (
                f"Most image tokens longer than {self.threshold:g} times the median of their block are found after block {block}: "
                f"{share:.2%}."
            )
        return (text, *super().notes())
