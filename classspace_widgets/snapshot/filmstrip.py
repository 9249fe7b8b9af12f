"""Rows of small maps over a picture: a class through the depth of the model, or any maps side by side; no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.lookup import class_index, items_of, whole_number
from classspace_widgets.points import block_name
from classspace_widgets.snapshot.snapshot import Snapshot
from classspace_widgets.snapshot.still import as_image, identifiability, picture_of, viridis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from classspace_widgets.snapshot.container import Array
    from classspace_widgets.snapshot.still import Picture

__all__ = ["filmstrip", "map_row", "picture_row"]

MARGIN, LINE = 6, 18
# Rows are transparent: their words must be read on white and on dark.
_INK = "#737b86"
_BLUE, _GREY, _RED = np.array([33, 102, 172]), np.array([236, 236, 236]), np.array([178, 24, 43])


def filmstrip(
    snapshot: Snapshot,
    classes: Sequence[int | str] | int | str | None = None,
    *,
    blocks: Sequence[int] | None = None,
    size: int = 104,
) -> Image.Image:
    """Class identifiability of every patch through the depth of the model: one row a class, one picture a block.

    Parameters
    ----------
    snapshot : Snapshot
        As `Trace.snapshot` gives it; it must carry the classes.
    classes : class, or several, optional
        By index or name; by default the predicted class.
    blocks : sequence of int, optional
        0..L, where 0 is the embedding; by default all.
    size : int
        Width of each small picture in pixels.

    Returns
    -------
    PIL.Image.Image
        Yellow is 1 (the class is the best one there), dark blue 0.

    Raises
    ------
    ValueError
        For a class or a block that does not exist.
    KeyError
        For a class that the snapshot does not carry.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> snapshot = ClassSpace.bundled().trace(gallery()[0].picture).snapshot()
    >>> filmstrip(snapshot, ["fish", "boat"], blocks=[0, 4, 8], size=96).width
    300
    """
    if not isinstance(snapshot, Snapshot):
        raise TypeError(f"filmstrip takes a Snapshot (trace.snapshot()), got {type(snapshot).__name__}")
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    listed = items_of(snapshot.predicted[0] if classes is None else classes)[0]
    chosen = [class_index(snapshot.class_names, c) for c in listed]
    asked = items_of(range(snapshot.n_blocks + 1) if blocks is None else blocks)[0]
    shown = [whole_number(b, "block", 0, snapshot.n_blocks) for b in asked]
    if not shown or not chosen:
        raise ValueError("choose at least one class and one block")
    captions = [block_name(b) for b in shown]
    rows = [
        map_row(
            picture_of(snapshot),
            [identifiability(snapshot, c, snapshot.points.number("residual", b)) for b in shown],
            captions if i == 0 else [""] * len(shown),
            title=f"identifiability of {snapshot.class_names[c]}",
            limits=(0.0, 1.0),
            size=size,
        )
        for i, c in enumerate(chosen)
    ]
    return _stacked(rows)


def map_row(
    picture: Picture | list[Picture] | None,
    maps: Sequence[Array],
    captions: Sequence[str],
    *,
    title: str = "",
    limits: tuple[float, float] | None = None,
    size: int = 144,
    strength: float = 0.7,
) -> Image.Image:
    """Maps over a picture, side by side under their captions.

    Parameters
    ----------
    picture : PIL image, ndarray [height, width, 3] uint8, list of them, or None
        What lies under the maps: one for all, or one for each.
    maps : sequence of ndarray [rows, columns]
    captions : sequence of str
        One for each map.
    title : str
        Above the row.
    limits : (float, float), optional
        Values of the darkest and the brightest colour (viridis).  By default each map is scaled by its own largest
        value and signs are shown: red is positive, blue is negative.
    size : int
        Width of each map in pixels.
    strength : float
        How much of the map covers the picture, 0 to 1.

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    ValueError
        If maps and captions are not equally many, or a map is not ``[rows, columns]``.

    Examples
    --------
    >>> map_row(None, [np.eye(12), -np.eye(12)], ["for", "against"], size=96).width
    198
    """
    from PIL import Image

    if len(maps) != len(captions) or not len(maps):
        raise ValueError(f"every map needs its caption, got {len(maps)} maps and {len(captions)} captions")
    values = [np.asarray(m, np.float64) for m in maps]
    if any(v.ndim != 2 for v in values):
        raise ValueError(f"maps must have shape [rows, columns], got {[v.shape for v in values]}")
    shown = []
    for value, under in zip(values, picture if isinstance(picture, list) else [picture] * len(values), strict=True):
        shape = (size, max(1, round(size * value.shape[0] / value.shape[1])))
        colours = Image.fromarray(_colours(value, limits)).resize(shape, Image.Resampling.NEAREST)
        shown.append(colours if under is None else Image.blend(_resized(under, shape), colours, strength))
    return picture_row(shown, captions, title=title, size=size)


def picture_row(
    pictures: Sequence[Picture], captions: Sequence[str], *, title: str = "", size: int = 144
) -> Image.Image:
    """Pictures side by side under their captions.

    Parameters
    ----------
    pictures : sequence of PIL images or ndarrays [height, width, 3] uint8
    captions : sequence of str
        One for each picture.
    title : str
        Above the row.
    size : int
        Width of each in pixels.

    Returns
    -------
    PIL.Image.Image

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> scenes = gallery()[:3]
    >>> picture_row([s.picture for s in scenes], [s.class_name for s in scenes], size=96).width
    300
    """
    from PIL import Image, ImageDraw, ImageFont

    if len(pictures) != len(captions) or not len(pictures):
        raise ValueError(f"every picture needs its caption, got {len(pictures)} and {len(captions)} captions")
    images = [as_image(picture) for picture in pictures]
    images = [_resized(p, (size, max(1, round(size * p.height / p.width)))) for p in images]
    head = LINE * (bool(title) + any(captions))
    row = Image.new("RGBA", (len(images) * (size + MARGIN) - MARGIN, head + max(p.height for p in images)))
    pen, font = ImageDraw.Draw(row), ImageFont.load_default(size=13)
    pen.text((0, 1), title, fill=_INK, font=font)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row.paste(image, (i * (size + MARGIN), head))
        pen.text((i * (size + MARGIN), head - LINE + 1), _cut(caption, size, font), fill=_INK, font=font)
    return row


def with_lines(picture: Image.Image, lines: Sequence[str]) -> Image.Image:
    """A picture over lines of text, which are broken where they would be wider."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=13)
    rows: list[str] = []
    for line in lines:
        rows.append("")
        for word in line.split():
            longer = f"{rows[-1]} {word}".strip()
            if rows[-1] and font.getlength(longer) > picture.width:
                rows.append(word)
            else:
                rows[-1] = longer
    out = Image.new("RGBA", (picture.width, picture.height + MARGIN + LINE * len(rows)))
    out.paste(picture, (0, 0))
    pen = ImageDraw.Draw(out)
    for i, row in enumerate(rows):
        text = _cut(row, picture.width, font)
        pen.text((0, picture.height + MARGIN + LINE * i), text, fill=_INK, font=font)
    return out


def _colours(values: Array, limits: tuple[float, float] | None) -> Array:
    if limits is not None:
        low, high = limits
        return viridis(np.clip((values - low) / (high - low), 0, 1))
    largest = float(np.abs(values).max()) or 1.0
    share = (np.abs(values) / largest)[..., None]
    ends = np.where((values >= 0)[..., None], _RED, _BLUE)
    return np.asarray(np.round(_GREY + share * (ends - _GREY)), np.uint8)


def _cut(text: str, width: int, font: Any) -> str:
    """As much of a text as there is room for."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _resized(picture: Picture, shape: tuple[int, int]) -> Image.Image:
    from PIL import Image

    return as_image(picture).convert("RGB").resize(shape, Image.Resampling.BICUBIC)


def _stacked(rows: Sequence[Image.Image]) -> Image.Image:
    from PIL import Image

    out = Image.new("RGBA", (max(r.width for r in rows), sum(r.height for r in rows) + MARGIN * (len(rows) - 1)))
    top = 0
    for row in rows:
        out.paste(row, (0, top))
        top += row.height + MARGIN
    return out
