"""Picture files: which formats are opened, and how a file's name is shown."""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
"""What is opened, whatever a file is called: picture formats that Pillow (or a plug-in of it) decodes by itself.  Others may
start programs, as PostScript starts Ghostscript."""

IMAGE_COLUMNS = ("image", "img", "pixel_values")
"""What the column of pictures is called in rows of data sets, by habit."""

LABEL_COLUMNS = ("label", "labels", "fine_label", "class")
"""What the column of labels is called there."""

_filters = threading.Lock()


def may_be_picture(thing: object) -> bool:
    """Whether something is a path, the bytes of a file, an open file, a PIL image or an array, and may so be a picture."""
    if isinstance(thing, (str, os.PathLike, bytes, bytearray, np.ndarray)):
        return True
    return type(thing).__module__.startswith("PIL.") or hasattr(thing, "read")


def open_picture(data: bytes, name: str = "") -> Image:
    """A picture from the bytes of a file, not yet decoded.

    Parameters
    ----------
    data : bytes
    name : str
        What the file is called in messages.

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    ValueError
        For data that is no picture of a format in `FORMATS`, is damaged, or holds more pixels than Pillow allows.

    Examples
    --------
    >>> open_picture(b"%!PS-Adobe-3.0 EPSF-3.0", "drawing.png")
    Traceback (most recent call last):
    ValueError: drawing.png is not an image ...
    """
    from PIL import Image, UnidentifiedImageError

    Image.init()
    formats = [one for one in FORMATS if one in Image.OPEN]
    try:
        # Our own limit on pixels is checked later.  The filters of warnings belong to all threads, hence the lock.
        with _filters, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        raise ValueError(
            f"{name or 'the data'} is not an image of a known format ({', '.join(formats)}), or of a kind that Pillow "
            f"cannot read (such as colours of 16 bits in TIFF); it has {len(data):,} bytes"
        ) from None
    except Exception as error:  # a decoder may raise anything
        raise unreadable(name, error) from error


def unreadable(name: str, error: Exception) -> ValueError:
    """What to raise where a decoder failed."""
    from PIL import Image

    if isinstance(error, Image.DecompressionBombError):
        return ValueError(f"{name or 'the image'} is too large: {error}; make it smaller first")
    return ValueError(f"{name or 'the image'} is damaged or cut short: {error or type(error).__name__}")


def shown_name(name: str) -> str:
    """A file's name as text that can be written anywhere: bytes that are no UTF-8 become ``"\N{REPLACEMENT CHARACTER}"``.

    Examples
    --------
    >>> len(shown_name("fish_\\udcfc.png")), shown_name("fish.png")
    (10, 'fish.png')
    """
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", name)
