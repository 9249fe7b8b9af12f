"""The pass over Dask workers: equal to one process, and surviving the loss of a worker."""

from __future__ import annotations

import os
import signal
import time

import pandas as pd
import pytest
from study_helpers import Pictures
from tiny_models import tiny_vit

from classspace_widgets.data import DatasetError
from classspace_widgets.studies import Execution, run_study

distributed = pytest.importorskip("distributed")

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

STUDIES = ("accuracy", "identifiability", "place_difference", "class_value_agreement", "key_value_agreement")


class Deadly(Pictures):
    """Kills the process that reads a picture, once, as a machine that fails would."""

    def __init__(self, count, flag, at):
        super().__init__(count)
        self.flag, self.at = flag, at

    def __getitem__(self, index):
        if index == self.at and not os.path.exists(self.flag):
            with open(self.flag, "w") as file:
                file.write(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.005)
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def client():
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "memory_limit": 0}
    with distributed.LocalCluster(processes=True, **options) as cluster, distributed.Client(cluster) as client:
        # Workers import the test's data set from here.
        here = [p for p in os.sys.path if p.endswith("tests")]
        client.run(lambda: os.sys.path.extend(here))
        yield client


def equal(first, second):
    assert first.skipped == second.skipped
    for name in first:
        for key, table in first[name].tables.items():
            pd.testing.assert_frame_equal(table, second[name].tables[key])


def test_many_processes_equal_one(client):
    space, data = tiny_vit(), Pictures(26, broken=(3, 20))
    options = {"random_twin": True, "progress": False}
    here, spread = (
        run_study(space, data, STUDIES, execution=Execution(batch_size=3, client=c), **options) for c in (None, client)
    )
    equal(spread, here)


def test_a_killed_worker_does_not_change_the_result(client, tmp_path):
    flag = str(tmp_path / "killed")
    space = tiny_vit()
    options = {"progress": False}
    results = run_study(
        space, Deadly(24, flag, 13), STUDIES, execution=Execution(batch_size=2, client=client), **options
    )
    assert os.path.exists(flag), "no worker was killed"
    equal(results, run_study(space, Pictures(24), STUDIES, execution=Execution(batch_size=2), **options))


def test_a_checkpoint_goes_from_many_processes_to_one(client, tmp_path):
    space, path = tiny_vit(), tmp_path / "run.npz"
    options = {"progress": False, "checkpoint": path}
    first = run_study(space, Pictures(12), STUDIES, execution=Execution(batch_size=2, client=client), **options)
    equal(first, run_study(space, Pictures(12), STUDIES, resume=True, execution=Execution(batch_size=2), **options))


def test_errors_come_back_in_words(client):
    with pytest.raises(DatasetError, match="label must be"):
        run_study(tiny_vit(num_classes=3), Pictures(12), "accuracy", execution=Execution(client=client), progress=False)
