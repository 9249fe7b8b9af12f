"""Measuring batches in one process: prepare a batch, pass it through every model, count it by every study.

A `Job` says everything that is to be measured; a `Progress` is what has been counted so far. `run_here` counts into the
`Progress` of the run; `run_part`, on a worker, counts into an empty one and returns a `Part`, which the run absorbs. A batch is counted by all
studies or by none: an interruption by Ctrl-C waits until the batch is complete, and a state in between is never saved.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from classspace_widgets.data.prepare import Item, Preparer, Unreadable
from classspace_widgets.images import Prepared
from classspace_widgets.models.device import to_device
from classspace_widgets.progress import quiet
from classspace_widgets.studies.counted import Contribution
from classspace_widgets.studies.lenses import LensUsed
from classspace_widgets.studies.readings import Readings, under_autocast
from classspace_widgets.studies.steps import Step, Taken, n_units, steps
from classspace_widgets.trace.hooks import exclusive

if TYPE_CHECKING:
    from classspace_widgets.lens import FittedLens
    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.studies.protocol import Study

T = TypeVar("T")


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

    @property
    def n_units(self) -> int:
        """Number of units that a run counts: batches, or shards of a data set without a length."""
        return n_units(self.prepare.dataset, self.batch_size)


@dataclass
class Progress:
    """What has been counted: studies by (weights, name), units done or begun, pictures skipped.

    ``mid_batch`` is True while a batch has been counted by some studies and not yet by others: such a state is not saved.
    ``failed`` says why shards could not be read to their ends; it is not saved, so that they are tried again.
    """

    studies: dict[tuple[str, str], Study]
    done: np.ndarray[Any, np.dtype[np.bool_]]
    taken: dict[int, Taken] = field(default_factory=dict)
    skipped: list[tuple[int, str]] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    pictures: int = 0
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
        return cls(studies, np.zeros(job.n_units, bool))

    def arrays(self) -> dict[str, Any]:
        """Units done and begun, and the states of all studies, as one flat dict."""
        counts = {
            f"{weights}/{name}/{key}": array
            for (weights, name), study in self.studies.items()
            for key, array in study.state().items()
        }
        begun = [(unit, taken.count, taken.mark) for unit, taken in sorted(self.taken.items())]
        own = {
            "done": self.done,
            "begun": np.array(begun, np.int64).reshape(-1, 3),
            "pictures": np.array([self.pictures]),
        }
        return own | counts

    def load(self, progress: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Restore a checkpoint."""
        self.done = np.asarray(arrays["done"], dtype=bool)
        self.taken = {unit: Taken(count, mark) for unit, count, mark in arrays["begun"].tolist()}
        self.pictures = int(arrays["pictures"][0])
        self.skipped = [(int(i), str(why)) for i, why in progress["skipped"]]
        for (weights, name), study in self.studies.items():
            start = f"{weights}/{name}/"
            study.load_state({k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)})

    def note(self, step: Step) -> None:
        """A step has been counted by all studies."""
        self.pictures += step.taken.count - self.taken.pop(step.unit, Taken()).count
        if not step.done:
            self.taken[step.unit] = step.taken
        self.skipped += [(item.index, item.reason) for item in step.items if isinstance(item, Unreadable)]
        self.done[step.unit] = step.done
        if step.failure:
            self.failed[step.unit] = step.failure

    def absorb(self, part: Part) -> None:
        """Add the counts of another process."""
        for key, state in part.states.items():
            self.studies[key].absorb(state)
        self.pictures += part.pictures
        self.taken = {unit: taken for unit, taken in self.taken.items() if unit not in part.done} | part.taken
        self.failed |= part.failed
        self.done[part.done] = True
        self.skipped = sorted(self.skipped + part.skipped)


@dataclass(frozen=True)
class Part:
    """What another process has counted: the states of studies, pictures, and the units that it has done or begun."""

    states: dict[tuple[str, str], dict[str, Any]]
    pictures: int
    done: list[int]
    taken: dict[int, Taken]
    skipped: list[tuple[int, str]]
    failed: dict[int, str]


def run_here(job: Job, state: Progress, units: Iterable[int]) -> Iterator[Progress]:
    """Measure units in this process, into ``state``, which is yielded after each step."""
    begun = dict(state.taken)
    all_steps = steps(job.prepare, units, begun, batch_size=job.batch_size, workers=job.workers)
    # Each step is counted while the device works on the next one.
    for step, read in one_behind((step, measure(job, state, step)) for step in all_steps):
        with _interrupts_delayed():
            for contribution in read:
                state.mid_batch = True
                contribution.count()
            state.note(step)
            state.mid_batch = False
        yield state


def one_behind(items: Iterable[T]) -> Iterator[T]:
    """The same items, each handed out when the next one is there, or when there is none because of an error."""
    waiting: list[T] = []
    try:
        for item in items:
            waiting.append(item)
            if len(waiting) == 2:
                yield waiting.pop(0)
    except (Exception, KeyboardInterrupt):
        yield from waiting
        raise
    yield from waiting


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


def run_part(job: Job, units: Mapping[int, Taken]) -> Part:
    """Measure some units, from where they were left on, into an empty state: the work of one task on a worker."""
    state = Progress.empty(job)
    state.taken = {unit: taken for unit, taken in units.items() if taken.count}
    with quiet():
        for _ in run_here(job, state, units):
            pass
    states = {key: study.state() for key, study in state.studies.items()}
    return Part(states, state.pictures, np.flatnonzero(state.done).tolist(), state.taken, state.skipped, state.failed)


def measure(job: Job, state: Progress, step: Step) -> list[Contribution]:
    """Pass one batch through every model, and read it by every study; counting it remains to be done."""
    items = [item for item in step.items if isinstance(item, Item)]
    if not items:
        return []
    pixels = torch.stack([item.pixels for item in items])
    labels = torch.tensor([item.label for item in items], device="cpu")
    masks = torch.from_numpy(np.stack([item.mask for item in items]))
    indices = np.array([item.index for item in items])
    needs = frozenset[str]().union(*(study.needs for study in job.studies.values()))
    contributions: list[Contribution] = []
    for weights, space in job.spaces.items():
        moved, lens = to_device(pixels, space.device), job.lenses.get(weights)

        def read(
            some: torch.Tensor,
            weights: str = weights,
            space: ClassSpace = space,
            moved: torch.Tensor = moved,
            lens: FittedLens | None = lens,
        ) -> Contribution:
            chosen = slice(int(some[0]), int(some[-1]) + 1)
            batch = (moved[chosen], labels[chosen], masks[chosen], indices[chosen])
            readings = read_batch(space, *batch, needs=needs, autocast=job.autocast, lens=lens)
            return Contribution(readings, [state.studies[weights, name] for name in job.studies])

        # In smaller chunks if a GPU's memory does not suffice; each is let go once it has been read.
        contributions += space.in_chunks(torch.arange(len(items), device="cpu"), read)
    return contributions


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
