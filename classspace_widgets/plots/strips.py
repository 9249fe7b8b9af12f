"""The identifiability of a class through the depth of a model, as rows of maps for print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from classspace_widgets.lookup import class_index, items_of, whole_number
from classspace_widgets.metrics.identifiability import chance_identifiability
from classspace_widgets.points import block_name
from classspace_widgets.snapshot.paper import PaperFigure, theme_of
from classspace_widgets.snapshot.source import snapshot_of
from classspace_widgets.snapshot.still import identifiability, picture_of
from classspace_widgets.snapshot.strips import Cell, Legend, Row, strip_figure

if TYPE_CHECKING:
    from classspace_widgets.snapshot.snapshot import Snapshot
    from classspace_widgets.trace import Trace


def identifiability_strip(
    source: Snapshot | Trace,
    classes: Sequence[int | str] | int | str | None = None,
    *,
    blocks: Sequence[int] | None = None,
    title: str | None = None,
    width: float = 6.9,
    theme: str = "light",
) -> PaperFigure:
    """A class through the depth of the model as a figure for print: a row for each class, a column for each block.

    Parameters
    ----------
    source : Snapshot or Trace
        Of a trace of several pictures the first is shown; for another, pass ``trace.snapshot(image=1)``.
    classes : class, or several, optional
        By index or name; by default the predicted class.
    blocks : sequence of int, optional
        0..L, where 0 is the embedding; by default at most seven, from the first to the last.
    title, width, theme
        As in `importance_strip`.

    Returns
    -------
    PaperFigure
        Colours are those of the patch map: yellow is 1, where the class ranks first; the legend marks chance.

    Raises
    ------
    ValueError, KeyError
        For a class or block that does not exist, or a class that the snapshot does not contain.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled().trace(gallery()[0].picture)
    >>> identifiability_strip(trace, blocks=[0, 4, 8]).title
    'Class identifiability of fish'
    """
    snapshot = snapshot_of(source)
    if snapshot is None:
        raise TypeError(f"identifiability_strip takes a Snapshot or a Trace, got {type(source).__name__}")
    depth = snapshot.n_blocks
    spread = sorted({round(i * depth / min(depth, 6)) for i in range(min(depth, 6) + 1)}) if depth else [0]
    shown = [whole_number(b, "block", 0, depth) for b in items_of(spread if blocks is None else blocks)[0]]
    listed = items_of(snapshot.predicted[0] if classes is None else classes)[0]
    chosen = [class_index(snapshot.class_names, c) for c in listed]
    if not shown or not chosen:
        raise ValueError("choose at least one class and one block")
    after = [snapshot.points.number("residual", b) for b in shown]
    picture, name = picture_of(snapshot), "identifiability"
    rows = [
        Row(
            [Cell(picture), *(Cell(picture, identifiability(snapshot, c, point), name) for point in after)],
            [snapshot.class_names[c]],
        )
        for c in chosen
    ]
    heading = "Class identifiability" if title is None else title
    if len(rows) == 1 and title is None:
        heading, rows = f"Class identifiability of {rows[0].label[0]}", [Row(rows[0].cells)]
    chance = chance_identifiability(len(snapshot.class_names))
    ticks = [(0.0, "0"), (chance, f"chance {chance:.2f}".replace("0.", ".")), (1.0, "1")]
    legend = Legend(name, "identifiability 1 - rank / C", ticks)
    header = ["", *(block_name(b) for b in shown)]
    return strip_figure(rows, header, heading, [legend], width, theme_of(theme))
