"""Token importance as rows of maps over their pictures, for print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.lookup import items_of
from classspace_widgets.snapshot.paper import PaperFigure, theme_of
from classspace_widgets.snapshot.strips import Cell, Legend, Row, strip_figure

if TYPE_CHECKING:
    from classspace_widgets.explain.result import TokenImportance
    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.trace import Trace

METHODS = ("gradient", "direct", "chefer", "rollout")
SCALES = ("map", "column", "figure")


def importance_strip(
    source: ClassSpace | Trace,
    classes: Any = None,
    *,
    images: Any = None,
    methods: Sequence[str] | str = METHODS,
    scale: str = "map",
    title: str | None = None,
    width: float = 6.9,
    theme: str = "light",
    **options: Any,
) -> PaperFigure:
    """Token importance by several methods as a figure for print: a row for each picture, a column for each method.

    Parameters
    ----------
    source : ClassSpace or Trace
        A trace with its model, or a model (with ``images``); see `explain.importance`.
    classes : class, several, or Tensor [B, K], optional
        As in `explain.importance`: by default the class predicted for each picture; each class gets a row.
    images : Any
        With a `ClassSpace`: as in `ClassSpace.trace`.
    methods : sequence of str
        Methods of `explain.importance`.
    scale : str
        The value with the strongest colour: the largest of each ``"map"``, of each ``"column"`` (to compare pictures and
        classes, but not methods) or of the whole ``"figure"``. The legend says which.
    title : str, optional
        Title of the figure; by default a description.
    width : float
        Width of the figure in inches; maps are at most 1.5 inches wide. 6.9 is two columns of a paper, 3.3 is one.
    theme : str
        ``"light"``, ``"dark"`` or ``"transparent"``.
    **options
        ``loss``, ``token`` and ``fallback`` of `explain.importance`.

    Returns
    -------
    PaperFigure
        ``.save("figure.png", dpi=300)``, also as SVG or PDF; notebooks display it.

    Raises
    ------
    ValueError
        For an unknown method, class, scale or theme, or a width that is too small for the maps.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled().trace([scene.picture for scene in gallery()[:2]])
    >>> importance_strip(trace, "fish", methods=["gradient", "rollout"], width=3.3).title
    'Token importance for fish'
    """
    from classspace_widgets.explain.importance import importance

    chosen = list(items_of(methods)[0])
    if not chosen:
        raise ValueError("methods is empty: choose at least one")
    found = [importance(source, classes, images=images, method=method, **options) for method in chosen]
    first = found[0]
    places = [(b, k) for b in range(first.classes.shape[0]) for k in range(first.classes.shape[1])]
    columns = [_scaled([(_map(each, b, k), each.signed) for b, k in places]) for each in found]
    cells = _to_common(columns, scale)
    rows = [
        Row(
            [Cell(_picture(first, b)), *(column[n] for column in cells)],
            [_class_name(first, b, k)],
        )
        for n, (b, k) in enumerate(places)
    ]
    one = len({row.label[0] for row in rows}) == 1
    heading = f"Token importance{f' for {rows[0].label[0]}' if one else ''}" if title is None else title
    if one:
        rows = [Row(row.cells) for row in rows]
    return strip_figure(rows, ["", *chosen], heading, _importance_legends(cells, scale), width, theme_of(theme))


def importance_figure(
    found: TokenImportance, *, scale: str = "map", title: str | None = None, width: float = 6.9, theme: str = "light"
) -> PaperFigure:
    """The figure of `TokenImportance.plot`: a row for each picture, a column for each class."""
    count, n_classes = found.classes.shape
    columns = [_scaled([(_map(found, b, k), found.signed) for b in range(count)]) for k in range(n_classes)]
    cells = _to_common(columns, scale)
    names = [[_class_name(found, b, k) for k in range(n_classes)] for b in range(count)]
    same = all(row == names[0] for row in names)
    rows = [
        Row(
            [Cell(_picture(found, b)), *(cells[k][b] for k in range(n_classes))],
            [] if same else [", ".join(names[b])],
        )
        for b in range(count)
    ]
    heading = f"Token importance, method {found.method}" if title is None else title
    header = ["", *(names[0] if same else [""] * n_classes)]
    return strip_figure(rows, header, heading, _importance_legends(cells, scale), width, theme_of(theme))


def _map(found: TokenImportance, image: int, place: int) -> np.ndarray[Any, Any]:
    return np.asarray(found.image_maps[image, place].double().cpu().numpy())


def _picture(found: TokenImportance, image: int) -> Any:
    return None if found.pictures is None else found.pictures[image]


def _class_name(found: TokenImportance, image: int, place: int) -> str:
    number = int(found.classes[image, place])
    return found.class_names[number] if number < len(found.class_names) else f"class {number}"


def _scaled(maps: Sequence[tuple[np.ndarray[Any, Any], bool]]) -> list[tuple[np.ndarray[Any, Any], float, bool]]:
    """Maps with their largest absolute values."""
    return [(values, float(np.nanmax(np.abs(values), initial=0.0)), signed) for values, signed in maps]


def _to_common(columns: Sequence[Sequence[tuple[np.ndarray[Any, Any], float, bool]]], scale: str) -> list[list[Cell]]:
    """Cells by column, in units of the largest value of each map, each column or the figure."""
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}")
    overall = max(largest for column in columns for _, largest, _ in column)
    cells: list[list[Cell]] = []
    for column in columns:
        of_column = max(largest for _, largest, _ in column)
        cells.append([])
        for values, largest, signed in column:
            unit = {"map": largest, "column": of_column, "figure": overall}[scale]
            share = values / unit if unit else values
            cells[-1].append(
                Cell(None, share, "signed" if signed else "amount", f"up to {chr(177) * signed}{_short(largest)}")
            )
    return cells


def _importance_legends(columns: Sequence[Sequence[Cell]], scale: str) -> list[Legend]:
    used = {cell.scale for column in columns for cell in column}
    unit = {"map": "each map", "column": "each column", "figure": "the whole figure"}[scale]
    legends = []
    if "signed" in used:
        ticks = [(0.0, "against the class"), (0.5, "0"), (1.0, "for the class")]
        legends.append(Legend("signed", f"in units of the largest value of {unit}", ticks))
    if "amount" in used:
        ends = [(0.0, "0"), (1.0, "largest")]
        legends.append(Legend("amount", f"without a sign, in units of the largest value of {unit}", ends))
    return legends


def _short(value: float) -> str:
    """Two significant digits."""
    return f"{value:.2g}" if value < 1000 and (value >= 0.01 or value == 0) else f"{value:.1e}"
