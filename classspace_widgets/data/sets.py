"""Data sets for studies: anything that can be indexed and yields (image, label[, mask]), and common layouts on disk."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from classspace_widgets.data.mask_files import MASKS, PICTURES, is_mask, mask_values, masks_of
from classspace_widgets.images import read_picture
from classspace_widgets.masks import IGNORED, DatasetError
from classspace_widgets.pictures import IMAGE_COLUMNS, LABEL_COLUMNS, open_picture, shown_name

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})
COLUMNS = {"image": IMAGE_COLUMNS, "label": LABEL_COLUMNS}
"""Usual names of columns, in the order in which they are tried."""
# Folders in which operating systems and programs keep copies.
_COPIES = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"})


class NoFolderError(DatasetError, FileNotFoundError):
    """A folder of pictures does not exist."""


@dataclass(frozen=True)
class PictureFiles:
    """Picture files with labels and, optionally, masks.

    Made by `image_folder` and `imagenet_s`.

    Attributes
    ----------
    paths : sequence of Path
    labels : sequence of int
    class_names : tuple of str
    masks : sequence of Path or None
    read_mask : callable (path, label) -> array [height, width] or None
        1 inside the object, 0 outside, 255 for pixels to ignore; None if the picture has no object. By default the values
        in the mask's file.
    name : str
    """

    paths: Sequence[Path]
    labels: Sequence[int]
    class_names: tuple[str, ...] = ()
    masks: Sequence[Path | None] | None = None
    read_mask: Callable[[Path, int], np.ndarray[Any, Any] | None] | None = None
    name: str = "pictures"

    def __post_init__(self) -> None:
        """Check that there are as many labels, and masks, as pictures."""
        for what, listed in (("labels", self.labels), ("masks", self.masks)):
            if listed is not None and len(listed) != len(self.paths):
                raise DatasetError(f"there must be as many {what} as paths ({len(self.paths)}), got {len(listed)}")

    def __repr__(self) -> str:
        return _data_repr(self, self.class_names, masks=self.masks is not None)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int, Any]:
        """Image, label and mask (None if there is none)."""
        path = self.masks[index] if self.masks is not None else None
        label = whole_label(self.labels[index], index)
        mask = None if path is None else (self.read_mask or mask_values)(path, label)
        return read_picture(self.paths[index], upright=mask is None)[0], label, mask


def _opened(path: Path) -> Any:
    path = Path(path).expanduser()
    return open_picture(path.read_bytes(), shown_name(path.name))


def _folders(root: Path) -> list[Path]:
    """Subfolders, without hidden ones and those that hold copies."""
    return sorted(p for p in root.iterdir() if p.is_dir() and not _is_copy(p.name))


def _pictures(folder: Path) -> list[Path]:
    """Picture files in a folder and its subfolders, without hidden ones and copies."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file() and not is_mask(p))
    return sorted(p for p in found if not any(_is_copy(part) for part in p.relative_to(folder).parts))


def _is_copy(name: str) -> bool:
    return name.startswith(".") or name in _COPIES


def _mirrors(masks: Path, names: set[str]) -> bool:
    """Whether a folder holds masks of class folders, and is no class itself: its subfolders are called as they are."""
    inside = {folder.name for folder in _folders(masks)}
    return bool(inside) and inside <= names


def image_folder(root: str | Path) -> PictureFiles:
    """Pictures in one folder per class, ``root/<class>/<picture>``; classes are the folders in alphabetical order.

    Hidden files and folders (``._1.png``, ``.ipynb_checkpoints``), ``__MACOSX`` and ``@eaDir`` are skipped.

    Masks are found by their names, which are the pictures': ``photo_mask.png`` beside ``photo.jpg``, ``photo.png`` in a
    folder ``masks`` beside the picture, in ``root/masks/<class>``, in ``root_masks/<class>`` beside the root, or in
    ``masks/<class>`` beside a root that is called ``images``.  What they hold is told by `token_mask`.

    Parameters
    ----------
    root : path

    Returns
    -------
    PictureFiles

    Raises
    ------
    DatasetError
        If there is no such folder, or no picture in it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from classspace_widgets.scenes import make_scene
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("boat", "fish"):
    ...         (Path(folder) / name).mkdir()
    ...         make_scene(1, label=name).picture.save(Path(folder) / name / "1.png")
    ...     data = image_folder(folder)
    >>> len(data), data.class_names
    (2, ('boat', 'fish'))
    """
    root = existing_folder(root)
    classes = _folders(root)
    names = {folder.name for folder in classes}
    if MASKS in names and names & set(PICTURES):
        return image_folder(root / next(name for name in PICTURES if name in names))
    classes = [folder for folder in classes if folder.name != MASKS or not _mirrors(folder, names - {MASKS})]
    if not classes:
        raise DatasetError(f"{root} has no subfolders; expected {root}/<class>/<picture>")
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(classes):
        found = _pictures(folder)
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise DatasetError(
            f"{root} has {len(classes)} class folders but no picture ({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    masks = masks_of(root, paths)
    return PictureFiles(paths, labels, tuple(shown_name(p.name) for p in classes), masks, name=shown_name(root.name))


def imagenet_s(root: str | Path, *, split: str = "validation", categories: str | Path | None = None) -> PictureFiles:
    """ImageNet-S: ``root/<split>/<wnid>/*.JPEG`` and ``root/<split>-segmentation/<wnid>/*.png``.

    Parameters
    ----------
    root : path
        Folder of any version: ``ImageNetS50``, ``ImageNetS300`` or ``ImageNetS919``.
    split : str
        ``"validation"``, or ``"train-semi"``.
    categories : path, optional
        The category list: one wnid per line, in the order of the segmentation ids (line 1 is id 1); by default
        ``root/ImageNetS_categories_im*.txt``, or the sorted folder names if there is no such file.

    Returns
    -------
    PictureFiles
        Class names are wnids. The object of a mask is the label's category; 1000 marks pixels to ignore. A mask without
        a pixel of that category counts as no mask.

    Raises
    ------
    DatasetError
        If there is no such folder, or no picture in it.

    Notes
    -----
    Segmentation PNGs hold ids in two bytes: ``id = red + 256 * green``.

    Examples
    --------
    >>> data = imagenet_s("ImageNetS50", split="validation")  # doctest: +SKIP
    """
    root = existing_folder(root)
    pictures, segmentations = existing_folder(root / split), existing_folder(root / f"{split}-segmentation")
    listed = (
        Path(categories).expanduser()
        if categories
        else next(iter(sorted(root.glob("ImageNetS_categories*.txt"))), None)
    )
    if listed is not None:
        wnids = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]
    else:
        wnids = [p.name for p in _folders(pictures)]
    if not wnids:
        raise DatasetError(f"{listed or pictures} lists no category")
    number = {wnid: i for i, wnid in enumerate(wnids)}
    paths, labels, masks = [], [], []
    for folder in _folders(pictures):
        if folder.name not in number:
            raise DatasetError(
                f"{folder} is not in the category list {listed}; is this the list of another version of ImageNet-S?"
            )
        for path in _pictures(folder):
            mask = segmentations / folder.name / f"{path.stem}.png"
            paths.append(path)
            labels.append(number[folder.name])
            masks.append(mask if mask.is_file() else None)
    if not paths:
        raise DatasetError(f"{pictures} contains no picture")
    return PictureFiles(paths, labels, tuple(wnids), masks, _imagenet_s_mask, name=shown_name(f"{root.name}/{split}"))


def _imagenet_s_mask(path: Path, label: int) -> np.ndarray[Any, Any] | None:
    ids = np.asarray(_opened(path).convert("RGB")).astype(np.int64)
    ids = ids[..., 0] + 256 * ids[..., 1]
    if not (ids == label + 1).any():
        return None
    mask: np.ndarray[Any, Any] = (ids == label + 1).astype(np.uint8)
    mask[ids == 1000] = IGNORED
    return mask


@dataclass(frozen=True)
class ArrayDataset:
    """Pictures in one array, as in CIFAR.

    Attributes
    ----------
    images : ndarray [N, height, width, 3] or [N, 3, height, width], uint8
    labels : ndarray [N]
    class_names : tuple of str
    masks : ndarray [N, height, width] or None

    Examples
    --------
    >>> data = ArrayDataset(np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 1]), ("cat", "dog"))
    >>> picture, label, mask = data[1]
    >>> picture.size, label
    ((32, 32), 1)
    """

    images: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    class_names: tuple[str, ...] = ()
    masks: np.ndarray[Any, Any] | None = None
    name: str = "arrays"

    def __post_init__(self) -> None:
        """Check shapes."""
        for what in ("images", "labels", "masks"):
            if getattr(self, what) is not None:
                object.__setattr__(self, what, np.asarray(getattr(self, what)))
        if self.images.ndim != 4 or 3 not in (self.images.shape[1], self.images.shape[3]):
            raise DatasetError(
                f"images must have shape [N, height, width, 3] or [N, 3, height, width], got {self.images.shape}; "
                "for CIFAR's rows of 3072 use .reshape(-1, 3, 32, 32), for grey pictures images[..., None].repeat(3, axis=-1)"
            )
        if self.images.dtype != np.uint8:
            raise DatasetError(
                f"images must be uint8, 0 to 255, got {self.images.dtype}; for floats in 0..1 use "
                "(images * 255).round().astype(np.uint8)"
            )
        for what, array in (("labels", self.labels), ("masks", self.masks)):
            if array is not None and (array.ndim == 0 or len(array) != len(self.images)):
                raise DatasetError(
                    f"there must be as many {what} as images ({len(self.images)}), got {len(array) if array.ndim else 1}"
                )
        if self.labels.ndim != 1:
            raise DatasetError(
                f"labels must have shape [N]=({len(self.images)},), got {self.labels.shape}; "
                + (
                    "try labels.squeeze(1)"
                    if self.labels.size == len(self.images)
                    else ONE_HOT.format("labels", "(axis=1)")
                )
            )
        if not np.issubdtype(self.labels.dtype, np.integer) and len(self.labels):
            raise DatasetError(f"labels must be integers, got {self.labels.dtype}")

    def __repr__(self) -> str:
        return _data_repr(self, self.class_names, masks=self.masks is not None)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int, Any]:
        """Image, label and mask (None if there is none)."""
        from PIL import Image

        picture = self.images[index]
        if picture.shape[-1] != 3:
            picture = picture.transpose(1, 2, 0)
        mask = None if self.masks is None else self.masks[index]
        return Image.fromarray(np.ascontiguousarray(picture)), int(self.labels[index]), mask


@dataclass(frozen=True)
class RowDataset:
    """A data set whose items are dicts, such as a Hugging Face ``datasets.Dataset``.

    Attributes
    ----------
    rows : indexed sequence of mappings
    image, label, mask : str
        Column names; by default the usual ones, such as ``"img"`` or ``"labels"``, are tried.

    Examples
    --------
    >>> from classspace_widgets.scenes import make_scene
    >>> data = RowDataset([{"image": make_scene(1).picture, "label": 3}])
    >>> data[0][1]
    3
    """

    rows: Any
    image: str = ""
    label: str = ""
    mask: str = ""
    class_names: tuple[str, ...] = field(default=())
    name: str = "rows"

    def __post_init__(self) -> None:
        """Find columns and class names."""
        columns = list(getattr(self.rows, "column_names", None) or (self.rows[0] if len(self.rows) else {}))
        for what, names in COLUMNS.items():
            given: str = getattr(self, what)
            found: str = given or next((n for n in names if n in columns), "")
            if found not in columns:
                raise DatasetError(f"no column for the {what} among {columns}; pass {what}=<column>")
            object.__setattr__(self, what, found)
        if self.mask and self.mask not in columns:
            raise DatasetError(f"no column {self.mask!r} for the mask among {columns}")
        listed = feature_names(self.rows, self.label)
        if listed and not len(self.class_names):
            object.__setattr__(self, "class_names", listed)

    def __repr__(self) -> str:
        return _data_repr(self, self.class_names, masks=bool(self.mask))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, int, Any]:
        """Image, label and mask (None if there is none)."""
        row = self.rows[index]
        return row[self.image], whole_label(row[self.label], index), row[self.mask] if self.mask else None


def parts_of(dataset: Any) -> list[Any]:
    """The data sets inside another: those of a ``ConcatDataset``, that of a ``Subset``, the rows of a `RowDataset`, timm's reader.

    Parameters
    ----------
    dataset : Any

    Returns
    -------
    list
        Empty for a data set that contains no other.

    Examples
    --------
    >>> from torch.utils.data import Subset
    >>> parts_of(Subset([1, 2], [0])), parts_of([1, 2])
    ([[1, 2]], [])
    """
    several = getattr(dataset, "datasets", None)
    inner = list(several) if isinstance(several, (list, tuple)) else []
    inner += [getattr(dataset, name, None) for name in ("dataset", "rows", "reader")]
    return [
        part for part in inner if part is not dataset and hasattr(part, "__getitem__") and not isinstance(part, str)
    ]


def feature_names(rows: Any, label: str = "") -> tuple[str, ...]:
    """Class names in the features of a Hugging Face data set; empty if it has none."""
    features = getattr(rows, "features", None)
    if not isinstance(features, Mapping):
        return ()
    column = label or next((name for name in COLUMNS["label"] if name in features), "")
    return tuple(getattr(features.get(column), "names", None) or ())


ONE_HOT = "for one-hot or soft labels give the most likely class: {}.argmax{}"
"""Remedy in messages, filled with the labels' name and the axis."""


def whole_label(label: Any, index: int) -> int:
    """A label as a Python integer; raises for anything else, also for True and False, and names the picture.

    Examples
    --------
    >>> whole_label(np.array([3]), 0)
    3
    >>> whole_label(np.eye(4)[1], 7)
    Traceback (most recent call last):
    classspace_widgets.masks.DatasetError: picture 7: its label must be one integer, ... label.argmax()
    """
    shape = getattr(label, "shape", None)
    value = label.reshape(-1).tolist() if shape is not None and hasattr(label, "tolist") else label
    value = value[0] if shape is not None and isinstance(value, list) and len(value) == 1 else value
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        several = shape is not None and isinstance(value, list)
        got = f"{label.dtype} of shape {tuple(label.shape)}" if several else repr(label)[:80]
        hint = "; " + ONE_HOT.format("label", "()") if several and len(shape or ()) == 1 else ""
        if isinstance(label, (list, tuple)) and len(label) > 1:
            hint = "; " + ONE_HOT.format("np.array(label)", "()")
        if isinstance(value, str):
            hint = "; number the classes, and list their names in that order as the data set's `classes`"
        raise DatasetError(
            f"picture {index}: its label must be one integer, the number of its class, got {got}{hint}"
        ) from None


def as_dataset(source: Any) -> Any:
    """Make a data set of anything that a study accepts: a path, a Hugging Face data set, items (image, label[, mask]).

    A path with ``<split>-segmentation`` folders is read as ImageNet-S, one with ``JPEGImages`` and ``SegmentationClass`` as Pascal
    VOC, one with ``annotations/instances_<split>.json`` as COCO, one with ``boxes.csv`` as class folders with boxes (`box_folder`), any
    other path as an image folder.

    Parameters
    ----------
    source : path, or data set

    Returns
    -------
    data set
        With a length, and items (image, label[, mask]) by number.

    Raises
    ------
    DatasetError
        If there is no such folder, if it contains no picture, or if the data set is empty.
    TypeError
        For anything that is not a data set.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> len(as_dataset(ScenesDataset(8, seed=2)))
    8
    """
    if isinstance(source, (str, Path)):
        root = existing_folder(source)
        for split in ("validation", "train-semi", "test"):
            if (root / f"{split}-segmentation").is_dir():
                return imagenet_s(root, split=split)
        if (root / "JPEGImages").is_dir() and (root / "SegmentationClass").is_dir():
            from classspace_widgets.data.voc import voc

            return voc(root)
        from classspace_widgets.data.boxes import BOXES, box_folder
        from classspace_widgets.data.coco import annotation_file, coco

        if annotation_file(root) is not None:
            return coco(root)
        return box_folder(root) if (root / BOXES).is_file() else image_folder(root)
    if not (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        raise TypeError(
            f"a data set needs a length, and items (image, label[, mask]) by number; got {type(source).__name__}; "
            + (
                "pass its data set: loader.dataset"
                if hasattr(source, "dataset")
                else "save a streamed or iterable data set first, or make a list of it: list(data)"
            )
        )
    if len(source) == 0:
        raise DatasetError("the data set is empty")
    if hasattr(source, "column_names") or (isinstance(source, Sequence) and isinstance(source[0], Mapping)):
        return RowDataset(source)
    return source


def _data_repr(data: Any, class_names: Sequence[str], *, masks: bool) -> str:
    known = f", {len(class_names)} class{'' if len(class_names) == 1 else 'es'}" if len(class_names) else ""
    return f"{type(data).__name__}({data.name}: {len(data)} picture{'' if len(data) == 1 else 's'}{known}{', with masks' if masks else ''})"


def existing_folder(path: str | Path) -> Path:
    """A folder that is there; `NoFolderError` where it is not."""
    path = Path(path).expanduser()
    if not path.is_dir():
        raise NoFolderError(f"no such folder: {path}{' (it is a file)' if path.exists() else ''}")
    return path
