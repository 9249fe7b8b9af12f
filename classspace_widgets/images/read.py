"""Pictures of every common form, as upright RGB pictures of 8 bits."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.pictures import open_picture, shown_name, unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = np.ndarray[Any, np.dtype[Any]]
"""A picture, or several, as an array."""

MAX_PIXELS = 150_000_000
"""Pictures with more pixels are refused before they are decoded: as RGB they would take half a gigabyte."""

MAX_ASPECT_RATIO = 500
"""Narrower pictures are refused: resized to the model's size by their shorter side they would fill the memory."""

DARK_SHARE, FLAT_SHARE = 1 / 4, 1 / 16
"""A picture of 16 bits or floats that goes up to less of its range, or varies by less of it, is warned about: 12 bits in 16
go up to a sixteenth."""

ACCEPTED = "a path, the bytes of a file, an open file, a PIL image, a NumPy array, a tensor, or a list of them"


def read_picture(source: Any, *, upright: bool = True) -> tuple[Image, str]:
    """An upright RGB picture, and its name, from a path, a file, its bytes, a PIL image or an array.

    EXIF orientation is applied, transparency is laid on white, and greyscale, palette, CMYK and 16-bit pictures are
    converted; of an animation the first frame is taken.

    Parameters
    ----------
    source : str, path, bytes, binary file, PIL.Image.Image or ndarray
        Files of the formats in `picture_files.FORMATS`. Arrays: ``[height, width]`` or ``[height, width, 1, 3 or 4]``,
        uint8, uint16 (0..65535), bool, or floats in 0..1. PIL images of 32 bits hold 0..255, 0..65535, or floats in 0..1.
    upright : bool
        Apply EXIF orientation; a picture with a mask stays as it is stored, as its mask does.

    Returns
    -------
    tuple of PIL.Image.Image and str

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        With what was expected, what came and what to do.

    Warns
    -----
    UserWarning
        Where the picture uses so little of its range that the model sees one shade: 12 bits of 16, for instance.

    Examples
    --------
    >>> picture, name = read_picture(np.zeros((4, 6), np.uint8))
    >>> picture.mode, picture.size
    ('RGB', (6, 4))
    """
    from PIL import Image

    if isinstance(source, np.ndarray):
        return _from_array(source), ""
    if isinstance(source, Image.Image):
        # `filename` may be there without a file behind it, or not be there at all.
        name = shown_name(Path(str(getattr(source, "filename", "") or "")).name)
        return _decoded(source, name, upright), name
    data, name = _file_of(source)
    return _decoded(open_picture(data, name), name, upright), name


def _file_of(source: Any) -> tuple[bytes, str]:
    """The bytes and the name of a file: from its path, from itself, or from its bytes."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), ""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"there is no image file at {source}{_missing_hint(str(source), path)}")
        return path.read_bytes(), shown_name(path.name)
    if hasattr(source, "read"):
        data = source.read()
        if not isinstance(data, bytes):
            raise TypeError(
                f"an image file must be opened for bytes, open(path, 'rb'), but it gave {type(data).__name__}"
            )
        name = getattr(source, "name", "")
        return data, shown_name(Path(name).name) if isinstance(name, str) else ""
    hint = "; try list(images)" if isinstance(source, Iterable) else ""
    raise TypeError(f"images must be {ACCEPTED}, got {type(source).__name__}{hint}")


def _missing_hint(source: str, path: Path) -> str:
    """What to do about something that is no file."""
    if "://" in source:
        return "; download it first"
    return " (it is a folder; give its files)" if path.is_dir() else ""


def _decoded(picture: Image, name: str, upright: bool) -> Image:
    from PIL import ImageOps

    _check_size(picture.width, picture.height, name)
    # Colours of 16 bits are cut to 8 by Pillow itself, so that only the file tells.
    deep = any("16" in str(tile[3]) for tile in getattr(picture, "tile", ()))
    try:
        picture.load()
        if upright:
            picture = ImageOps.exif_transpose(picture)
    except Exception as error:  # a decoder may raise anything
        raise unreadable(name, error) from error
    shown = _rgb(picture, name)
    if deep and not picture.mode.startswith("I"):
        high = max(high for _, high in shown.getextrema())
        if high < DARK_SHARE * 255:
            _warn_dark(high / 255, 65535)
    return shown


def _check_size(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"{name or 'the image'} has no pixels: its size is {width} x {height}")
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name or 'the image'} is too large: {width} x {height} pixels, at most {MAX_PIXELS:,}; "
            "make it smaller first"
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ValueError(
            f"{name or 'the image'} is too narrow: {width} x {height} pixels, at most 1 : {MAX_ASPECT_RATIO}; crop it first"
        )


def _rgb(picture: Image, name: str) -> Image:
    from PIL import Image

    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        return Image.fromarray(_grey(np.asarray(picture), name)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("LA" if picture.mode == "La" else "RGBA").convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _grey(array: Pixels, name: str) -> Pixels:
    """Grey values of a PIL image of 16 or 32 bits as uint8."""
    low, high = _limits(array, name)
    if array.dtype.itemsize == 2 or (array.dtype.kind == "f" and low >= 0 and high <= 1):
        return _eight_bits(array, name)
    deep = array.dtype.kind != "f" and high > 255
    if low < 0 or high > (65535 if deep else 255):
        raise ValueError(
            f"{name or 'the image'} holds {low:.6g}..{high:.6g}; a picture of 32 bits must hold 0..255, whole numbers in "
            "0..65535, or floats in 0..1; of its array make (array - array.min()) / (array.max() - array.min())"
        )
    if deep:
        return _eight_bits(array.astype(np.uint16), name)
    _warn_of_narrow_range(array, 255)
    return array.round().astype(np.uint8)


def _eight_bits(array: Pixels, name: str) -> Pixels:
    """An array of one of the accepted kinds as uint8."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b":
        return array.astype(np.uint8) * 255
    if kind == "u" and size == 1:
        if array.max() == 1 and array.min() == 0:
            warnings.warn(
                "an image array of uint8 holds only 0 and 1, of 0..255, so the model sees it black; if these are a mask's "
                "values, or 0..1 cut to whole numbers, give (array * 255), or the floats",
                stacklevel=2,
            )
        return array
    if kind == "u" and size == 2:
        _warn_of_narrow_range(array, 65535)
        return (array / 257.0).round().astype(np.uint8)
    if kind != "f":
        raise ValueError(
            f"an image array must be uint8, uint16, bool or float in 0..1, got {array.dtype}; "
            "if it holds 0..255, try array.astype(np.uint8)"
        )
    low, high = _limits(array, name)
    if low < 0 or high > 1:
        raise ValueError(
            f"an image array of floats must lie in 0..1, got {low:.3g}..{high:.3g}; divide by 255, or convert to uint8"
        )
    _warn_of_narrow_range(array, 1)
    return (array.astype(np.float64) * 255.0).round().astype(np.uint8)


def _limits(array: Pixels, name: str) -> tuple[float, float]:
    if not np.isfinite(array).all():
        raise ValueError(f"{name or 'the image'} contains NaN or infinite pixels")
    return float(array.min()), float(array.max())


def _warn_of_narrow_range(array: Pixels, full: int) -> None:
    """Warn of a picture that uses a sliver of its range ``0..full``; not of one that is all one colour."""
    low, high = float(array.min()), float(array.max())
    # No name and few digits, so that one warning is shown for all pictures of a data set.
    if low < high < DARK_SHARE * full:
        _warn_dark(high / full, full)
    elif low < high and high - low < FLAT_SHARE * full:
        warnings.warn(
            f"an image varies by less than a sixteenth of its range 0..{full}, so the model sees it nearly all in one grey; "
            "to stretch it: (array - lowest) / (largest - lowest), floats in 0..1",
            stacklevel=3,
        )


def _warn_dark(share: float, full: int) -> None:
    warnings.warn(
        f"an image goes up to about {share:.0e} of its range 0..{full}, so the model sees it nearly black; if that "
        "is as bright as such pictures get, divide by it: array / largest, floats in 0..1",
        stacklevel=4,
    )


def _from_array(array: Pixels) -> Image:
    from PIL import Image

    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError(
            "an image array must have shape [height, width] or [height, width, 1, 3 or 4], "
            f"got {array.shape}" + _array_hint(array)
        )
    _check_size(array.shape[1], array.shape[0], "")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    return _rgb(Image.fromarray(np.ascontiguousarray(_eight_bits(array, ""))), "")


def _array_hint(array: Pixels) -> str:
    if array.dtype == object:
        return " of objects; give a list of pictures: list(array)"
    return "; try array.transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
