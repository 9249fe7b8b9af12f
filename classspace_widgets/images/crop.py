"""Which part of a picture a model sees, and pictures kept as they were given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from classspace_widgets.lookup import items_of

if TYPE_CHECKING:
    from PIL.Image import Image

Crop = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture, as shares of its width and height."""

WHOLE: Crop = (0.0, 0.0, 1.0, 1.0)

KEPT_PIXELS = 50_000_000
"""Pictures of one trace are kept as given up to this many pixels together (150 MB); beyond it they are scaled down."""


class Placing(Protocol):
    """How a preprocessing resizes and cuts: see `Preprocessing`."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        ...

    @property
    def crop(self) -> float:
        """Share of the resized picture's sides that the centre crop keeps."""
        ...

    @property
    def crop_mode(self) -> str:
        """As timm has it."""
        ...


@dataclass(frozen=True, eq=False)
class Photograph:
    """A picture as it was given, and the part of it that the model saw.

    Attributes
    ----------
    picture : PIL.Image.Image
        Upright, RGB; nothing of the file's metadata (EXIF, GPS) is kept.
    crop : tuple of float
        Left, top, right and bottom of the part that the model saw, as shares of the width and height.
    """

    picture: Image
    crop: Crop


def resized(how: Placing, width: int, height: int) -> tuple[int, int]:
    """Width and height to which a picture is resized before the centre is cut out."""
    tall, wide = (math.floor(side / how.crop) for side in how.size)
    if how.crop_mode == "squash":
        return wide, tall
    if how.crop_mode == "border" or tall != wide:
        ratio = (max if how.crop_mode == "border" else min)(height / tall, width / wide)
        return round(width / ratio), round(height / ratio)
    if width <= height:
        return tall, int(tall * height / width)
    return int(tall * width / height), tall


def seen(how: Placing, width: int, height: int) -> Crop:
    """The part of a picture of this size that the model sees.

    Parameters
    ----------
    how : Preprocessing
    width, height : int
        Of the picture, in pixels.

    Returns
    -------
    tuple of float
        Left, top, right, bottom as shares; below 0 and above 1 where the model's input is padded.

    Examples
    --------
    >>> how = ClassSpace.bundled().preprocessing
    >>> seen(how, 200, 100)
    (0.25, 0.0, 0.75, 1.0)
    """
    wide, tall = resized(how, width, height)
    top, left = round((tall - how.size[0]) / 2), round((wide - how.size[1]) / 2)
    return left / wide, top / tall, (left + how.size[1]) / wide, (top + how.size[0]) / tall


def checked_crop(crop: Any) -> Crop:
    """A crop as four shares, or `ValueError`."""
    values = items_of(crop)[0] if crop is not None else []
    try:
        left, top, right, bottom = (float(value) for value in values)
        usable = 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise ValueError(
            "crop must be (left, top, right, bottom), shares of the picture's width and height with "
            f"0 <= left < right <= 1 and 0 <= top < bottom <= 1, got {crop!r}; try crop=(0.25, 0, 0.75, 1)"
        )
    return left, top, right, bottom


def cut(picture: Image, crop: Crop) -> tuple[Image, Crop]:
    """A part of a picture, in whole pixels (at least one), and where exactly it lies."""
    width, height = picture.size
    left, top = min(round(crop[0] * width), width - 1), min(round(crop[1] * height), height - 1)
    right, bottom = max(round(crop[2] * width), left + 1), max(round(crop[3] * height), top + 1)
    exact = (left / width, top / height, right / width, bottom / height)
    return picture.crop((left, top, right, bottom)), exact


def within(outer: Crop, inner: Crop) -> Crop:
    """A part of a part, as shares of the whole."""
    width, height = outer[2] - outer[0], outer[3] - outer[1]
    return (
        outer[0] + inner[0] * width,
        outer[1] + inner[1] * height,
        outer[0] + inner[2] * width,
        outer[1] + inner[3] * height,
    )


def bounded(photographs: list[Photograph | None]) -> tuple[Photograph | None, ...]:
    """The pictures of one trace, scaled down where they would fill the memory."""
    share = KEPT_PIXELS // max(1, len(photographs))
    return tuple(one and Photograph(_at_most(one.picture, share), one.crop) for one in photographs)


def _at_most(picture: Image, pixels: int) -> Image:
    from PIL import Image

    if picture.width * picture.height <= pixels:
        return picture
    scale = math.sqrt(pixels / (picture.width * picture.height))
    size = max(1, int(scale * picture.width)), max(1, int(scale * picture.height))
    return picture.resize(size, Image.Resampling.LANCZOS)
