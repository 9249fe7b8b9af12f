"""From items of a data set to batches: pixels as the model wants them, labels in its numbering, masks on its grid."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.images import check_values, read_picture
from classspace_widgets.picture_files import shown_name
from classspace_widgets.studies.data import COLUMNS, IGNORED, DatasetError, whole_label

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.space import ClassSpace


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
        Boolean, or whole numbers: 1 inside the object, 255 to leave out, anything else context. A mask of 0 and 255 alone
        has its object in 255, as picture editors write it.
    grid : tuple of int
        Rows and columns of image tokens.
    coverage : float
        Share of a patch that the object must cover.

    Returns
    -------
    ndarray [P], int8
        1 class token, 0 context token, -1 neither.

    Raises
    ------
    DatasetError
        For a mask coarser than the grid, and for values that do not say which object is meant: other numbers and no 1,
        fractions, numbers below 0, grey edges.

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
    return _tokens(binary_mask(mask), grid, coverage)


def _tokens(mask: np.ndarray[Any, Any], grid: tuple[int, int], coverage: float) -> np.ndarray[Any, np.dtype[np.int8]]:
    """`token_mask` of what `binary_mask` gave, or of a part of it."""
    inside, ignored = _shares(mask == 1, grid), _shares(mask == IGNORED, grid)
    tokens = np.where(inside >= coverage - 1e-9, 1, 0)
    return np.where(ignored > 0.5, -1, tokens).astype(np.int8).ravel()


def binary_mask(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """1 inside the object, 255 to leave out, 0 elsewhere; see `token_mask` for what is understood and what is refused."""
    numbers = _numbers(mask)
    if numbers == [0, IGNORED]:
        return np.asarray(mask == IGNORED, np.uint8)
    others = [n for n in numbers if n != 0]
    if others and 1 not in others:
        which = others[0] if len(others) == 1 else "<the object's number>"
        raise DatasetError(
            f"a mask has its object in 1, and this one holds {', '.join(map(str, numbers[:6]))} and no 1; "
            f"give mask == {which}, or no mask for a picture without its object"
        )
    known: np.ndarray[Any, Any] = np.where(mask == 1, 1, np.where(mask == IGNORED, IGNORED, 0)).astype(np.uint8)
    return known


def object_numbers(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The number of the object at each pixel, 0 for context, of a mask of several objects.

    As in `binary_mask`, a mask of 0 and 255 alone has one object, and beside other numbers 255 is no object.
    """
    numbers = _numbers(mask)
    if set(numbers) <= {0, IGNORED}:
        return np.asarray(mask == IGNORED, np.uint8)
    if numbers[-1] > IGNORED:
        raise DatasetError(f"a mask must hold 0 for context and 1..254 for objects, got {numbers[-1]}")
    return np.where(mask == IGNORED, 0, mask).astype(np.uint8)


def _numbers(mask: np.ndarray[Any, Any]) -> list[int]:
    """The different numbers in a mask; raises where it holds anything but numbers of objects."""
    if mask.dtype.kind == "b":
        return [int(value) for value in np.unique(mask)]
    if mask.dtype.kind not in "iuf":
        raise DatasetError(f"a mask must hold numbers or be boolean, got {mask.dtype}")
    values = np.unique(mask)
    if not np.array_equal(values, np.trunc(values)):  # NaN too is no whole number
        fraction = values[values != np.trunc(values)][0]
        raise DatasetError(f"a mask must hold whole numbers, got {fraction:.3g}; of probabilities give mask > 0.5")
    numbers = [int(value) for value in values]
    if numbers and numbers[0] < 0:
        raise DatasetError(f"a mask must not hold {numbers[0]}; 255 leaves pixels out: np.where(mask < 0, 255, mask)")
    grey = IGNORED in numbers and any(_LARGEST_NUMBER < n < IGNORED for n in numbers)
    if grey or len(numbers) > _MOST_NUMBERS:
        raise DatasetError(
            f"a mask holds {len(numbers)} different values up to {numbers[-1]}, as grey edges give them; "
            "give mask > 127, or 1 for the object and other whole numbers for the rest"
        )
    return numbers


_LARGEST_NUMBER = 191
"""Beside 255, larger values are the greys of an edge rather than numbers of objects."""
_MOST_NUMBERS = 64


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
    ready: bool = False
    """Whether the data set gave the pixels as they are, instead of a picture."""


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
            elif image.is_floating_point() and not bool(torch.isfinite(image).all()):
                raise ValueError("its pixels contain NaN or infinite values")
        except DatasetError:
            raise
        except Exception as error:  # any decoder may raise anything: it is recorded, and the run goes on
            return Broken(index, shown_name(f"{type(error).__name__}: {error}"))
        pixels, size = self._pixels(image, index)
        tokens = np.full(self.grid[0] * self.grid[1], -1, np.int8)
        if mask is not None:
            array = np.asarray(mask.cpu() if hasattr(mask, "cpu") else mask)
            if array.shape != size:
                raise DatasetError(
                    f"picture {index}: its mask must have the picture's size [height, width]={size}, got {array.shape}"
                )
            try:
                known = binary_mask(array)
            except DatasetError as error:
                raise DatasetError(f"picture {index}: {error}") from None
            placed = known if isinstance(image, torch.Tensor) else self.transform.mask(known)
            tokens = _tokens(placed, self.grid, self.coverage)
        return Item(index, pixels, self._label(label, index), tokens, isinstance(image, torch.Tensor))

    def look_at(self, items: Sequence[Item | Broken]) -> None:
        """Warn where ready pixels of a batch look as if they were not normalised."""
        check_values([item.pixels for item in items if isinstance(item, Item) and item.ready], self.transform)

    @staticmethod
    def _unpack(row: Any) -> tuple[Any, Any, Any]:
        if isinstance(row, Mapping):
            found = [next((name for name in names if name in row), None) for names in COLUMNS.values()]
            if None in found:
                raise DatasetError(f"items must have 'image' and 'label', got {sorted(row)}")
            return row[found[0]], row[found[1]], row.get("mask")
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
                "give pictures to have them resized and normalised for the model, such as tensor.permute(1, 2, 0).numpy() of uint8"
            )
        return image, (int(image.shape[1]), int(image.shape[2]))

    def _label(self, label: Any, index: int) -> int:
        value = whole_label(label, index)
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
        return value


def in_order(prepare: Preparer, batches: Iterable[Any], *, workers: int) -> Iterator[list[Item | Broken]]:
    """Prepared batches, in order; ``workers`` threads run up to two batches ahead of the consumer.

    Ready pixels of a batch are looked at together. Threads, because decoding and resizing release Python's lock, and because nothing has to be pickled.
    """
    for items in _prepared(prepare, batches, workers):
        prepare.look_at(items)
        yield items


def _prepared(prepare: Preparer, batches: Iterable[Any], workers: int) -> Iterator[list[Item | Broken]]:
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
