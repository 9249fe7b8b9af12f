"""A labelled data set as batches on a model's device, for what needs labels and masks but is no study."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from classspace_widgets.data.classes import class_table
from classspace_widgets.data.prepare import Item, Preparer, prepared_batches
from classspace_widgets.data.sets import as_dataset
from classspace_widgets.images.placing import PixelTransform
from classspace_widgets.models.device import to_device

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.images import Preprocessing
    from classspace_widgets.models import Adapter


class LabelledSpace(Protocol):
    """What preparing labelled pictures needs of a `ClassSpace`."""

    adapter: Adapter
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    device: torch.device
    dtype: torch.dtype

    @property
    def wordnet_ids(self) -> tuple[str, ...]:
        """WordNet ids of the classes, where they are ImageNet's."""
        ...


@dataclass(frozen=True)
class Batch:
    """B pictures on the model's device.

    Attributes
    ----------
    pixels : Tensor [B, 3, height, width]
    labels : Tensor [B], int64
        In the model's numbering.
    masks : Tensor [B, P], int8
        1 inside the object, 0 context, -1 neither; -1 throughout where a picture has no mask.
    """

    pixels: Tensor
    labels: Tensor
    masks: Tensor


class LabelledPictures:
    """A data set prepared for a model; pictures that cannot be read are left out.

    Parameters
    ----------
    space : ClassSpace
    dataset : Any
        As in `studies.run_study`.
    """

    def __init__(self, space: LabelledSpace, dataset: Any) -> None:
        self.space, self.data = space, as_dataset(dataset)
        table = class_table(self.data, space.class_names, None, space.wordnet_ids)
        self.prepare = Preparer(
            self.data, PixelTransform.of(space.preprocessing), space.adapter.grid, len(space.class_names), table
        )

    def __len__(self) -> int:
        return len(self.data)

    def batches(self, size: int, *, indices: Sequence[int] | None = None, workers: int = 1) -> Iterator[Batch]:
        """Batches of so many pictures, in order; ``indices`` are those of all pictures by default."""
        chosen = range(len(self.data)) if indices is None else indices
        parts: Iterable[Sequence[int]] = [chosen[i : i + size] for i in range(0, len(chosen), size)]
        for items in prepared_batches(self.prepare, parts, workers=workers):
            good = [item for item in items if isinstance(item, Item)]
            if good:
                yield Batch(
                    to_device(torch.stack([item.pixels for item in good]), self.space.device, self.space.dtype),
                    to_device(torch.tensor([item.label for item in good], device="cpu"), self.space.device),
                    to_device(torch.from_numpy(np.stack([item.mask for item in good])), self.space.device),
                )
