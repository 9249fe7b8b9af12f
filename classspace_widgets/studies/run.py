"""`run_study`: several studies in one streaming pass, with checkpoints, a random twin and, if wanted, many machines."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.data.classes import class_table
from classspace_widgets.data.prepare import Preparer
from classspace_widgets.data.sets import as_dataset
from classspace_widgets.masks import DatasetError
from classspace_widgets.progress import progress_bar, quiet
from classspace_widgets.space.pixels import PixelTransform
from classspace_widgets.studies.checkpoint import (
    dataset_fingerprint,
    load_checkpoint,
    model_fingerprint,
    save_checkpoint,
    versions,
)
from classspace_widgets.studies.engine import Job, Progress, run_here
from classspace_widgets.studies.results import StudyResults
from classspace_widgets.studies.twin import on_device
from classspace_widgets.studies.twin import random_twin as make_twin

if TYPE_CHECKING:
    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.studies.protocol import Study

# Share of the run's time that writing checkpoints may take.
_CHECKPOINT_SHARE = 0.02


def run_study(
    space: ClassSpace,
    dataset: Any,
    studies: Iterable[Study | str] | Study | str | None = None,
    *,
    batch_size: int = 8,
    device: str | None = None,
    random_twin: bool | int = False,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    max_skipped: int = 100,
    class_map: Mapping[Any, Any] | None = None,
    coverage: float = 0.5,
    autocast: torch.dtype | None = None,
    workers: int = 1,
    client: Any = None,
    progress: bool = True,
) -> StudyResults:
    """Run studies over a data set in one streaming pass; memory does not grow with the data.

    Parameters
    ----------
    space : ClassSpace
    dataset : Any
        A folder, or anything with a length and numbered items (image, label[, mask]); see `data`.
    studies : study, name, or several, optional
        By default all that need one pass: see `standard_studies`.
    batch_size : int
    device : str, optional
        By default where the model is.
    random_twin : bool or int
        Measure the same architecture with fresh weights beside it: True or 1 for one draw of weights, N for N draws (seeds
        ``seed`` to ``seed + N - 1``).  Each costs as much as measuring the model itself.  One draw does not tell how draws
        differ: a statement about random weights needs several, such as 5.
    checkpoint : path, optional
        Written during the run and on interruption, which loses at most the batch under way.
    resume : bool
        Go on from ``checkpoint`` if it is there; the result is the same as without the interruption.
    seed : int
        Of the twin, and of studies that are given by name.
    max_skipped : int
        Unreadable pictures are listed in the result; more than this many stop the run.
    class_map : mapping, optional
        Data set class to model class, where names do not tell.
    coverage : float
        Share of a patch that an object must cover for its token to be a class token.
    autocast : torch.dtype, optional
        Run the model under autocast, such as ``torch.bfloat16``; readings stay in float32.
    workers : int
        Threads that read pictures ahead; 0 for none. With more than 1 the data set must be thread-safe.
    client : dask.distributed.Client, optional
        Spread the pass over its workers (extra ``distributed``).
    progress : bool
        Show a progress bar after a second.

    Returns
    -------
    StudyResults

    Raises
    ------
    ClassMismatchError
        Where a class of the data set is in neither the model nor ``class_map``.
    CheckpointError
        If ``checkpoint`` belongs to another model, data set, version or set of options.
    DatasetError
        If the data cannot be read, or more than ``max_skipped`` pictures cannot.
    FileExistsError
        If ``checkpoint`` is there and ``resume`` was not asked for.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> results = run_study(ClassSpace.bundled(), ScenesDataset(8, seed=2), "accuracy", random_twin=True, progress=False)
    >>> results["accuracy"].table["weights"].tolist()
    ['trained', 'trained', 'random', 'random']
    """
    began = time.time()
    with quiet(not progress):
        job = _job(space, dataset, studies, locals())
    identity = _identity(job, seed)
    state = Progress.empty(job)
    path = Path(checkpoint) if checkpoint is not None else None
    if path is None and resume:
        raise ValueError("resume=True goes on from a checkpoint; pass checkpoint=<file> too")
    if path is not None and path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name the file that the checkpoint is written to")
    if path is not None and path.exists():
        if not resume:
            raise FileExistsError(f"{path} exists; pass resume=True to go on from it, or remove it")
        state.load(*load_checkpoint(path, identity, like={"done": state.done, **state.arrays()}))
    _check_skipped(state, max_skipped)
    parts: Iterable[Progress]
    if client is not None:
        from classspace_widgets.studies.distributed import run_distributed

        parts = run_distributed(client, job, np.flatnonzero(~state.done))
    else:
        parts = run_here(job, state, np.flatnonzero(~state.done))
    saved, cost = time.monotonic(), 0.0

    def save() -> None:
        if path is not None and not state.torn:
            save_checkpoint(path, identity, {"skipped": state.skipped}, {"done": state.done, **state.arrays()})

    with progress_bar(len(job.prepare.dataset), "study", "picture", show=progress) as bar:
        bar.to(_pictures(job, state.done))
        try:
            for part in parts:
                if part is not state:
                    state.absorb(part)
                bar.to(_pictures(job, state.done))
                _check_skipped(state, max_skipped)
                if time.monotonic() - saved >= cost / _CHECKPOINT_SHARE:
                    start = time.monotonic()
                    save()
                    saved, cost = time.monotonic(), time.monotonic() - start
        finally:
            save()
    measured = len(job.prepare.dataset) - len(state.skipped)
    if measured == 0:
        raise DatasetError(
            f"none of the {len(job.prepare.dataset)} pictures could be read; the first: {state.skipped[0][1]}"
        )
    provenance = {
        "model": space.name,
        "data": identity["data"],
        "pictures": measured,
        "skipped": len(state.skipped),
        "seed": seed,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.time() - began, 1),
        "device": str(space.device),
        "identity": identity,
    }
    results = {}
    twins = [weights for weights in job.spaces if weights != "trained"]
    for name in job.studies:
        controls = [state.studies[weights, name] for weights in twins]
        results[name] = state.studies["trained", name].result(controls, provenance)
    return StudyResults(results, tuple(state.skipped), provenance)


def _job(space: ClassSpace, dataset: Any, studies: Any, options: dict[str, Any]) -> Job:
    from classspace_widgets.studies.standard import chosen_studies

    twins = options["random_twin"]
    if not isinstance(twins, (bool, int)) or twins < 0:
        raise ValueError(f"random_twin must be True, False or how many twins, got {twins!r}")
    if options["batch_size"] < 1 or options["workers"] < 0:
        raise ValueError(
            f"expected batch_size >= 1 and workers >= 0, got {options['batch_size']}, {options['workers']}"
        )
    if options["device"] is not None and torch.device(options["device"]) != space.device:
        space = on_device(space, options["device"])
    data = as_dataset(dataset)
    spaces = {"trained": space}
    for number in range(int(options["random_twin"])):
        spaces[f"random {number + 1}"] = make_twin(space, seed=options["seed"] + number)
    n_classes = int(space.lens.offset.shape[0])
    table = class_table(data, space.class_names, options["class_map"], space.wordnet_ids)
    prepare = Preparer(data, PixelTransform.of(space), space.adapter.grid, n_classes, table, options["coverage"])
    chosen = chosen_studies(studies, seed=options["seed"])
    return Job(spaces, prepare, chosen, options["batch_size"], options["autocast"], options["workers"])


def _identity(job: Job, seed: int) -> dict[str, Any]:
    table = job.prepare.class_table
    return {
        "model": job.spaces["trained"].name,
        "weights": model_fingerprint(job.spaces["trained"].model),
        **dataset_fingerprint(job.prepare.dataset),
        "class_map": None if table is None else [[int(k), int(v)] for k, v in _pairs(table)],
        "studies": {name: _plain(study.options()) for name, study in job.studies.items()},
        "batch_size": job.batch_size,
        "coverage": job.prepare.coverage,
        "autocast": str(job.autocast) if job.autocast else None,
        "random_twin": len(job.spaces) - 1,
        "seed": seed,
        "versions": versions(),
    }


def _pairs(table: Any) -> list[tuple[Any, Any]]:
    return sorted(table.items()) if isinstance(table, dict) else list(enumerate(table))


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}


def _pictures(job: Job, done: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
    return sum(len(job.indices(int(b))) for b in np.flatnonzero(done))


def _check_skipped(state: Progress, limit: int) -> None:
    if len(state.skipped) > limit:
        listed = "; ".join(f"{i}: {why}" for i, why in state.skipped[:3])
        raise DatasetError(
            f"{len(state.skipped)} pictures could not be read, more than max_skipped={limit} ({listed}; ...)"
        )
