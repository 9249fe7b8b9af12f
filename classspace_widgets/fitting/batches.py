"""Pictures, and their labels where they have some, from whatever holds them: lists, tensors, data sets, rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classspace_widgets.lookup import class_index
from classspace_widgets.pictures import IMAGE_COLUMNS, LABEL_COLUMNS

if TYPE_CHECKING:
    from torch import Tensor


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


def label_index(class_names: tuple[str, ...], label: Any, own_names: Sequence[str] | None = None) -> int:
    """The model's class of a label, given by name, or by number: the model's, or that of a data set's ``own_names``.

    Raises
    ------
    TypeError, ValueError
        Where the model has no such class.
    """
    if isinstance(label, str):
        return class_index(class_names, label)
    number = int(label)
    if own_names is None or tuple(own_names) == tuple(class_names):
        return class_index(class_names, number)
    if not 0 <= number < len(own_names):
        raise ValueError(f"label {number} is not one of the {len(own_names)} classes of the data set")
    return class_index(class_names, own_names[number])


def batch_labels(class_names: tuple[str, ...], pictures: Any, labels: Sequence[Any]) -> list[int]:
    """The model's classes of a batch's labels; all pictures must have one."""
    if any(label is None for label in labels):
        raise ValueError(
            "a probe needs the class of every picture; give pairs (picture, label), rows with a column 'label', or labels=[...]"
        )
    return [label_index(class_names, label, own_class_names(pictures)) for label in labels]


def picture_hash(pixels: Tensor) -> str:
    """A short hash of a picture ``[3, height, width]`` as the model sees it."""
    return hashlib.sha256(pixels.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def own_class_names(pictures: Any) -> Sequence[str] | None:
    """Names of a data set's own classes, where it has some."""
    names = getattr(pictures, "class_names", None)
    return names if isinstance(names, (list, tuple)) else None


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
