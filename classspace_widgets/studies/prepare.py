"""From items of a data set to batches: pixels as the model wants them, labels in its numbering, masks on its grid."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.images import read_picture
from classspace_widgets.studies.data import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.space import ClassSpace


class DatasetError(ValueError):
    """The data set does not fit the model, or itself: not the fault of one broken picture, so the run stops."""


@dataclass(frozen=True)
class PixelTransform:
    """The model's own preprocessing, applied to picture and mask alike.

    Attributes
    ----------
    size : tuple of int
        Height and width in.
    crop : float
        Share of the resized picture that the centre crop keeps.
    squash : bool
        Resize both sides, changing the aspect ratio.
    interpolation : str
        ``"bicubic"``, ``"bilinear"``, ``"nearest"`` or ``"lanczos"``.
    mean, std : tuple of float
    """

    size: tuple[int, int] = (224, 224)
    crop: float = 1.0
    squash: bool = False
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def of(cls, space: ClassSpace) -> PixelTransform:
        """What the model's configuration asks for."""
        how = space.preprocessing.for_picture()
        if how.crop_mode not in ("center", "squash"):
            raise DatasetError(
                f"crop mode {how.crop_mode!r} is not supported for pictures; give pixels [3, {how.size[0]}, {how.size[1]}]"
            )
        return cls(how.size, how.crop, how.crop_mode == "squash", how.interpolation, how.mean, how.std)

    def pixels(self, image: Any) -> Tensor:
        """A PIL image as pixels ``[3, height, width]``, float32 (one channel where the model takes one)."""
        from PIL import Image

        names = {"bicubic": "BICUBIC", "bilinear": "BILINEAR", "nearest": "NEAREST", "lanczos": "LANCZOS"}
        how = Image.Resampling[names.get(self.interpolation, "BICUBIC")]
        if len(self.mean) not in (1, 3):
            raise DatasetError(
                f"the model takes {len(self.mean)} channels, pictures have 1 or 3; give pixels "
                f"[{len(self.mean)}, {self.size[0]}, {self.size[1]}]"
            )
        placed = self._place(image.convert("RGB" if len(self.mean) == 3 else "L"), how)
        array = np.asarray(placed, dtype=np.float32).reshape(*self.size, len(self.mean)) / 255
        array = (array - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))

    def mask(self, mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A mask ``[height, width]`` of the picture's size, placed as the picture is: no interpolation."""
        from PIL import Image

        return np.asarray(self._place(Image.fromarray(mask.astype(np.uint8)), Image.Resampling.NEAREST))

    def _place(self, image: Any, how: Any) -> Any:
        scaled = tuple(math.floor(s / self.crop) for s in self.size)
        width, height = image.size
        if self.squash:
            width, height = scaled[1], scaled[0]
        elif scaled[0] != scaled[1]:
            ratio = min(height / scaled[0], width / scaled[1])
            width, height = round(width / ratio), round(height / ratio)
        elif width <= height:
            width, height = scaled[0], int(scaled[0] * height / width)
        else:
            width, height = int(scaled[0] * width / height), scaled[0]
        image = image if image.size == (width, height) else image.resize((width, height), how)
        top, left = round((height - self.size[0]) / 2), round((width - self.size[1]) / 2)
        return image.crop((left, top, left + self.size[1], top + self.size[0]))


def token_mask(
    mask: np.ndarray[Any, Any], grid: tuple[int, int], *, coverage: float = 0.5
) -> np.ndarray[Any, np.dtype[np.int8]]:
    """Reduce a picture's mask to its tokens.

    Parameters
    ----------
    mask : ndarray [height, width]
        Boolean, or 1 inside the object, 255 to leave out, anything else context. A mask of 0 and 255 alone has its
        object in 255, as picture editors write it.
    grid : tuple of int
        Rows and columns of image tokens.
    coverage : float
        Share of a patch that the object must cover.

    Returns
    -------
    ndarray [P], int8
        1 class token, 0 context token, -1 neither.

    Examples
    --------
    >>> token_mask(np.tri(96), (3, 3))
    array([1, 0, 0, 1, 1, 0, 1, 1, 1], dtype=int8)
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise DatasetError(f"a mask must have shape [height, width], got {mask.shape}")
    if mask.shape[0] < grid[0] or mask.shape[1] < grid[1]:
        raise DatasetError(f"a mask must be at least as fine as the {grid[0]} x {grid[1]} patch grid, got {mask.shape}")
    mask = binary_mask(mask)
    inside, ignored = _shares(mask == 1, grid), _shares(mask == IGNORED, grid)
    tokens = np.where(inside >= coverage - 1e-9, 1, 0)
    return np.where(ignored > 0.5, -1, tokens).astype(np.int8).ravel()


def binary_mask(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """1 inside the object, 255 to leave out, 0 elsewhere; see `token_mask` for what is understood."""
    if mask.dtype == bool:
        return np.asarray(mask, dtype=np.uint8)
    if not (mask == 1).any() and set(np.unique(mask).tolist()) == {0, IGNORED}:
        return np.asarray(mask == IGNORED, dtype=np.uint8)
    known: np.ndarray[Any, Any] = np.where(mask == 1, 1, np.where(mask == IGNORED, IGNORED, 0)).astype(np.uint8)
    return known


def _shares(inside: np.ndarray[Any, Any], grid: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    edges = [np.round(np.linspace(0, n, k + 1)).astype(int) for n, k in zip(inside.shape, grid, strict=True)]
    total = np.add.reduceat(np.add.reduceat(inside.astype(np.int64), edges[0][:-1], axis=0), edges[1][:-1], axis=1)
    shares: np.ndarray[Any, np.dtype[np.float64]] = total / np.outer(np.diff(edges[0]), np.diff(edges[1]))
    return shares


@dataclass(frozen=True)
class Item:
    """One picture, prepared: pixels ``[3, height, width]``, the model's class, token mask ``[P]`` (-1: unknown)."""

    index: int
    pixels: Tensor
    label: int
    mask: np.ndarray[Any, np.dtype[np.int8]]


@dataclass(frozen=True)
class Broken:
    """A picture that could not be read, and why."""

    index: int
    reason: str


@dataclass(frozen=True)
class Preparer:
    """Prepares items of a data set for a model.

    Attributes
    ----------
    dataset : Any
    transform : PixelTransform
    grid : tuple of int
    n_classes : int
    class_table : ndarray, dict or None
        Model class by the data set's class.
    coverage : float
        See `token_mask`.
    """

    dataset: Any
    transform: PixelTransform
    grid: tuple[int, int]
    n_classes: int
    class_table: Any = None
    coverage: float = 0.5

    def __call__(self, index: int) -> Item | Broken:
        """One item; whatever the data set itself raises makes it `Broken`."""
        try:
            row = self.dataset[index]
            image, label, mask = self._unpack(row)
            if not isinstance(image, torch.Tensor):
                image, _ = read_picture(image, upright=mask is None)
        except DatasetError:
            raise
        except Exception as error:  # any decoder may raise anything: it is recorded, and the run goes on
            return Broken(index, f"{type(error).__name__}: {error}")
        pixels, size = self._pixels(image, index)
        tokens = np.full(self.grid[0] * self.grid[1], -1, np.int8)
        if mask is not None:
            array = np.asarray(mask.cpu() if hasattr(mask, "cpu") else mask)
            if array.shape != size:
                raise DatasetError(
                    f"picture {index}: its mask must have the picture's size [height, width]={size}, got {array.shape}"
                )
            placed = array if isinstance(image, torch.Tensor) else self.transform.mask(binary_mask(array))
            tokens = token_mask(placed, self.grid, coverage=self.coverage)
        return Item(index, pixels, self._label(label, index), tokens)

    @staticmethod
    def _unpack(row: Any) -> tuple[Any, Any, Any]:
        if isinstance(row, Mapping):
            if not {"image", "label"} <= set(row):
                raise DatasetError(f"items must have 'image' and 'label', got {sorted(row)}")
            return row["image"], row["label"], row.get("mask")
        if not isinstance(row, (tuple, list)) or len(row) not in (2, 3):
            raise DatasetError(f"items must be (image, label) or (image, label, mask), got {type(row).__name__}")
        return row[0], row[1], row[2] if len(row) == 3 else None

    def _pixels(self, image: Any, index: int) -> tuple[Tensor, tuple[int, int]]:
        if not isinstance(image, torch.Tensor):
            return self.transform.pixels(image), (image.size[1], image.size[0])
        want = (len(self.transform.mean), *self.transform.size)
        if tuple(image.shape) != want or not image.is_floating_point():
            raise DatasetError(
                f"picture {index}: pixels must be floats of shape {want}, got {image.dtype} {tuple(image.shape)}; "
                "give PIL images to have them resized and normalised for the model"
            )
        return image, (int(image.shape[1]), int(image.shape[2]))

    def _label(self, label: Any, index: int) -> int:
        value = label.item() if hasattr(label, "item") else label
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise DatasetError(f"picture {index}: its label must be one integer, got {label!r}")
        table = self.class_table
        if table is not None:
            known = value in table if isinstance(table, dict) else 0 <= value < len(table)
            if not known:
                raise DatasetError(f"picture {index}: label {value} is not among the data set's {len(table)} classes")
            return int(table[value])
        if not 0 <= value < self.n_classes:
            raise DatasetError(
                f"picture {index}: its label must be in 0..{self.n_classes - 1} (the model's classes), got {value}; "
                "if the data set numbers its classes otherwise, pass class_map={data set class: model class}"
            )
        return int(value)


def in_order(prepare: Any, batches: Iterable[Any], *, workers: int) -> Iterator[list[Item | Broken]]:
    """Prepared batches, in order; ``workers`` threads run up to two batches ahead of the consumer.

    Threads, because decoding and resizing release Python's lock, and because nothing has to be pickled.
    """
    if workers == 0:
        for batch in batches:
            yield [prepare(int(i)) for i in batch]
        return
    pending: deque[list[Future[Item | Broken]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="classspace-data") as pool:
        try:
            for batch in batches:
                pending.append([pool.submit(prepare, int(i)) for i in batch])
                if len(pending) > 2:
                    yield [f.result() for f in pending.popleft()]
            while pending:
                yield [f.result() for f in pending.popleft()]
        finally:
            for futures in pending:
                for future in futures:
                    future.cancel()
