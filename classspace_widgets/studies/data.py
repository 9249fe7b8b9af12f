"""Data sets for studies: anything indexed that yields (image, label[, mask]), and the usual layouts on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from classspace_widgets.images import read_picture

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})
IGNORED = 255


def open_image(path: str | Path) -> Any:
    """A picture file as an RGB PIL image, fully decoded."""
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


@dataclass(frozen=True)
class PictureFiles:
    """Picture files with labels and, where there are any, masks.

    Made by `image_folder` and `imagenet_s`.

    Attributes
    ----------
    paths : sequence of Path
    labels : sequence of int
    class_names : tuple of str
    masks : sequence of Path or None
    read_mask : callable (path, label) -> array [height, width]
        1 inside the object, 0 outside, 255 to leave out; by default the values of a mask's file as they are.
    name : str
    """

    paths: Sequence[Path]
    labels: Sequence[int]
    class_names: tuple[str, ...] = ()
    masks: Sequence[Path | None] | None = None
    read_mask: Callable[[Path, int], np.ndarray[Any, Any]] | None = None
    name: str = "pictures"

    def __repr__(self) -> str:
        return _data_repr(self, self.class_names, masks=self.masks is not None)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int, Any]:
        """Image, label and mask (None if there is none)."""
        path = self.masks[index] if self.masks is not None else None
        label = int(self.labels[index])
        mask = None if path is None else (self.read_mask or _mask_values)(path, label)
        return read_picture(self.paths[index], upright=mask is None)[0], label, mask


def _mask_values(path: Path, _label: int) -> np.ndarray[Any, Any]:
    from PIL import Image

    with Image.open(path) as drawn:
        return np.asarray(drawn)


def image_folder(root: str | Path) -> PictureFiles:
    """Pictures in one folder a class: ``root/<class>/<picture>``; classes are the folders in alphabetical order.

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
    root = _folder(root)
    classes = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise ValueError(f"{root} has no sub-folders; expected {root}/<class>/<picture>")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise ValueError(
            f"{root} has {len(classes)} class folders and no picture ({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    return PictureFiles(paths, labels, tuple(classes), name=root.name)


def imagenet_s(root: str | Path, *, split: str = "validation", categories: str | Path | None = None) -> PictureFiles:
    """ImageNet-S: ``root/<split>/<wnid>/*.JPEG`` and ``root/<split>-segmentation/<wnid>/*.png``.

    Parameters
    ----------
    root : path
        Also with a number in the root's name, ``ImageNetS50``, ``300``, ``919``.
    split : str
        ``"validation"``, or ``"train-semi"``.
    categories : path, optional
        The category list: one wnid a line, in the order of the segmentation ids (line 1 is id 1); by default
        ``root/ImageNetS_categories_im*.txt``, else the sorted folder names.

    Returns
    -------
    PictureFiles
        Class names are wnids. A mask's object is the label's own category; 1000 marks pixels to leave out.

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
    root = _folder(root)
    pictures, drawn = _folder(root / split), _folder(root / f"{split}-segmentation")
    listed = Path(categories) if categories else next(iter(sorted(root.glob("ImageNetS_categories*.txt"))), None)
    if listed is not None:
        wnids = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]
    else:
        wnids = sorted(p.name for p in pictures.iterdir() if p.is_dir())
    if not wnids:
        raise ValueError(f"{listed or pictures} names no category")
    number = {wnid: i for i, wnid in enumerate(wnids)}
    paths, labels, masks = [], [], []
    for folder in sorted(p for p in pictures.iterdir() if p.is_dir()):
        if folder.name not in number:
            raise ValueError(f"{folder} is not in the category list {listed}; is the list that of another ImageNet-S?")
        for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
            mask = drawn / folder.name / f"{path.stem}.png"
            paths.append(path)
            labels.append(number[folder.name])
            masks.append(mask if mask.is_file() else None)
    if not paths:
        raise ValueError(f"{pictures} holds no picture")
    return PictureFiles(paths, labels, tuple(wnids), masks, _imagenet_s_mask, name=f"{root.name}/{split}")


def _imagenet_s_mask(path: Path, label: int) -> np.ndarray[Any, Any]:
    ids = np.asarray(open_image(path)).astype(np.int64)
    ids = ids[..., 0] + 256 * ids[..., 1]
    mask: np.ndarray[Any, Any] = (ids == label + 1).astype(np.uint8)
    mask[ids == 1000] = IGNORED
    return mask


@dataclass(frozen=True)
class ArrayDataset:
    """Pictures in one array, CIFAR-style.

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
            raise ValueError(
                f"images must have shape [N, height, width, 3] or [N, 3, height, width], got {self.images.shape}; "
                "CIFAR's rows of 3072 need .reshape(-1, 3, 32, 32)"
            )
        if self.images.dtype != np.uint8:
            raise ValueError(f"images must be uint8, 0 to 255, got {self.images.dtype}")
        for what, array in (("labels", self.labels), ("masks", self.masks)):
            if array is not None and len(array) != len(self.images):
                raise ValueError(f"{what} must be as many as images ({len(self.images)}), got {len(array)}")
        if not np.issubdtype(self.labels.dtype, np.integer) and len(self.labels):
            raise ValueError(f"labels must be integers, got {self.labels.dtype}")

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
    """Rows that are dicts, such as a Hugging Face ``datasets.Dataset``, as (image, label, mask).

    Attributes
    ----------
    rows : indexed sequence of mappings
    image, label, mask : str
        Column names; found by habit if not given.

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
        habits = {"image": ("image", "img", "pixel_values"), "label": ("label", "labels", "fine_label", "class")}
        for what, names in habits.items():
            given: str = getattr(self, what)
            found: str = given or next((n for n in names if n in columns), "")
            if found not in columns:
                raise ValueError(f"no column for the {what} among {columns}; pass {what}=<column>")
            object.__setattr__(self, what, found)
        if self.mask and self.mask not in columns:
            raise ValueError(f"no column {self.mask!r} for the mask among {columns}")
        features = getattr(self.rows, "features", None)
        listed = getattr(features[self.label], "names", None) if features is not None else None
        if listed and not self.class_names:
            object.__setattr__(self, "class_names", tuple(listed))

    def __repr__(self) -> str:
        return _data_repr(self, self.class_names, masks=bool(self.mask))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, int, Any]:
        """Image, label and mask (None if there is none)."""
        row = self.rows[index]
        return row[self.image], int(row[self.label]), row[self.mask] if self.mask else None


def as_dataset(source: Any) -> Any:
    """Whatever a study can read: a path, a Hugging Face data set, or any data set yielding (image, label[, mask]).

    A path with ``<split>-segmentation`` folders is read as ImageNet-S, any other as an image folder.

    Parameters
    ----------
    source : path, or data set

    Returns
    -------
    data set
        With a length and numbered items (image, label, mask).

    Raises
    ------
    DatasetError
        Saying what was expected.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> len(as_dataset(ScenesDataset(8, seed=2)))
    8
    """
    if isinstance(source, (str, Path)):
        root = _folder(source)
        for split in ("validation", "train-semi", "test"):
            if (root / f"{split}-segmentation").is_dir():
                return imagenet_s(root, split=split)
        return image_folder(root)
    if not (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        raise TypeError(
            f"a data set needs a length and numbered items (image, label[, mask]), got {type(source).__name__}; "
            "streams and iterable data sets must be saved or listed first"
        )
    if len(source) == 0:
        raise ValueError("the data set is empty")
    if hasattr(source, "column_names") or (isinstance(source, Sequence) and isinstance(source[0], Mapping)):
        return RowDataset(source)
    return source


def _data_repr(data: Any, class_names: Sequence[str], *, masks: bool) -> str:
    known = f", {len(class_names)} class{'' if len(class_names) == 1 else 'es'}" if class_names else ""
    return f"{type(data).__name__}({data.name}: {len(data)} picture{'' if len(data) == 1 else 's'}{known}{', with masks' if masks else ''})"


def _folder(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"no such folder: {path}{' (it is a file)' if path.exists() else ''}")
    return path
