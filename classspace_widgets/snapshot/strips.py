"""Rows of maps over their pictures, drawn for print: cells side by side, words at their left, a legend below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.snapshot.paper import POINT, PaperFigure, Raster, Theme, Words, cut, words_width
from classspace_widgets.snapshot.still import as_image, viridis

if TYPE_CHECKING:
    from PIL.Image import Image

    from classspace_widgets.snapshot.still import Picture

GAP, LINE, TEXT, SMALL = 4.0, 11.0, 8.0, 6.5
MAX_SIZE = 1.5 * POINT
"""How wide a map may become."""
LEGEND = 1.6 * POINT
NEGATIVE, POSITIVE, UNSIGNED = (33, 102, 172), (178, 24, 43), (122, 62, 157)
PAD = 5.0


@dataclass(frozen=True)
class Cell:
    """A picture, and what lies over it: values ``[rows, columns]`` in units of the scale, with a line of text below."""

    picture: Picture | None = None
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


def strip_figure(
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
    size = min(MAX_SIZE, (inner - label - GAP * (n_columns - 1)) / n_columns)
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
        picture = as_image(cell.picture)
        return float(picture.height / picture.width)
    return 1.0 if cell.values is None else cell.values.shape[0] / cell.values.shape[1]


def composed(cell: Cell, theme: Theme, pixels: tuple[int, int]) -> Image:
    """A cell's picture, greyed where a map lies over it, under its map."""
    from PIL import Image

    paper = Image.new("RGB", pixels, theme.background or "#e9ebee")
    if cell.picture is None:
        under = paper if cell.values is not None else Image.new("RGBA", pixels)
    else:
        under = as_image(cell.picture).convert("RGB").resize(pixels, Image.Resampling.BICUBIC)
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
        rgb = np.where((values < 0)[..., None], NEGATIVE, POSITIVE if scale == "signed" else UNSIGNED)
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
