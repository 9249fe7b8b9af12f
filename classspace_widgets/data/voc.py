"""The layout of Pascal VOC: pictures in JPEGImages, categories of their pixels in SegmentationClass."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from classspace_widgets.data.mask_files import mask_values
from classspace_widgets.data.sets import PictureFiles, existing_folder
from classspace_widgets.masks import IGNORED, DatasetError
from classspace_widgets.pictures import shown_name

PICTURES, CATEGORIES, LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"
NAMES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The 20 categories of VOC 2012, numbered from 1 in its masks."""


def voc(root: str | Path, *, split: str = "", categories: tuple[str, ...] = NAMES) -> PictureFiles:
    """Pascal VOC: ``root/JPEGImages/*.jpg`` and ``root/SegmentationClass/*.png``.

    A picture's class is the category that covers most of it, and its object all pixels of that category; categories
    that are the main one of no picture are left out.

    Parameters
    ----------
    root : path
        Such as ``VOCdevkit/VOC2012``.
    split : str
        A list in ``root/ImageSets/Segmentation``, such as ``"val"``; by default all pictures that have a mask.
    categories : tuple of str
        Names of the categories in the masks, the first of which is number 1.

    Returns
    -------
    PictureFiles

    Raises
    ------
    DatasetError
        If there is no such folder or list, no mask in it, or a number that is no category.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in ("JPEGImages", "SegmentationClass"):
    ...         (Path(folder) / part).mkdir()
    ...     Image.new("RGB", (8, 8)).save(f"{folder}/JPEGImages/1.jpg")
    ...     Image.fromarray(np.full((8, 8), 12, np.uint8)).save(f"{folder}/SegmentationClass/1.png")
    ...     voc(folder).class_names
    ('dog',)
    """
    root = existing_folder(root)
    folder = existing_folder(root / CATEGORIES)
    masks = sorted(folder.glob("*.png"))
    if split:
        listed = root / LISTS / f"{split}.txt"
        if not listed.is_file():
            known = ", ".join(sorted(path.stem for path in listed.parent.glob("*.txt"))) or "none"
            raise DatasetError(f"there is no list {listed}; there are: {known}")
        wanted = set(listed.read_text(encoding="utf-8").split())
        masks = [mask for mask in masks if mask.stem in wanted]
    main = {mask: _main_category(mask, len(categories)) for mask in masks}
    masks = [mask for mask in masks if main[mask]]
    if not masks:
        raise DatasetError(f"{folder} has no mask with an object" + (f" in the list {split!r}" if split else ""))
    present = sorted({main[mask] for mask in masks})
    return PictureFiles(
        [root / PICTURES / f"{mask.stem}.jpg" for mask in masks],
        [present.index(main[mask]) for mask in masks],
        tuple(categories[number - 1] for number in present),
        masks,
        partial(_object, present),
        name=shown_name(root.name),
    )


def _main_category(mask: Path, count: int) -> int:
    """The category with most pixels; 0 where there is none."""
    numbers, pixels = np.unique(mask_values(mask), return_counts=True)
    found = {int(number): int(size) for number, size in zip(numbers, pixels, strict=True) if 0 < number < IGNORED}
    if found and max(found) > count:
        raise DatasetError(
            f"{mask} contains category {max(found)}, but there are {count} names; pass categories=(...) for all of them"
        )
    return max(found, key=lambda number: (found[number], -number), default=0)


def _object(present: list[int], path: Path, label: int) -> np.ndarray[Any, Any]:
    values = mask_values(path)
    mask: np.ndarray[Any, Any] = (values == present[label]).astype(np.uint8)
    mask[values == IGNORED] = IGNORED
    return mask
