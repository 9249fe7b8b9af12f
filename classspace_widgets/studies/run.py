"""`run_study`: several studies in one streaming pass, with checkpoints and random twins, on one machine or many.

The data set is cut into numbered batches (one without a length: into shards), and a run is the set of those that have been
counted. It may therefore stop and go on anywhere, and its parts may be counted by other processes and merged. A checkpoint is that set, with every study's
counts, and the identity of the run: it is accepted only where model, data, options and versions are the same.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.data.classes import class_table
from classspace_widgets.data.prepare import Preparer
from classspace_widgets.data.sets import as_dataset
from classspace_widgets.data.shards import SHARD, as_shards
from classspace_widgets.images.placing import PixelTransform
from classspace_widgets.masks import DatasetError
from classspace_widgets.models.fingerprint import model_fingerprint
from classspace_widgets.progress import progress_bar, quiet
from classspace_widgets.space.like import on_device
from classspace_widgets.studies.checkpoint import (
    dataset_fingerprint,
    load_checkpoint,
    save_checkpoint,
    versions,
)
from classspace_widgets.studies.engine import Job, Part, Progress, run_here
from classspace_widgets.studies.execution import Execution
from classspace_widgets.studies.lenses import lenses_of
from classspace_widgets.studies.results import StudyResults
from classspace_widgets.studies.standard import chosen_studies
from classspace_widgets.studies.steps import Taken, n_pictures

if TYPE_CHECKING:
    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.studies.lenses import GivenLens
    from classspace_widgets.studies.protocol import Study

# Share of the run's time that writing checkpoints may take.
_CHECKPOINT_SHARE = 0.02
_DEFAULT = Execution()


def run_study(
    space: ClassSpace,
    dataset: Any,
    studies: Iterable[Study | str] | Study | str | None = None,
    *,
    random_twin: bool | int = False,
    class_map: Mapping[Any, Any] | None = None,
    coverage: float = 0.5,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    lens: GivenLens = None,
    execution: Execution = _DEFAULT,
    progress: bool = True,
) -> StudyResults:
    """Run studies over a data set in one streaming pass; memory does not grow with the data.

    Parameters
    ----------
    space : ClassSpace
    dataset : Any
        A folder, anything with a length and items (image, label[, mask]) by number, or a stream of such items: a torch
        ``IterableDataset``, a streaming data set of Hugging Face, or `Shards`; see `data`.
    studies : study, name, or several, optional
        By default all that need only one pass: see `standard_studies`.
    random_twin : bool or int
        Measure the same architecture with fresh weights as a control: True or 1 for one draw of weights, N for N draws
        (seeds ``seed`` to ``seed + N - 1``). Each costs as much as measuring the model itself. Draws differ, so a
        statement about random weights needs several, such as 5.
    class_map : mapping, optional
        From a class of the data set to one of the model, where the names do not match.
    coverage : float
        Share of a patch that an object must cover for its token to be a class token.
    seed : int
        Seed of the twins, and of studies that are given by name.
    checkpoint : path, optional
        File that is written during the run and on interruption, which loses at most the batch in progress.
    resume : bool
        Go on from ``checkpoint`` if it exists; the result is the same as without the interruption.
    lens : FittedLens, or callable, optional
        Read hidden states through this lens, of all classes, instead of the logit lens; values are missing where it has no
        map. A random twin needs a lens of its own, so with ``random_twin`` give what fits one:
        ``lens=lambda space: space.fit_lens("jacobian", other_pictures)`` is called with the model and with each twin.
    execution : Execution
        Batch size, device, autocast, threads, Dask client, and how many unreadable pictures are accepted.
    progress : bool
        Show a progress bar after a second.

    Returns
    -------
    StudyResults

    Raises
    ------
    LensMismatchError
        If the lens is of another model.
    ClassMismatchError
        If a class of the data set is in neither the model nor ``class_map``.
    CheckpointError
        If ``checkpoint`` belongs to another model, data set, version or set of options.
    DatasetError
        If the data cannot be read, or more than ``execution.max_skipped`` pictures cannot; or if a stream, when the run goes
        on, gives other pictures than before.
    FileExistsError
        If ``checkpoint`` exists and ``resume`` is False.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> results = run_study(ClassSpace.bundled(), ScenesDataset(8, seed=2), "accuracy", random_twin=True, progress=False)
    >>> results["accuracy"].table["weights"].tolist()
    ['trained', 'trained', 'random', 'random']
    """
    started = time.time()
    data, chosen = as_shards(dataset) or as_dataset(dataset), chosen_studies(studies, seed=seed, lens=lens is not None)
    with quiet(not progress):
        spaces = _spaces(space, random_twin, seed, execution.device)
        job = _job(spaces, data, chosen, class_map, coverage, execution)
        job.lenses = lenses_of(spaces, lens)
    identity = _identity(job, seed)
    state = Progress.empty(job)
    saver = _Saver(checkpoint, identity)
    saver.restore(state, resume=resume)
    _measure_rest(job, state, saver, execution, progress=progress)
    _check_read(job, state)
    provenance = {
        "model": space.name,
        "data": identity["data"],
        "pictures": state.pictures - len(state.skipped),
        "skipped": len(state.skipped) + len(state.failed),
        "seed": seed,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "device": str(spaces["trained"].device),
        "identity": identity,
        "lens": job.lenses["trained"].kind if job.lenses else "logit",
    }
    return _results(job, state, provenance)


def _spaces(space: ClassSpace, twins: bool | int, seed: int, device: str | None) -> dict[str, ClassSpace]:
    """The model and its random twins by name, on the device that is asked for."""
    if not isinstance(twins, (bool, int)) or twins < 0:
        raise ValueError(f"random_twin must be True, False or the number of twins, got {twins!r}")
    if device is not None and torch.device(device) != space.device:
        space = on_device(space, device)
    return {"trained": space} | {f"random {n + 1}": space.random_twin(seed + n) for n in range(int(twins))}


def _job(
    spaces: dict[str, ClassSpace],
    data: Any,
    studies: dict[str, Study],
    class_map: Mapping[Any, Any] | None,
    coverage: float,
    execution: Execution,
) -> Job:
    space = spaces["trained"]
    n_classes = int(space.lens.offset.shape[0])
    table = class_table(data, space.class_names, class_map, space.wordnet_ids)
    prepare = Preparer(data, PixelTransform.of(space.preprocessing), space.adapter.grid, n_classes, table, coverage)
    return Job(spaces, prepare, studies, execution.batch_size, execution.autocast, execution.workers)


class _Saver:
    """Writes checkpoints often, but in no more than `_CHECKPOINT_SHARE` of the run's time."""

    def __init__(self, path: str | Path | None, identity: dict[str, Any]) -> None:
        self.path = Path(path) if path is not None else None
        self.identity = identity
        self.saved, self.cost = time.monotonic(), 0.0

    def restore(self, state: Progress, *, resume: bool) -> None:
        """Load the checkpoint into a state that has counted nothing, if there is one and it may be used."""
        if self.path is None:
            if resume:
                raise ValueError("resume=True goes on from a checkpoint; pass checkpoint=<file> too")
            return
        if self.path.is_dir():
            raise IsADirectoryError(f"{self.path} is a folder; checkpoint must be a file")
        if self.path.exists():
            if not resume:
                raise FileExistsError(f"{self.path} exists; pass resume=True to go on from it, or remove it")
            state.load(*load_checkpoint(self.path, self.identity, like=state.arrays()))

    def save(self, state: Progress) -> None:
        """Write the checkpoint, unless a batch has been counted by only some of the studies."""
        if self.path is None or state.mid_batch:
            return
        start = time.monotonic()
        save_checkpoint(self.path, self.identity, {"skipped": state.skipped}, state.arrays())
        self.saved, self.cost = time.monotonic(), time.monotonic() - start

    def save_if_due(self, state: Progress) -> None:
        """Write the checkpoint if the last one is old enough."""
        if time.monotonic() - self.saved >= self.cost / _CHECKPOINT_SHARE:
            self.save(state)


def _measure_rest(job: Job, state: Progress, saver: _Saver, execution: Execution, *, progress: bool) -> None:
    """Measure all batches that are not done, here or on the workers of a client."""
    _check_skipped(state, execution.max_skipped)
    parts: Iterable[Progress | Part]
    units = np.flatnonzero(~state.done)
    if execution.client is not None:
        from classspace_widgets.studies.distributed import run_distributed

        parts = run_distributed(execution.client, job, units, state.taken)
    else:
        parts = run_here(job, state, units)
    with progress_bar(n_pictures(job.prepare.dataset), "study", "picture", show=progress) as bar:
        bar.to(state.pictures)
        try:
            for part in parts:
                if isinstance(part, Part):
                    state.absorb(part)
                bar.to(state.pictures)
                _check_skipped(state, execution.max_skipped)
                saver.save_if_due(state)
        finally:
            saver.save(state)


def _results(job: Job, state: Progress, provenance: dict[str, Any]) -> StudyResults:
    """The result of every study, with its random twins as controls."""
    results = {}
    twins = [weights for weights in job.spaces if weights != "trained"]
    for name in job.studies:
        controls = [state.studies[weights, name] for weights in twins]
        results[name] = state.studies["trained", name].result(controls, provenance)
    ends = [(unit * SHARD + state.taken.get(unit, Taken()).count, why) for unit, why in state.failed.items()]
    return StudyResults(results, tuple(sorted([*state.skipped, *ends])), provenance)


def _identity(job: Job, seed: int) -> dict[str, Any]:
    """Everything that the counts of a run depend on."""
    table = job.prepare.class_table
    return {
        "model": job.spaces["trained"].name,
        "weights": model_fingerprint(job.spaces["trained"].model),
        **dataset_fingerprint(job.prepare.dataset),
        "class_map": None if table is None else [[int(k), int(v)] for k, v in _pairs(table)],
        "studies": {name: _json_options(study.options()) for name, study in job.studies.items()},
        "batch_size": job.batch_size,
        "coverage": job.prepare.coverage,
        "autocast": str(job.autocast) if job.autocast else None,
        "random_twin": len(job.spaces) - 1,
        "lenses": {weights: fitted.identity for weights, fitted in job.lenses.items()},
        "seed": seed,
        "versions": versions(),
    }


def _pairs(table: Any) -> list[tuple[Any, Any]]:
    return sorted(table.items()) if isinstance(table, dict) else list(enumerate(table))


def _json_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}


def _check_read(job: Job, state: Progress) -> None:
    """Raise if nothing could be read, and warn of every shard that could not be read to its end."""
    if state.failed and not state.done.any():
        raise DatasetError(f"no shard could be read to its end; the first: {next(iter(state.failed.values()))}")
    for why in state.failed.values():
        warnings.warn(f"{why}; the result is without these pictures, and resume=True tries again", stacklevel=3)
    if len(state.skipped) == state.pictures:
        first = f"; the first: {state.skipped[0][1]}" if state.skipped else ""
        raise DatasetError(f"none of the {state.pictures} pictures could be read{first}")


def _check_skipped(state: Progress, limit: int) -> None:
    if len(state.skipped) > limit:
        listed = "; ".join(f"{i}: {why}" for i, why in state.skipped[:3])
        raise DatasetError(
            f"{len(state.skipped)} pictures could not be read, more than max_skipped={limit} ({listed}; ...)"
        )
