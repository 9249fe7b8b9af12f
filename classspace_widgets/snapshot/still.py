"""A still picture of a snapshot, for where nothing can move: print, previews, readers without scripts."""

from __future__ import annotations

import base64
import html
import io
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from classspace_widgets.files import refusing
from classspace_widgets.snapshot.container import SnapshotError

if TYPE_CHECKING:
    from PIL import Image

    from classspace_widgets.snapshot.container import Array
    from classspace_widgets.snapshot.snapshot import Snapshot

    Picture: TypeAlias = Image.Image | Array

log = logging.getLogger(__name__)

# Every 32nd colour of viridis (van der Walt and Smith 2015), interpolated in between.
_VIRIDIS = np.array(
    [
        (68, 1, 84), (71, 45, 123), (59, 82, 139), (44, 114, 142), (33, 145, 140),
        (40, 174, 128), (94, 201, 98), (173, 220, 48), (253, 231, 37),
    ],
    np.float64,
)  # fmt: skip


def viridis(values: Array) -> Array:
    """Colours ``[..., 3]`` uint8 of values in [0, 1]."""
    at = np.linspace(0, 1, len(_VIRIDIS))
    return np.stack([np.interp(values, at, _VIRIDIS[:, i]) for i in range(3)], axis=-1).round().astype(np.uint8)


def identifiability(snapshot: Snapshot, class_index: int, point: int) -> Array:
    """Class identifiability ``1 - rank/C`` of every image token at a stream point, ``[rows, columns]``."""
    tokens = snapshot.meta["tokens"]
    prefix = len(tokens["prefix"])
    ranks = snapshot.ranks(class_index)[point, prefix : tokens["count"]]
    values = np.where(ranks < 0, 0.0, 1 - ranks / snapshot.meta["classes"]["count"])  # 0: its stream does not travel
    return np.asarray(values).reshape(tokens["grid"])


def still(snapshot: Snapshot, class_index: int | None = None, *, point: int = -1, size: int = 288) -> Image.Image:
    """The picture, and beside it the map of class identifiability at a stream point (the last by default)."""
    from PIL import Image

    class_index = _carried(snapshot) if class_index is None else class_index
    values = identifiability(snapshot, class_index, point)
    shape = (size, max(1, round(size * values.shape[0] / values.shape[1])))
    heat = Image.fromarray(viridis(values)).resize(shape, Image.Resampling.NEAREST)
    out = Image.new("RGBA", (2 * size + 8, shape[1]))  # transparent between the two
    picture = picture_of(snapshot)
    if picture is not None:
        picture = picture.resize(shape, Image.Resampling.BICUBIC)
        out.paste(picture, (0, 0))
        heat = Image.blend(picture, heat, 0.75)
    out.paste(heat, (size + 8, 0))
    return out


def picture_of(snapshot: Snapshot) -> Image.Image | None:
    """The picture that a snapshot carries, as the model saw it; raises `SnapshotError` where it is damaged."""
    from PIL import Image

    if "image" not in snapshot.arrays:
        return None
    about = snapshot.meta["image"]
    with refusing(SnapshotError, "the picture of this snapshot is damaged"):
        picture = Image.open(io.BytesIO(snapshot.arrays["image"].tobytes()), formats=("PNG", "WEBP"))
        if picture.size != (about["width"], about["height"]):
            raise ValueError(f"expected {about['width']} x {about['height']} pixels, got {picture.size}")
        return picture.convert("RGB")


def as_image(picture: Picture) -> Image.Image:
    """A picture, or an array ``[height, width, 3]`` uint8 of one, as Pillow's."""
    from PIL import Image

    return picture if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture))


def with_readable_picture(snapshot: Snapshot) -> Snapshot:
    """The snapshot, without its picture where that is damaged: one damaged picture must not cost a page its other views."""
    try:
        picture_of(snapshot)
    except SnapshotError as error:
        log.warning("%s: maps are shown without it", error)
        return replace(snapshot, arrays={name: a for name, a in snapshot.arrays.items() if name != "image"})
    return snapshot


def data_uri(picture: Image.Image, **options: Any) -> str:
    """A picture as a ``data:`` address."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", **{"quality": 80, **options})
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def has_pillow() -> bool:
    """Whether pictures can be drawn here: views need no Pillow, and where nothing else is installed there is none."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        return False
    return True


def still_address(snapshot: Snapshot, *, size: int = 288, quality: int = 80) -> str:
    """`still` as a ``data:`` address; without Pillow the picture alone, as it travels, and without one nothing."""
    if has_pillow():
        return data_uri(still(with_readable_picture(snapshot), size=size), quality=quality)
    if "image" not in snapshot.arrays:
        return ""
    return (
        f"data:{snapshot.meta['image']['mime']};base64,{base64.b64encode(snapshot.arrays['image'].tobytes()).decode()}"
    )


def as_html(snapshot: Snapshot, note: str = "") -> str:
    """`still` and `caption` as HTML, with a line of small print."""
    words = html.escape(caption(snapshot))
    return f'<div><img src="{still_address(snapshot)}" alt="{words}"><br>{words}<br><small>{html.escape(note)}</small></div>'


def caption(snapshot: Snapshot, class_index: int | None = None) -> str:
    """One line of text that says what `still` shows."""
    class_index = _carried(snapshot) if class_index is None else class_index
    name = snapshot.class_names[class_index]
    predicted = snapshot.class_names[snapshot.predicted[0]]
    model, tokens, answer = snapshot.meta["model"], snapshot.meta["tokens"], snapshot.meta.get("answer")
    mean = float(identifiability(snapshot, class_index, -1).mean())
    return (
        f"{model['name']} predicts {predicted}{', unsure' * bool(answer and answer['unsure'])}. Identifiability of {name} in the last of {model['blocks']} blocks, "
        f"over {tokens['grid'][0]}x{tokens['grid'][1]} patches: {mean:.2f} on average (1 is best)."
    )


def _carried(snapshot: Snapshot) -> int:
    """The best predicted class that the snapshot carries exactly."""
    kept = set(snapshot.meta["classes"]["kept"])
    return next(c for c in snapshot.predicted if c in kept)
