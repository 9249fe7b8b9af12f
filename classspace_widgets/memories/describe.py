"""The notebook's display of value vectors: the strongest, with their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classspace_widgets.describe import FEW, name_of, table

if TYPE_CHECKING:
    from classspace_widgets.memories.values import ValueVectors


def values_html(values: ValueVectors) -> str:
    """The value vectors with the highest class projections, and the best classes of each."""
    scores = values.scores
    best = scores.amax(dim=0).topk(min(FEW, scores.shape[1])).indices.tolist()
    top = scores[:, best].T.topk(min(3, scores.shape[0]))
    rows = []
    for j, projections, classes in zip(best, top.values.tolist(), top.indices.tolist(), strict=True):
        listed = (f"{name_of(values.class_names, c)} {v:.2f}" for v, c in zip(projections, classes, strict=True))
        rows.append((f"value {j}", ", ".join(listed)))
    title = f"Strongest value vectors of the {values.sublayer} of block {values.block}, and their classes"
    return table(title, rows, small=repr(values))
