"""Rows of maps over their pictures, for print: token importance by several methods, a class through the depth of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.lookup import class_index, items_of, whole_number
from classspace_widgets.metrics import chance_identifiability
from classspace_widgets.plots.paper import POINT, PaperFigure, Raster, Theme, Words, cut, theme_of, words_width
from classspace_widgets.still import identifiability, picture_of, viridis

if TYPE_CHECKING:
    from PIL.Image import Image

    from classspace_widgets.explain import TokenImportance
    from classspace_widgets.snapshot import Snapshot
    from classspace_widgets.space import ClassSpace
    from classspace_widgets.trace import Trace

METHODS = ("gradient", "direct", "chefer", "rollout")
SCALES = ("map", "column", "figure")
GAP, LINE, TEXT, SMALL = 4.0, 11.0, 8.0, 6.5
LARGEST = 1.5 * POINT
"""How wide a map may become."""
LEGEND = 1.6 * POINT
AGAINST, FOR, AMOUNT = (33, 102, 172), (178, 24, 43), (122, 62, 157)
PAD = 5.0


@dataclass(frozen=True)
class Cell:
    """A picture, and what lies over it: values ``[rows, columns]`` in units of the scale, with a line of text below."""

    picture: Any = None
    values: np.ndarray[Any, Any] | None = None
    scale: str = ""
    note: str = ""


@dataclass(frozen=True)
class Row:
    """Cells side by side, with words at their left."""

    cells: Sequence[Cell]
    label: Sequence[str] = ()


@dataclass(frozen=True)
class Legend:
    """What a scale's colours mean: words at the ends of its bar, and below it; ticks are (place in 0..1, words)."""

    scale: str
    name: str
    ticks: Sequence[tuple[float, str]] = field(default=())


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
        As in `explain.importance`: by default the class predicted for each picture; several take a row each.
    images : Any
        With a `ClassSpace`: whatever `ClassSpace.trace` takes.
    methods : sequence of str
        Methods of `explain.importance`.
    scale : str
        What has the strongest colour: the largest value of each ``"map"``, of each ``"column"`` (pictures and classes can
        then be compared, methods cannot) or of the whole ``"figure"``. The legend says which.
    title : str, optional
        Above the figure; by default what it shows.
    width : float
        Of the figure in inches; maps grow up to 1.5 inches. 6.9 is two columns of a paper, 3.3 is one.
    theme : str
        ``"light"``, ``"dark"`` or ``"transparent"``.
    **options
        ``loss``, ``token`` and ``fallback`` of `explain.importance`.

    Returns
    -------
    PaperFigure
        ``.save("figure.png", dpi=300)``, also as SVG or PDF; it shows itself in a notebook.

    Raises
    ------
    ValueError
        For an unknown method, class, scale or theme, or a width that has no room for the maps.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled().trace([scene.picture for scene in gallery()[:2]])
    >>> importance_strip(trace, "fish", methods=["gradient", "rollout"], width=3.3).title
    'Token importance for fish'
    """
    from classspace_widgets.explain import importance

    asked = list(items_of(methods)[0])
    if not asked:
        raise ValueError("methods is empty: choose at least one")
    found = [importance(source, classes, images=images, method=method, **options) for method in asked]
    first = found[0]
    places = [(b, k) for b in range(first.classes.shape[0]) for k in range(first.classes.shape[1])]
    columns = [_scaled([(_map(each, b, k), each.signed) for b, k in places]) for each in found]
    drawn = _to_common(columns, scale)
    rows = [
        Row(
            [Cell(_picture(first, b)), *(column[n] for column in drawn)],
            [_class_name(first, b, k)],
        )
        for n, (b, k) in enumerate(places)
    ]
    one = len({row.label[0] for row in rows}) == 1
    heading = f"Token importance{f' for {rows[0].label[0]}' if one else ''}" if title is None else title
    if one:
        rows = [Row(row.cells) for row in rows]
    return _figure(rows, ["", *asked], heading, _importance_legends(drawn, scale), width, theme_of(theme))


def importance_figure(
    found: TokenImportance, *, scale: str = "map", title: str | None = None, width: float = 6.9, theme: str = "light"
) -> PaperFigure:
    """What `TokenImportance.plot` draws: a row for each picture, a column for each class."""
    count, n_classes = found.classes.shape
    columns = [_scaled([(_map(found, b, k), found.signed) for b in range(count)]) for k in range(n_classes)]
    drawn = _to_common(columns, scale)
    names = [[_class_name(found, b, k) for k in range(n_classes)] for b in range(count)]
    same = all(row == names[0] for row in names)
    rows = [
        Row(
            [Cell(_picture(found, b)), *(drawn[k][b] for k in range(n_classes))],
            [] if same else [", ".join(names[b])],
        )
        for b in range(count)
    ]
    heading = f"Token importance, method {found.method}" if title is None else title
    header = ["", *(names[0] if same else [""] * n_classes)]
    return _figure(rows, header, heading, _importance_legends(drawn, scale), width, theme_of(theme))


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
        Of a trace of several pictures the first is shown; ``trace.snapshot(image=1)`` takes another.
    classes : class, or several, optional
        By index or name; by default the predicted class.
    blocks : sequence of int, optional
        0..L, where 0 is the embedding; by default at most seven, from the first to the last.
    title, width, theme
        As in `importance_strip`.

    Returns
    -------
    PaperFigure
        Colours are those of the live map: yellow is 1, the class is the best one there; the legend marks chance.

    Raises
    ------
    ValueError, KeyError
        For a class or block that does not exist, or a class that the snapshot does not carry.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled().trace(gallery()[0].picture)
    >>> identifiability_strip(trace, blocks=[0, 4, 8]).title
    'Class identifiability of fish'
    """
    # A trace makes a snapshot; a snapshot is one already.
    snapshot: Any = source if hasattr(source, "predicted") else getattr(source, "snapshot", lambda **_: source)()
    if not hasattr(snapshot, "predicted"):
        raise TypeError(f"identifiability_strip takes a Snapshot or a Trace, got {type(source).__name__}")
    depth = snapshot.n_blocks
    spread = sorted({round(i * depth / min(depth, 6)) for i in range(min(depth, 6) + 1)}) if depth else [0]
    shown = [whole_number(b, "block", 0, depth) for b in items_of(spread if blocks is None else blocks)[0]]
    listed = items_of(snapshot.predicted[0] if classes is None else classes)[0]
    chosen = [class_index(snapshot.class_names, c) for c in listed]
    if not shown or not chosen:
        raise ValueError("choose at least one class and one block")
    per_block = 4 if snapshot.meta["model"]["layout"] == "sequential" else 2
    picture, name = picture_of(snapshot), "identifiability"
    rows = [
        Row(
            [Cell(picture), *(Cell(picture, identifiability(snapshot, c, b * per_block), name) for b in shown)],
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
    header = ["", *("embedding" if b == 0 else f"block {b}" for b in shown)]
    return _figure(rows, header, heading, [legend], width, theme_of(theme))


def _map(found: TokenImportance, image: int, place: int) -> np.ndarray[Any, Any]:
    return np.asarray(found.image_maps[image, place].double().cpu().numpy())


def _picture(found: TokenImportance, image: int) -> Any:
    return None if found.pictures is None else found.pictures[image]


def _class_name(found: TokenImportance, image: int, place: int) -> str:
    number = int(found.classes[image, place])
    return found.class_names[number] if number < len(found.class_names) else f"class {number}"


def _scaled(maps: Sequence[tuple[np.ndarray[Any, Any], bool]]) -> list[tuple[np.ndarray[Any, Any], float, bool]]:
    """Maps with their largest absolute value."""
    return [(values, float(np.nanmax(np.abs(values), initial=0.0)), signed) for values, signed in maps]


def _to_common(columns: Sequence[Sequence[tuple[np.ndarray[Any, Any], float, bool]]], scale: str) -> list[list[Cell]]:
    """Cells by column, their values in units of the largest of each map, of its column or of the figure."""
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


def _short(value: float) -> str:
    """Two significant digits."""
    return f"{value:.2g}" if value < 1000 and (value >= 0.01 or value == 0) else f"{value:.1e}"


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


def _figure(
    rows: Sequence[Row],
    header: Sequence[str],
    title: str,
    legends: Sequence[Legend],
    width: float,
    theme: Theme,
) -> PaperFigure:
    """Rows under a header and a title, over their legends."""
    shown = [
        Row([Cell(row.cells[0].picture), *(_over(row.cells[0], c) for c in row.cells[1:])], row.label) for row in rows
    ]
    inner, n_columns = width * POINT - 2 * PAD, len(header)
    label = max((words_width(text, TEXT) for row in rows for text in row.label), default=0.0)
    label = min(label + 2 * GAP, inner / 4) if label else 0.0
    size = min(LARGEST, (inner - label - GAP * (n_columns - 1)) / n_columns)
    if size < 12:
        raise ValueError(
            f"width={width} inches has no room for {n_columns} maps in a row; make it larger, or show fewer"
        )
    marks: list[Words | Raster] = []
    y = PAD
    if title:
        y += LINE
        marks.append(Words(PAD, y - 2, cut(title, inner, TEXT + 1), TEXT + 1))
        y += GAP
    lefts = [PAD + label + n * (size + GAP) for n in range(n_columns)]
    if any(header):
        y += LINE
        named = [(x, name) for x, name in zip(lefts, header, strict=True) if name]
        marks += [Words(x, y - 3, cut(name, size, TEXT), TEXT, muted=True) for x, name in named]
    for row in shown:
        height = max(size * _ratio(cell) for cell in row.cells)
        for n, text in enumerate(row.label):
            marks.append(Words(PAD, y + LINE * (n + 1) - 2, cut(text, label - GAP, TEXT), TEXT))
        for x, cell in zip(lefts, row.cells, strict=True):
            marks.append(Raster(x, y, size, size * _ratio(cell), partial(composed, cell, theme)))
            if cell.note:
                note = cut(cell.note, size, SMALL)
                marks.append(Words(x, y + size * _ratio(cell) + SMALL + 1, note, SMALL, muted=True))
        y += height + (SMALL + 3 if any(cell.note for cell in row.cells) else 0) + GAP
    y = _add_legends(marks, legends, y + GAP, lefts[0], PAD + inner, theme)
    right = max(mark.x + (mark.width if isinstance(mark, Raster) else _length(mark)) for mark in marks)
    return PaperFigure(tuple(marks), right + PAD, y + PAD, theme, title)


def _length(words: Words) -> float:
    """How far a text reaches to the right of its place."""
    return words_width(words.text, words.size) * {"start": 1.0, "middle": 0.5, "end": 0.0}[words.anchor]


def _add_legends(
    marks: list[Words | Raster], legends: Sequence[Legend], y: float, left: float, right: float, theme: Theme
) -> float:
    """Bars side by side while there is room, each over its ticks and its name; returns the lowest place used."""
    x, bottom = left, y
    for legend in legends:
        bar = min(LEGEND, right - left)
        taken = max(bar, words_width(legend.name, SMALL))
        if x > left and x + taken > right:
            x, y = left, bottom + 2 * GAP
        marks.append(Raster(x, y, bar, 6, partial(_bar, legend.scale)))
        for at, text in legend.ticks:
            anchor = "start" if at == 0 else "end" if at == 1 else "middle"
            if anchor == "middle":
                marks.append(Raster(x + at * bar - 0.3, y - 1.5, 0.6, 9, partial(_ink, theme)))
            marks.append(Words(x + at * bar, y + 8 + SMALL, text, SMALL, muted=True, anchor=anchor))
        marks.append(Words(x, y + 11 + 2 * SMALL, cut(legend.name, right - x, SMALL), SMALL, muted=True))
        bottom = max(bottom, y + 13 + 2 * SMALL)
        x += taken + 4 * GAP
    return bottom


def _ink(theme: Theme, pixels: tuple[int, int]) -> Image:
    from PIL import Image

    return Image.new("RGB", pixels, theme.ink)


def _over(under: Cell, cell: Cell) -> Cell:
    return Cell(under.picture, cell.values, cell.scale, cell.note)


def _ratio(cell: Cell) -> float:
    """Height by width."""
    if cell.picture is not None:
        height, width = np.shape(cell.picture)[:2] if not hasattr(cell.picture, "height") else cell.picture.size[::-1]
        return float(height) / float(width)
    return 1.0 if cell.values is None else cell.values.shape[0] / cell.values.shape[1]


def composed(cell: Cell, theme: Theme, pixels: tuple[int, int]) -> Image:
    """A cell's picture, greyed where a map lies over it, under its map."""
    from PIL import Image

    paper = Image.new("RGB", pixels, theme.background or "#e9ebee")
    if cell.picture is None:
        under = paper if cell.values is not None else Image.new("RGBA", pixels)
    else:
        picture = cell.picture if hasattr(cell.picture, "convert") else Image.fromarray(np.asarray(cell.picture))
        under = picture.convert("RGB").resize(pixels, Image.Resampling.BICUBIC)
    if cell.values is None:
        return under
    if cell.picture is not None and cell.scale != "identifiability":
        under = Image.blend(paper, under.convert("L").convert("RGB"), 0.6)
    colours = Image.fromarray(colours_of(cell.values, cell.scale), "RGBA").resize(pixels, Image.Resampling.NEAREST)
    return Image.alpha_composite(under.convert("RGBA"), colours).convert("RGB")


def colours_of(values: np.ndarray[Any, Any], scale: str) -> np.ndarray[Any, Any]:
    """Colours ``[..., 4]`` uint8 of values: -1..1 where the scale is signed, else 0..1; nothing over what is not known."""
    known = np.isfinite(values)
    values = np.where(known, values, 0.0)
    if scale == "identifiability":
        rgb, alpha = viridis(np.clip(values, 0, 1)), np.full(values.shape, 0.75)
    else:
        rgb = np.where((values < 0)[..., None], AGAINST, FOR if scale == "signed" else AMOUNT)
        alpha = 0.92 * np.clip(np.abs(values), 0, 1)
    opaque = np.round(255 * np.where(known, alpha, 0.0))[..., None]
    return np.concatenate([rgb, opaque], axis=-1).astype(np.uint8)


def _bar(scale: str, pixels: tuple[int, int]) -> Image:
    """A scale's colours from its lowest value to its highest."""
    from PIL import Image

    values = np.linspace(-1 if scale == "signed" else 0, 1, pixels[0])[None].repeat(pixels[1], axis=0)
    colours = colours_of(values, scale)
    if scale == "identifiability":
        colours[..., 3] = 255
    return Image.alpha_composite(Image.new("RGBA", pixels, "#e9ebee"), Image.fromarray(colours, "RGBA"))
