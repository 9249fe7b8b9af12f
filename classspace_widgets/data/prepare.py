"""From items of a data set to batches: pixels for the model, labels in its numbering, masks on its patch grid."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.data.sets import COLUMNS, whole_label
from classspace_widgets.images import read_picture
from classspace_widgets.images.placing import PixelTransform
from classspace_widgets.images.ready import check_values
from classspace_widgets.masks import DatasetError, as_array, binary_mask, tokens_inside
from classspace_widgets.pictures import shown_name

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Item:
    """One picture, prepared: pixels ``[3, height, width]``, the model's class, token mask ``[P]`` (-1: unknown)."""

    index: int
    pixels: Tensor
    label: int
    mask: np.ndarray[Any, np.dtype[np.int8]]
    preprocessed: bool = False
    """Whether the data set gave pixels that are ready for the model, instead of a picture."""


@dataclass(frozen=True)
class Unreadable:
    """A picture that could not be read, and the reason."""

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

    def __call__(self, index: int, row: Any = None) -> Item | Unreadable:
        """One item, or what a data set without numbers gave; it is `Unreadable` if the data set itself raises an error."""
        try:
            if row is None:
                row = self.dataset[index]
            image, label, mask = _unpack(row)
            if not isinstance(image, torch.Tensor):
                image, _ = read_picture(image, upright=mask is None)
            elif image.is_floating_point() and not bool(torch.isfinite(image).all()):
                raise ValueError("its pixels contain NaN or infinite values")
        except DatasetError:
            raise
        except Exception as error:  # decoders raise errors of any type; they are recorded, and the run goes on
            return Unreadable(index, shown_name(f"{type(error).__name__}: {error}"))
        pixels, size = self._pixels(image, index)
        tokens = np.full(self.grid[0] * self.grid[1], -1, np.int8)
        if mask is not None:
            array = as_array(mask)
            if array.shape != size:
                raise DatasetError(
                    f"picture {index}: its mask must have the picture's size [height, width]={size}, got {array.shape}"
                )
            try:
                known = binary_mask(array)
            except DatasetError as error:
                raise DatasetError(f"picture {index}: {error}") from None
            placed = known if isinstance(image, torch.Tensor) else self.transform.mask(known)
            tokens = tokens_inside(placed, self.grid, self.coverage)
        return Item(index, pixels, self._label(label, index), tokens, isinstance(image, torch.Tensor))

    def check_batch(self, items: Sequence[Item | Unreadable]) -> None:
        """Warn if preprocessed pixels of a batch do not look normalised."""
        check_values([item.pixels for item in items if isinstance(item, Item) and item.preprocessed], self.transform)

    def _pixels(self, image: Any, index: int) -> tuple[Tensor, tuple[int, int]]:
        if not isinstance(image, torch.Tensor):
            return self.transform.pixels(image), (image.size[1], image.size[0])
        expected = (len(self.transform.mean), *self.transform.size)
        if tuple(image.shape) != expected or not image.is_floating_point():
            raise DatasetError(
                f"picture {index}: pixels must be floats of shape {expected}, got {image.dtype} {tuple(image.shape)}; "
                "to have pictures resized and normalised for the model, give pictures, such as tensor.permute(1, 2, 0).numpy() of uint8"
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
                "if the data set numbers its classes differently, pass class_map={data set class: model class}"
            )
        return value


def _unpack(row: Any) -> tuple[Any, Any, Any]:
    if isinstance(row, Mapping):
        columns = [next((name for name in names if name in row), None) for names in COLUMNS.values()]
        if None in columns:
            raise DatasetError(f"items must have 'image' and 'label', got {sorted(row)}")
        return row[columns[0]], row[columns[1]], row.get("mask")
    if not isinstance(row, (tuple, list)) or len(row) not in (2, 3):
        raise DatasetError(f"items must be (image, label) or (image, label, mask), got {type(row).__name__}")
    return row[0], row[1], row[2] if len(row) == 3 else None


def prepared_batches(prepare: Preparer, batches: Iterable[Any], *, workers: int) -> Iterator[list[Item | Unreadable]]:
    """Prepared batches, in order; ``workers`` threads run up to two batches ahead of the consumer.

    A batch lists positions, or pairs of position and what the data gave there.

    Threads suffice, because decoding and resizing release Python's lock; and nothing has to be pickled.
    """
    for items in _prepared(prepare, batches, workers):
        prepare.check_batch(items)
        yield items


def _prepared(prepare: Preparer, batches: Iterable[Any], workers: int) -> Iterator[list[Item | Unreadable]]:
    if workers == 0:
        for batch in batches:
            yield [prepare(*_place(of)) for of in batch]
        return
    pending: deque[list[Future[Item | Unreadable]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="classspace-data") as pool:
        try:
            for batch in batches:
                pending.append([pool.submit(prepare, *_place(of)) for of in batch])
                if len(pending) > 2:
                    yield [f.result() for f in pending.popleft()]
            while pending:
                yield [f.result() for f in pending.popleft()]
        finally:
            for futures in pending:
                for future in futures:
                    future.cancel()


def _place(of: Any) -> tuple[int, Any]:
    return of if isinstance(of, tuple) else (int(of), None)
