"""Pictures, and their labels where they have some, from whatever holds them: lists, tensors, data sets, rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classspace_widgets.lookup import class_index
from classspace_widgets.pictures import IMAGE_COLUMNS, LABEL_COLUMNS


def counted(pictures: Any) -> int:
    """How many pictures there are; refuses what is no sequence of them."""
    if isinstance(pictures, (str, Path)) or not hasattr(pictures, "__len__") or not hasattr(pictures, "__getitem__"):
        raise TypeError(
            f"pictures must be a sequence of pictures or a data set, got {type(pictures).__name__}; give a list, or for a folder "
            "of class folders classspace_widgets.data.image_folder(path)"
        )
    return len(pictures)


def batch_of(pictures: Any, start: int, end: int) -> tuple[Any, list[Any]]:
    """Some of the pictures, as `ClassSpace.trace` takes them, and for each its label or None."""
    if hasattr(pictures, "shape"):
        return pictures[start:end], [None] * (end - start)
    items = [pictures[n] for n in range(start, end)]
    return [_picture(item) for item in items], [_label(item) for item in items]


def label_index(class_names: tuple[str, ...], label: Any) -> int | None:
    """The class of a label, given by index or name; None where it is none of them."""
    if label is None:
        return None
    try:
        return class_index(class_names, label if isinstance(label, str) else int(label))
    except (TypeError, ValueError):
        return None


def _picture(item: Any) -> Any:
    """The picture of an item of a data set: the first part of a tuple, or the column that is called so."""
    if isinstance(item, Mapping):
        column = next((name for name in IMAGE_COLUMNS if name in item), None)
        if column is None:
            raise ValueError(f"rows must have a picture in one of the columns {IMAGE_COLUMNS}, got {sorted(item)}")
        return item[column]
    return item[0] if isinstance(item, (tuple, list)) else item


def _label(item: Any) -> Any:
    if isinstance(item, Mapping):
        return next((item[name] for name in LABEL_COLUMNS if name in item), None)
    return item[1] if isinstance(item, (tuple, list)) and len(item) > 1 else None
