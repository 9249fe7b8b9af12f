"""The same pass over many workers with Dask: tasks are sent out, their counts come back and are merged."""

from __future__ import annotations

import importlib
import io
import pickle
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.space.like import on_device
from classspace_widgets.studies.engine import Job, Part, run_part
from classspace_widgets.studies.steps import Taken

if TYPE_CHECKING:
    from numpy.typing import NDArray


def run_distributed(
    client: Any, job: Job, units: NDArray[np.int64], taken: Mapping[int, Taken], *, tasks_per_worker: int = 8
) -> Iterator[Part]:
    """Measure units on a Dask client's workers; yields their counts as they finish.

    Parameters
    ----------
    client : dask.distributed.Client
    job : Job
    units : ndarray [n], int64
        Numbers of the batches, or shards of the data, that are not done.
    taken : mapping of int to Taken
        How far those that have begun are.
    tasks_per_worker : int
        With more tasks the load is more even, and less is lost when a worker dies. With 8, the last worker idles for
        at most an eighth of the run.

    Notes
    -----
    The job travels as bytes inside the task graph, so the scheduler can send it again to the worker that takes over a lost
    worker's tasks. Every worker measures on its own device: CUDA where it has one and the model was on CUDA.
    """
    try:
        from distributed import as_completed
    except ImportError as error:
        raise ImportError(
            'Execution(client=...) needs Dask; install it with: pip install "classspace-widgets[distributed]"'
        ) from error
    if len(units) == 0:
        return
    workers = max(1, len(client.scheduler_info()["workers"]))
    tasks = np.array_split(units, min(len(units), workers * tasks_per_worker))
    with warnings.catch_warnings():
        # Dask warns about large graphs, but lost tasks can only be repeated because the model is in the graph.
        warnings.filterwarnings("ignore", message="Sending large graph", category=UserWarning)
        sent = client.submit(bytes, _pack(job), pure=False)
        parts = [{int(unit): taken.get(int(unit), Taken()) for unit in task} for task in tasks]
        futures = [client.submit(_work, sent, part, pure=False, retries=3) for part in parts]
    try:
        for future in as_completed(futures):
            yield future.result()
            future.release()
    finally:
        client.cancel(futures)


def _pack(job: Job) -> bytes:
    """A job as bytes, with models on the CPU, so that workers without CUDA can read it."""
    device = next(iter(job.spaces.values())).device
    portable = {name: space if device.type == "cpu" else on_device(space, "cpu") for name, space in job.spaces.items()}
    content = (portable, device.type, job.prepare, job.studies, job.batch_size, job.autocast, job.workers)
    buffer = io.BytesIO()
    try:
        # Dask's own pickler, which also takes data sets that were defined in a notebook.
        buffer.write(importlib.import_module("cloudpickle").dumps(content))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"the data set or model cannot be sent to workers: {error}") from error
    return buffer.getvalue()


# The last job that this worker unpacked, by the hash of its bytes: tasks share one model.
_JOBS: dict[int, Job] = {}
# A worker may have several threads, but a model takes the hooks of one pass at a time; torch has its own threads.
_ONE_PASS = threading.Lock()


def _work(packed: bytes, units: dict[int, Taken]) -> Part:
    key = hash(packed)
    with _ONE_PASS:
        if key not in _JOBS:
            spaces, kind, prepare, studies, batch_size, autocast, workers = pickle.loads(packed)
            device = "cuda" if kind == "cuda" and torch.cuda.is_available() else "cpu"
            spaces = {name: space if device == "cpu" else on_device(space, device) for name, space in spaces.items()}
            _JOBS.clear()
            _JOBS[key] = Job(spaces, prepare, studies, batch_size, autocast, workers)
        return run_part(_JOBS[key], units)
