"""How blocks build up a class: class similarity change rate and residual composition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.studies.shares import ShareStudy

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.studies.readings import Readings


class SimilarityChange(ShareStudy):
    """Share of tokens where the class logit of a sublayer's output exceeds that of a reference stream.

    Parameters
    ----------
    against : str
        ``"block_input"``: attention and MLP are both compared with ``x_{l-1}``, as in the paper; ``"sublayer_input"``:
        the MLP is compared with ``mid_l``.
    """

    name = "similarity_change"
    through_lens = True
    title = "Class similarity change rate"
    one_denominator = True
    quantity = "Share of tokens, 0 to 1"

    def __init__(self, *, against: str = "block_input", **options: Any) -> None:
        super().__init__(**options)
        if against not in ("block_input", "sublayer_input"):
            raise ValueError(f"against must be 'block_input' or 'sublayer_input', got {against!r}")
        self.against = against
        reference = "the block's input" if against == "block_input" else "the sublayer's own input"
        self.method = (
            f"Share of tokens whose class logit read from what the attention (or the MLP) adds exceeds the logit read "
            f"from {reference} (Vilas et al. 2023)."
        )
        if against == "sublayer_input":
            self.needs = frozenset({"mid"})

    def options(self) -> dict[str, Any]:
        """See `Study.options`."""
        return {**super().options(), "against": self.against}

    def rows(self, space: ClassSpace) -> list[dict[str, Any]]:
        """One row for each block and sublayer."""
        return [{"block": b, "stream": s} for s in space.points.sublayers for b in space.points.blocks]

    def points_read(self, row: dict[str, Any]) -> list[tuple[str, int]]:
        """What the sublayer adds, and the stream that it is compared with."""
        block, stream = row["block"], row["stream"]
        middle = self.against == "sublayer_input" and stream == "mlp"
        return [(stream, block), ("mid", block) if middle else ("residual", block - 1)]

    def count(self, batch: Readings) -> tuple[Tensor, Tensor]:
        """Tokens whose sublayer output is more similar to the class than the reference."""
        hidden = batch.hidden
        pairs = [[hidden.points.number(*point) for point in self.points_read(row)] for row in self.row_labels]
        own, reference = zip(*pairs, strict=True)
        exceeds = hidden.label_logit[:, list(own)] > hidden.label_logit[:, list(reference)]
        return batch.group_sums(exceeds), batch.group_sizes()[:, None]


class ResidualComposition(ShareStudy):
    """Where the top class of the residual stream comes from: the block's input, attention, MLP, or none of them."""

    name = "residual_composition"
    through_lens = True
    title = "Residual composition"
    one_denominator = True
    quantity = "Share of tokens, 0 to 1; sources may overlap, 'composition' excludes all of them"
    method = (
        "Share of tokens whose first class in x_l equals that of x_{l-1} ('previous'), of the attention output, of the "
        "MLP output, and of none of the three ('composition'; Vilas et al. 2023)."
    )

    def rows(self, space: ClassSpace) -> list[dict[str, Any]]:
        """One row for each block and source."""
        self.sublayers = space.points.sublayers
        sources = ("previous", *self.sublayers, "composition")
        return [{"block": b, "source": s} for s in sources for b in space.points.blocks]

    def points_read(self, row: dict[str, Any]) -> list[tuple[str, int]]:
        """The block's output and the source; for ``"composition"`` all sources."""
        block, source = row["block"], row["source"]
        before, sublayers = ("residual", block - 1), [(name, block) for name in self.sublayers]
        others = {"previous": [before], "composition": [before, *sublayers]}
        return [("residual", block), *others.get(source, [(source, block)])]

    def count(self, batch: Readings) -> tuple[Tensor, Tensor]:
        """Tokens whose top class comes from each source."""
        top1, points = batch.hidden.top1, batch.hidden.points
        residual = top1[:, points.of_streams("residual")]
        after, before = residual[:, 1:], residual[:, :-1]
        sources = [before, *(top1[:, points.of_streams(name)] for name in points.sublayers)]
        matches = [after == source for source in sources]
        composed = ~torch.stack(matches).any(dim=0)
        sums = [batch.group_sums(m) for m in (*matches, composed)]
        return torch.cat(sums, dim=1), batch.group_sizes()[:, None]
