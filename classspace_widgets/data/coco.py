"""The layout of COCO: pictures in a folder, and outlines of their objects in one JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from classspace_widgets.data.sets import existing_folder
from classspace_widgets.images import read_picture
from classspace_widgets.masks import IGNORED, DatasetError
from classspace_widgets.pictures import shown_name


@dataclass(frozen=True)
class OutlinedPictures:
    """Picture files whose objects are given by outlines.

    Made by `coco` and `box_folder`.

    Attributes
    ----------
    paths : sequence of Path
    labels : sequence of int
    class_names : tuple of str
    outlines : sequence of list
        Of each picture: pairs of an outline as COCO has it (polygons, or run lengths) and what its pixels become, 1 for
        the object, 255 for pixels to ignore. A picture without one has no mask.
    name : str
    """

    paths: Sequence[Path]
    labels: Sequence[int]
    class_names: tuple[str, ...]
    outlines: Sequence[list[tuple[Any, int]]] = field(repr=False)
    name: str = "pictures"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int, Any]:
        """Image, label and mask (None if there is none)."""
        picture = read_picture(self.paths[index], upright=not self.outlines[index])[0]
        if not self.outlines[index]:
            return picture, self.labels[index], None
        mask = np.zeros((picture.height, picture.width), np.uint8)
        # Pixels to ignore first: the object itself wins.
        for outline, value in sorted(self.outlines[index], key=lambda pair: -pair[1]):
            mask[inside(outline, picture.height, picture.width)] = value
        return picture, self.labels[index], mask


def coco(
    root: str | Path, *, annotations: str | Path | None = None, pictures: str | Path | None = None
) -> OutlinedPictures:
    """COCO: ``root/annotations/instances_<split>.json`` and ``root/<split>/*.jpg``.

    A picture's class is the category whose objects cover most of it, and its object all of that category; crowds are pixels
    to ignore.  Pictures without an object, and categories that are the main one of no picture, are left out.

    Parameters
    ----------
    root : path
    annotations : path, optional
        The JSON file; by default the one in ``root/annotations`` or ``root``, ``instances_val*`` before others.
    pictures : path, optional
        Folder of the pictures; by default ``root/<split>``, ``root/images/<split>``, ``root/images`` or ``root``.

    Returns
    -------
    OutlinedPictures

    Raises
    ------
    DatasetError
        If there is no such file or folder, or the file does not hold annotations as COCO writes them.

    Examples
    --------
    >>> data = coco("coco", annotations="coco/annotations/instances_val2017.json")  # doctest: +SKIP
    """
    root = existing_folder(root)
    file = Path(annotations).expanduser() if annotations else annotation_file(root)
    if file is None or not file.is_file():
        raise DatasetError(
            f"no annotations of COCO in {root}; pass annotations= with the path of instances_<split>.json"
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        names = {int(each["id"]): str(each["name"]) for each in found["categories"]}
        files = {each["id"]: str(each["file_name"]) for each in found["images"]}
        objects: dict[Any, list[Any]] = {}
        for each in found["annotations"]:
            objects.setdefault(each["image_id"], []).append(each)
        mains = {image: _main(objects[image]) for image in files if image in objects}
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{file} does not hold annotations as COCO writes them ({type(error).__name__}: {error}); expected images, "
            "annotations and categories"
        ) from error
    kept = [image for image, main in mains.items() if main is not None]
    if not kept:
        raise DatasetError(f"{file} has no picture with an object")
    present = sorted({main for main in mains.values() if main is not None})
    unnamed = [number for number in present if number not in names]
    if unnamed:
        raise DatasetError(f"{file} has no category {unnamed[0]}, but annotations of it")
    folder = existing_folder(pictures) if pictures else _folder_of(root, file, files[kept[0]])
    paths = [_inside(folder, files[image], file) for image in kept]
    return OutlinedPictures(
        paths,
        [present.index(mains[image] or 0) for image in kept],
        tuple(names[number] for number in present),
        [_outlines(objects[image], mains[image]) for image in kept],
        name=shown_name(file.stem),
    )


def annotation_file(root: Path) -> Path | None:
    """The file of outlines in a folder as COCO has it; None where there is none."""
    for folder in (root / "annotations", root):
        found = sorted(folder.glob("instances*.json")) or sorted(folder.glob("_annotations.coco.json"))
        if found:
            return next((file for file in found if "val" in file.stem), found[0])
    return None


def _folder_of(root: Path, file: Path, first: str) -> Path:
    split = file.stem.removeprefix("instances").strip("_")
    tried = [folder for folder in (root / split, root / "images" / split, root / "images", root) if folder.is_dir()]
    for folder in tried:
        if (folder / first).is_file():
            return folder
    raise DatasetError(
        f"the pictures that {file.name} names ({first}, ...) are in none of {', '.join(map(str, tried))}; pass pictures= with "
        "their folder"
    )


def _inside(folder: Path, name: str, file: Path) -> Path:
    """A picture's path, which must not lead out of its folder."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DatasetError(f"{file.name} names a picture outside of {folder}: {shown_name(name)}")
    return path


def _main(objects: list[Any]) -> int | None:
    """The category of the largest total area; None where there are only crowds."""
    areas: dict[int, float] = {}
    for each in objects:
        if not each.get("iscrowd"):
            category = int(each["category_id"])
            areas[category] = areas.get(category, 0.0) + float(each["area"])
    return max(areas, key=lambda category: (areas[category], -category), default=None)


def _outlines(objects: list[Any], main: int | None) -> list[tuple[Any, int]]:
    own = [each for each in objects if each["category_id"] == main and each.get("segmentation")]
    return [(each["segmentation"], IGNORED if each.get("iscrowd") else 1) for each in own]


def inside(outline: Any, height: int, width: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Pixels ``[height, width]`` inside an outline of COCO: polygons, or run lengths, packed as text or not.

    Parameters
    ----------
    outline : list or dict
        Polygons ``[[x, y, x, y, ...], ...]``, or ``{"counts": ..., "size": [height, width]}``.
    height, width : int

    Returns
    -------
    ndarray [height, width], bool

    Examples
    --------
    >>> inside({"counts": [1, 2, 3], "size": [2, 3]}, 2, 3).astype(int)
    array([[0, 1, 0],
           [1, 0, 0]])
    """
    if isinstance(outline, dict):
        size = [int(side) for side in outline["size"]]
        if size != [height, width]:
            raise DatasetError(
                f"an outline is of a picture of {size}, but the picture has [height, width]={[height, width]}"
            )
        counts = outline["counts"]
        runs = _unpacked(counts) if isinstance(counts, (str, bytes)) else [int(count) for count in counts]
        if sum(runs) != height * width or min(runs, default=0) < 0:
            raise DatasetError(
                f"the run lengths of an outline are of {sum(runs)} pixels, the picture has {height * width}"
            )
        values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return values.reshape(width, height).T
    from PIL import Image, ImageDraw

    drawn = Image.new("1", (width, height))
    for polygon in outline:
        if len(polygon) >= 6:
            ImageDraw.Draw(drawn).polygon([float(value) for value in polygon], fill=1)
    return np.asarray(drawn)


def _unpacked(counts: str | bytes) -> list[int]:
    """Run lengths out of text: 5 bits a letter, lowest first, the sixth says that more follow; from the third on, differences
    to the one two before."""
    letters = counts.encode("ascii") if isinstance(counts, str) else counts
    runs: list[int] = []
    value = shift = 0
    for letter in letters:
        bits = letter - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs
