"""Measuring batches in one process: prepare a batch, pass it through every model, count it by every study.

A `Job` says everything that is to be measured; a `Progress` is what has been counted so far. `run_here` counts into the
`Progress` of the run; `run_shard`, on a worker, counts into an empty one, which the run absorbs. A batch is counted by all
studies or by none: an interruption by Ctrl-C waits until the batch is complete, and a state in between is never saved.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.data.prepare import Item, Preparer, Unreadable, prepared_batches
from classspace_widgets.images import Prepared
from classspace_widgets.masks import DatasetError
from classspace_widgets.models.device import counting, to_device
from classspace_widgets.progress import quiet
from classspace_widgets.studies.lenses import LensUsed
from classspace_widgets.studies.readings import Readings, under_autocast
from classspace_widgets.trace.hooks import exclusive

if TYPE_CHECKING:
    from classspace_widgets.lens import FittedLens
    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.studies.protocol import Study
    from classspace_widgets.trace import Trace


@dataclass
class Job:
    """Everything that a process needs to measure batches; sent once to every worker."""

    spaces: dict[str, ClassSpace]
    prepare: Preparer
    studies: dict[str, Study]
    batch_size: int
    autocast: torch.dtype | None = None
    workers: int = 1
    lenses: dict[str, FittedLens] = field(default_factory=dict)
    """Fitted lenses that the models are read through, by weights; empty for the logit lens."""

    def indices(self, batch: int) -> range:
        """Positions of a batch's pictures, whatever was skipped or done before."""
        return range(batch * self.batch_size, min((batch + 1) * self.batch_size, len(self.prepare.dataset)))

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return -(-len(self.prepare.dataset) // self.batch_size)


@dataclass
class Progress:
    """What has been counted: studies by (weights, name), batches done, pictures skipped.

    ``mid_batch`` is True while a batch has been counted by some studies and not yet by others: such a state is not saved.
    """

    studies: dict[tuple[str, str], Study]
    done: np.ndarray[Any, np.dtype[np.bool_]]
    skipped: list[tuple[int, str]] = field(default_factory=list)
    mid_batch: bool = False

    @classmethod
    def empty(cls, job: Job) -> Progress:
        """A state that has counted nothing."""
        studies: dict[tuple[str, str], Study] = {}
        for weights, space in job.spaces.items():
            for name, study in job.studies.items():
                studies[weights, name] = fresh = study.fresh()
                fresh.lens_used = LensUsed.of(job.lenses[weights]) if job.lenses else None
                fresh.start(space)
        return cls(studies, np.zeros(job.n_batches, bool))

    def arrays(self) -> dict[str, Any]:
        """The states of all studies as one flat dict."""
        return {
            f"{weights}/{name}/{key}": array
            for (weights, name), study in self.studies.items()
            for key, array in study.state().items()
        }

    def load(self, progress: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Restore a checkpoint."""
        self.done = np.asarray(arrays.pop("done"), dtype=bool)
        self.skipped = [(int(i), str(why)) for i, why in progress["skipped"]]
        for (weights, name), study in self.studies.items():
            start = f"{weights}/{name}/"
            study.load_state({k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)})

    def absorb(self, part: Progress) -> None:
        """Add the counts of another process."""
        self.studies = {key: study.merge(part.studies[key]) for key, study in self.studies.items()}
        self.done |= part.done
        self.skipped = sorted(self.skipped + part.skipped)


def run_here(job: Job, state: Progress, batches: Sequence[int] | np.ndarray[Any, Any]) -> Iterator[Progress]:
    """Measure batches in this process, into ``state``, which is yielded after each."""
    prepared = prepared_batches(job.prepare, (job.indices(int(b)) for b in batches), workers=job.workers)
    for batch, items in zip(batches, prepared, strict=True):
        good = [item for item in items if isinstance(item, Item)]
        with _interrupts_delayed():
            if good:
                measure(job, state, good)
            state.skipped += [(item.index, item.reason) for item in items if isinstance(item, Unreadable)]
            state.done[batch] = True
            state.mid_batch = False
        yield state


@contextmanager
def _interrupts_delayed() -> Iterator[None]:
    """Delay Ctrl-C until a batch has been counted by all studies; the usual handler then runs.

    Only the main thread receives Ctrl-C. A process that ignores it, as one that a shell starts in the background, goes on
    ignoring it.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    caught: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda number, frame: caught.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if caught:
        previous(*caught[-1])


def run_shard(job: Job, batches: Sequence[int]) -> Progress:
    """Measure some batches into an empty state: the work of one task on a worker."""
    state = Progress.empty(job)
    with quiet():
        for _ in run_here(job, state, batches):
            pass
    return state


def measure(job: Job, state: Progress, items: Sequence[Item]) -> None:
    """Pass one batch through every model, and count it by every study."""
    pixels = torch.stack([item.pixels for item in items])
    labels = torch.tensor([item.label for item in items], device="cpu")
    masks = torch.from_numpy(np.stack([item.mask for item in items]))
    indices = np.array([item.index for item in items])
    needs = frozenset[str]().union(*(study.needs for study in job.studies.values()))
    for weights, space in job.spaces.items():
        moved, lens = to_device(pixels, space.device), job.lenses.get(weights)

        def count(
            some: torch.Tensor,
            weights: str = weights,
            space: ClassSpace = space,
            moved: torch.Tensor = moved,
            lens: FittedLens | None = lens,
        ) -> None:
            chosen = slice(int(some[0]), int(some[-1]) + 1)
            batch = (moved[chosen], labels[chosen], masks[chosen], indices[chosen])
            readings = read_batch(space, *batch, needs=needs, autocast=job.autocast, lens=lens)
            state.mid_batch = True
            with counting("a study", "run it again with a smaller batch_size"):
                for name in job.studies:
                    state.studies[weights, name].update(readings)

        # In smaller chunks if a GPU's memory does not suffice; each is counted once it has been read, and let go.
        space.in_chunks(torch.arange(len(items), device="cpu"), count)


def _check_finite(trace: Trace, indices: np.ndarray[Any, Any]) -> None:
    """Raise if a pass overflowed: no logit is larger than NaN, so NaN would count as the best rank."""
    with torch.inference_mode():
        good = torch.isfinite(trace.stream("residual", trace.n_blocks)).flatten(1).all(dim=1)
        good &= torch.isfinite(trace.output).all(dim=1)
    if not bool(good.all()):
        raise DatasetError(
            f"the pass over pictures {indices[~good.cpu().numpy()].tolist()[:5]} gave NaN or infinite values "
            f"in {trace.increments[0].dtype}; run the model in float32 or bfloat16"
        )


def read_batch(
    space: ClassSpace,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    masks: torch.Tensor | None,
    indices: np.ndarray[Any, Any],
    *,
    needs: frozenset[str] = frozenset(),
    autocast: torch.dtype | None = None,
    lens: FittedLens | None = None,
) -> Readings:
    """`Readings` of one pass over pixels ``[B, 3, height, width]``, with everything in ``needs``."""
    active: dict[tuple[int, str], torch.Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(exclusive(space.model))
        stack.enter_context(under_autocast(space.device, autocast))
        if "active" in needs:
            from classspace_widgets.memories.values import recording_active

            active = stack.enter_context(recording_active(space))
        pixels = pixels.to(space.dtype)
        trace = space.trace_pixels(Prepared(pixels))
    _check_finite(trace, indices)
    return Readings(
        trace,
        labels,
        masks,
        indices,
        pixels=pixels,
        active=active,
        mid="mid" in needs,
        autocast=autocast,
        lens=lens,
        checked=True,
    )
