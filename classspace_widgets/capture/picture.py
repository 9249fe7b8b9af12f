"""The picture of a snapshot: what the model saw, and the photograph that it saw a part of."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from classspace_widgets.files import readable

if TYPE_CHECKING:
    from PIL.Image import Image

    from classspace_widgets.images.crop import Photograph
    from classspace_widgets.snapshot.container import Array
    from classspace_widgets.snapshot.meta import ImageMeta, PhotoMeta
    from classspace_widgets.trace import Trace

PNG_LIMIT = 40_000
"""Pixels (200 x 200) up to which the picture travels as PNG, without loss; larger ones as WebP, a tenth of the size."""

SHARP = 1.25
"""A photograph travels, too, where the part that the model saw has this many times its pixels a side."""

PART_SIDE, WHOLE_SIDE = 640, 1280
"""Pixels of the shorter side of the part that the model saw, and of the longer side of all of it, at most: the widest view
of a patch map shows that many."""


def image_meta(arrays: dict[str, Array], trace: Trace, title: str) -> ImageMeta:
    """The picture's meta data; its files are put to the arrays."""
    name = readable(title or "".join(trace.image_names))
    if trace.pictures is None:
        return {"width": 0, "height": 0, "mime": "", "name": name, "label": None}
    pixels = np.ascontiguousarray(trace.pictures[0])
    height, width, _ = pixels.shape
    mime, data = _encoded(pixels.tobytes(), width, height)
    arrays["image"] = np.frombuffer(data, np.uint8)
    meta: ImageMeta = {"width": width, "height": height, "mime": mime, "name": name, "label": None}
    photograph = trace.photographs[0] if trace.photographs else None
    if photograph and (photo := _photo(arrays, photograph, width, height)):
        meta["photo"] = photo
    return meta


def _photo(arrays: dict[str, Array], photograph: Photograph, width: int, height: int) -> PhotoMeta | None:
    """Meta data of the photograph, whose file is put to the arrays; None where it shows no more than the model saw."""
    left, top, right, bottom = photograph.crop
    whole = photograph.picture
    part = (right - left) * whole.width, (bottom - top) * whole.height
    sharper = part[0] >= SHARP * width and part[1] >= SHARP * height
    if not sharper and left <= 0 and top <= 0 and right >= 1 and bottom >= 1:
        return None
    scale = min(1.0, PART_SIDE / min(part), WHOLE_SIDE / max(whole.size))
    size = max(1, round(scale * whole.width)), max(1, round(scale * whole.height))
    arrays["photo"] = np.frombuffer(_photo_file(photograph, size), np.uint8)
    return {"width": size[0], "height": size[1], "mime": "image/webp", "crop": list(photograph.crop)}


_photo_files: WeakKeyDictionary[Photograph, bytes] = WeakKeyDictionary()


def _photo_file(photograph: Photograph, size: tuple[int, int]) -> bytes:
    """A photograph's WebP file; kept with it, because every intervened pass shows the same one again."""
    from PIL import Image

    if photograph not in _photo_files:
        picture = photograph.picture.resize(size, Image.Resampling.LANCZOS)
        _photo_files[photograph] = _webp(picture, 85)
    return _photo_files[photograph]


def _webp(picture: Image, quality: int) -> bytes:
    picture.info.clear()  # Where and when a picture was taken is nobody's business.
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


@lru_cache(maxsize=16)
def _encoded(pixels: bytes, width: int, height: int) -> tuple[str, bytes]:
    """Type and bytes of a picture's file; kept, because every intervened pass shows the same picture again."""
    from PIL import Image

    picture = Image.frombytes("RGB", (width, height), pixels)
    if width * height <= PNG_LIMIT:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        return "image/png", buffer.getvalue()
    return "image/webp", _webp(picture, 90)
