"""What a batch contributes to studies: read on its device, brought to the host in one transfer, and counted there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.masks import DatasetError
from classspace_widgets.models.device import Fetch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from classspace_widgets.studies.protocol import Study
    from classspace_widgets.studies.readings import Readings

    Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Counted:
    """What a batch of B pictures contributes to a study, on the host.

    Attributes
    ----------
    labels : ndarray [B], int64
        The class that each picture is read for.
    outcome : ndarray [B], int64
        0 where the model's answer is correct, 1 where it is not.
    indices : ndarray [B], int64
        Positions in the data.
    values : dict of str to ndarray
        What the study read on the device, by its own names.
    """

    labels: Integers
    outcome: Integers
    indices: Integers
    values: dict[str, np.ndarray[Any, Any]]


class Contribution:
    """What a batch contributes to several studies, on its way to the host.

    Making it computes everything on the batch's device and does not wait for it, so that the host can count one batch while a
    GPU works on the next.
    """

    def __init__(self, batch: Readings, studies: Sequence[Study]) -> None:
        shared = {"labels": batch.labels, "outcome": batch.outcome, "overflowed": batch.overflowed}
        tensors: dict[tuple[int, str], Tensor] = {(-1, name): tensor for name, tensor in shared.items()}
        for number, study in enumerate(studies):
            tensors |= {(number, name): tensor for name, tensor in study.read(batch).items()}
        self.studies, self.indices = list(studies), batch.indices
        self._dtype = batch.trace.increments[0].dtype
        self._tensors = Fetch(tensors)

    def count(self) -> None:
        """Wait for the numbers, and add them to every study.

        Raises
        ------
        DatasetError
            If a pass overflowed, before anything is counted.
        """
        arrays = self._tensors.arrays()
        overflowed = arrays[-1, "overflowed"]
        if overflowed.any():
            raise DatasetError(
                f"the pass over pictures {self.indices[overflowed].tolist()[:5]} gave NaN or infinite values in {self._dtype}; "
                "run the model in float32 or bfloat16"
            )
        for number, study in enumerate(self.studies):
            values = {name: array for (of, name), array in arrays.items() if of == number}
            study.add(Counted(arrays[-1, "labels"], arrays[-1, "outcome"], self.indices, values))
