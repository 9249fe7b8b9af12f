"""How a study runs: batches, device, precision, threads and machines. None of it changes what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Execution:
    """How `run_study` passes over the data.

    Parameters
    ----------
    batch_size : int
        Pictures in a forward pass.
    device : str, optional
        By default where the model is.
    autocast : torch.dtype, optional
        Run the model under autocast, such as ``torch.bfloat16``; readings stay in float32.
    workers : int
        Threads that read pictures ahead; 0 for none. With more than 1 the data set must be thread-safe.
    client : dask.distributed.Client, optional
        Spread the pass over its workers (extra ``distributed``).
    max_skipped : int
        Unreadable pictures are listed in the result; more than this many stop the run.

    Raises
    ------
    ValueError
        For numbers that are too small.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> from classspace_widgets.studies import run_study
    >>> execution = Execution(batch_size=4, autocast=torch.bfloat16)
    >>> run_study(ClassSpace.bundled(), ScenesDataset(8, seed=2), "accuracy", execution=execution, progress=False)
    StudyResults(accuracy)
    """

    batch_size: int = 8
    device: str | None = None
    autocast: torch.dtype | None = None
    workers: int = 1
    client: Any = None
    max_skipped: int = 100

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, least in (("batch_size", 1), ("workers", 0), ("max_skipped", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
