"""Mask files on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from classspace_widgets.space.space import ClassSpace


def mask_options(path: Path, picture: Any, space: ClassSpace) -> dict[str, Any]:
    """A picture's mask file, cut and scaled as the picture is, and its objects: options of `Trace.snapshot`.

    Parameters
    ----------
    path : Path
        One channel: the number of the object at each pixel, 0 for context. A mask of only 0 and 255 holds one object;
        beside other numbers 255 is what data sets mark as undecided, and counts as context.
    picture : PIL.Image.Image
        The picture as it is stored.
    space : ClassSpace

    Returns
    -------
    dict
        ``mask``, of the size that the model sees, and ``objects``, those too that were cut off.
    """
    from classspace_widgets.data.mask_files import mask_values
    from classspace_widgets.masks import object_numbers

    values = mask_values(path)
    expected = (picture.height, picture.width)
    if values.shape != expected:
        raise ValueError(
            f"--mask: {path} must have one channel and its picture's size [height, width]={list(expected)}, "
            f"got {list(values.shape)}"
        )
    count = int(object_numbers(values).max(initial=0))
    return {"mask": space.place_mask(values), "objects": [None] * count}
