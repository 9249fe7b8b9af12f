"""Studies over data without a length: shards, tar files, streams; resuming by shard, and what may go wrong with them."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from study_helpers import Pictures
from tiny_models import tiny_vit
from torch.utils.data import IterableDataset

from classspace_widgets.data import DatasetError, Shards, tar_shards
from classspace_widgets.studies import Execution, run_study
from classspace_widgets.studies.checkpoint import CheckpointError
from classspace_widgets.studies.steps import ChangedStreamError

STUDIES = ("accuracy", "identifiability", "place_difference")
SIZES = {"a": 5, "b": 0, "c": 8}


@pytest.fixture(scope="module")
def space():
    return tiny_vit()


def go(space, data, **options):
    execution = Execution(batch_size=4, workers=options.pop("workers", 1), client=options.pop("client", None))
    return run_study(space, data, STUDIES, execution=execution, progress=False, **options)


class Source:
    """Shards of `SIZES` over the 13 random pictures; ``stop`` interrupts, ``broken`` fails, at (shard, picture)."""

    def __init__(self, stop=None, broken=None, order=1):
        self.stop, self.broken, self.order = stop, broken, order
        self.pictures = Pictures()

    def __call__(self, name):
        first = 0 if name == "a" else 5
        for n in list(range(SIZES[name]))[:: self.order]:
            if (name, n) == self.stop:
                self.stop = None
                raise KeyboardInterrupt
            if (name, n) == self.broken:
                raise OSError("connection reset")
            yield self.pictures[first + n]


def shards(**options):
    return Shards(list(SIZES), Source(**options))


def equal(first, second):
    assert first.skipped == second.skipped
    assert first.provenance["pictures"] == second.provenance["pictures"]
    for name in first:
        for key, table in first[name].tables.items():
            pd.testing.assert_frame_equal(table, second[name].tables[key])


def values(results):
    return results["identifiability"].table[["block", "stream", "tokens", "value", "count"]]


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_are_counted_as_a_data_set_with_a_length(space, workers):
    """Positions differ, and with them the draws of intervals; values and counts are the same."""
    found, expected = go(space, shards(), workers=workers), go(space, Pictures())
    pd.testing.assert_frame_equal(values(found), values(expected))
    assert found.provenance["pictures"] == 13
    assert found.provenance["identity"]["pictures"] is None


@pytest.mark.parametrize("stop", [("a", 0), ("a", 4), ("c", 3), ("c", 7)])
def test_a_run_goes_on_within_a_shard(space, tmp_path, stop):
    options = {"checkpoint": tmp_path / "run", "random_twin": True, "workers": 0}
    with pytest.raises(KeyboardInterrupt):
        go(space, shards(stop=stop), **options)
    again = shards()
    found = go(space, again, resume=True, **options)
    equal(found, go(space, shards(), random_twin=True))
    again.read.pictures.reads.clear()
    equal(go(space, again, resume=True, **options), found)
    assert not again.read.pictures.reads, "a finished run is not read again"


@pytest.mark.parametrize("other", [{"order": -1}, {"broken": ("c", 1)}])
def test_a_stream_with_other_pictures_than_before_is_refused(space, tmp_path, other):
    options = {"checkpoint": tmp_path / "run", "workers": 0}
    with pytest.raises(KeyboardInterrupt):
        go(space, shards(stop=("c", 6)), **options)
    with pytest.raises(
        ChangedStreamError, match=r"the first 4 pictures of the shard c are not those .* do not shuffle it"
    ):
        go(space, shards(**other), resume=True, **options)
    equal(go(space, shards(), resume=True, **options), go(space, shards()))


def test_a_shard_that_breaks_is_named_and_tried_again(space, tmp_path):
    path = tmp_path / "run"
    with pytest.warns(UserWarning, match="shard a, from its picture 3 on: OSError: connection reset; .* resume=True"):
        found = go(space, shards(broken=("a", 3)), checkpoint=path)
    assert found.provenance["pictures"] == 11
    assert found.skipped == ((3, "shard a, from its picture 3 on: OSError: connection reset"),)
    equal(go(space, shards(), checkpoint=path, resume=True), go(space, shards()))
    with pytest.raises(DatasetError, match="no shard could be read to its end; the first: shard x, from its picture 0"):
        go(space, Shards(["x"], Source()))


def test_unreadable_pictures_of_a_shard_are_named(space):
    data = shards()
    data.read.pictures.broken = set()

    class Bad:
        def __array__(self, *_args, **_options):
            raise OSError("truncated")

    found = go(space, Shards(["a", "c"], lambda name: [(Bad(), 0), *data.read(name)]))
    assert [i for i, _ in found.skipped] == [0, 1_000_000_000]
    assert found.skipped[1][1].startswith("shard c, picture 0: ")
    assert found.provenance["pictures"] == 13


class Stream(IterableDataset):
    classes = tuple(f"name {i}" for i in range(7))

    def __iter__(self):
        yield from (Pictures()[i] for i in range(13))


class Rows:
    """As a streaming data set of Hugging Face: mappings, in numbered shards."""

    num_shards = 3

    def __init__(self, part=range(13)):
        self.part = part

    def shard(self, num_shards, index):
        assert num_shards == 3
        return Rows(range(13)[index::3])

    def __iter__(self):
        for i in self.part:
            pixels, label, mask = Pictures()[i]
            yield {"img": pixels, "label": label, "mask": mask}


@pytest.mark.parametrize("kind", [Stream, Rows])
def test_streams_of_other_libraries(space, kind):
    options = {"class_map": {f"name {i}": i for i in range(7)}} if kind is Stream else {}
    found = go(space, kind(), **options)
    pd.testing.assert_frame_equal(values(found), values(go(space, Pictures())))
    assert len(np.unique(found["accuracy"].table["count"])) == 1


def test_what_cannot_be_read_again_is_refused(space):
    with pytest.raises(TypeError, match=r"again from its start, which a generator cannot; pass Shards\("):
        go(space, (Pictures()[i] for i in range(3)))
    with pytest.raises(DatasetError, match="the shard a is listed twice"):
        Shards(["a", "b", "a"], Source())
    with pytest.raises(DatasetError, match="at least one shard"):
        Shards([], Source())
    with pytest.raises(DatasetError, match="none of the 0 pictures could be read"):
        go(space, Shards(["b"], Source()))


def test_other_shards_have_another_checkpoint(space, tmp_path):
    go(space, shards(), checkpoint=tmp_path / "run")
    with pytest.raises(CheckpointError, match="data_fingerprint"):
        go(space, Shards(["a", "c"], Source()), checkpoint=tmp_path / "run", resume=True)


def packed(path, pictures, *, cut=0):
    with tarfile.open(path, "w") as tar:
        for i, (picture, label, mask) in enumerate(pictures):
            shown, drawn = io.BytesIO(), io.BytesIO()
            picture.save(shown, "PNG")
            Image.fromarray(mask).save(drawn, "PNG")
            about = {"cls": str(label).encode()} if i % 2 else {"json": json.dumps({"label": label}).encode()}
            for ending, data in {"png": shown.getvalue(), **about, "mask.png": drawn.getvalue()}.items():
                entry = tarfile.TarInfo(f"train/{i:05d}.{ending}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    if cut:
        path.write_bytes(path.read_bytes()[:-cut])


def test_tar_files_of_webdataset(space, tmp_path):
    generator = np.random.default_rng(0)
    pictures = [
        (Image.fromarray(generator.integers(0, 255, (40, 40, 3), np.uint8)), int(i % 7), np.eye(40, dtype=np.uint8))
        for i in range(6)
    ]
    for name, part in (("a", pictures[:4]), ("b", pictures[4:])):
        packed(tmp_path / f"{name}.tar", part)
    found = go(space, tar_shards(sorted(tmp_path.glob("*.tar"))))
    pd.testing.assert_frame_equal(values(found), values(go(space, pictures)))
    packed(tmp_path / "b.tar", pictures[4:], cut=10240 + 2000)
    with pytest.warns(UserWarning, match=r"b\.tar, from its picture \d on: ReadError"):
        go(space, tar_shards(sorted(tmp_path.glob("*.tar"))))
    with pytest.raises(DatasetError, match=r"no shard could be read.*FileNotFoundError"):
        go(space, tar_shards([tmp_path / "none.tar"]))


def test_workers_of_a_cluster_equal_one_process(space, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs Dask (extra: distributed)")
    options = {"checkpoint": tmp_path / "run", "workers": 0}
    with pytest.raises(KeyboardInterrupt):
        go(space, shards(stop=("c", 5)), **options)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as running,
        distributed.Client(running) as client,
    ):
        found = go(space, shards(), client=client, resume=True, **options)
    equal(found, go(space, shards()))
