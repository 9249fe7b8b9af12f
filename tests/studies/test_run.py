"""`run_study`: one pass, skips, checkpoints, resuming, the random twin."""

from __future__ import annotations

import copy
import signal
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
import torch
from study_helpers import Pictures, readings_of
from tiny_models import FAMILIES, tiny_vit

from classspace_widgets.data import DatasetError
from classspace_widgets.models.device import DeviceLostError
from classspace_widgets.models.fingerprint import model_fingerprint
from classspace_widgets.studies import Accuracy, Execution, Identifiability, run_study, standard_studies
from classspace_widgets.studies.checkpoint import CheckpointError
from classspace_widgets.studies.standard import all_studies


@pytest.fixture(scope="module")
def space():
    return tiny_vit()


def go(space, dataset, studies=("accuracy", "identifiability", "place_difference"), **options):
    """`run_study` in batches of 4, with options of `Execution` among the others."""
    known = {field.name for field in fields(Execution)} & set(options)
    execution = Execution(**{"batch_size": 4} | {name: options.pop(name) for name in known})
    return run_study(space, dataset, studies, execution=execution, progress=False, **options)


def equal(first, second):
    assert list(first) == list(second)
    assert first.skipped == second.skipped
    for name in first:
        for key, table in first[name].tables.items():
            pd.testing.assert_frame_equal(table, second[name].tables[key])


def test_one_pass_equals_updating_by_hand(space):
    data = Pictures(9)
    results = run_study(space, data, standard_studies(), execution=Execution(batch_size=4), progress=False)
    assert sorted(data.reads) == list(range(9))
    for study in standard_studies():
        for part in ([0, 1, 2, 3], [4, 5, 6, 7], [8]):
            study.update(readings_of(space, data, part))
        for key, table in study.result().tables.items():
            pd.testing.assert_frame_equal(results[study.name].tables[key], table)


def test_all_studies_run_on_every_family():
    for name in ("gap", "layer scale, query/key norm, registers", "beit"):
        family = FAMILIES[name]()
        size = 64 if name == "beit" else 32
        results = run_study(
            family,
            Pictures(3, size=size),
            list(all_studies()),
            random_twin=True,
            execution=Execution(batch_size=2),
            progress=False,
        )
        for result in results.values():
            assert len(result.table)
            assert set(result.table["weights"]) == {"trained", "random"}
            assert np.isfinite(result.table["value"]).all()


@pytest.mark.parametrize("batch_size", [1, 5, 20])
def test_batches_do_not_matter(space, batch_size):
    equal(go(space, Pictures()), go(space, Pictures(), batch_size=batch_size))


def test_a_batch_too_large_for_the_memory_is_read_in_pieces(space, monkeypatch):
    whole = go(space, Pictures(), list(all_studies()))
    tried = []

    def forward(pixels, forward=space.model.forward):
        tried.append(len(pixels))
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(pixels)

    monkeypatch.setattr(space.model, "forward", forward)
    with pytest.warns(UserWarning, match="does not suffice for 4 images at a time; going on with 2"):
        found = go(space, Pictures(), list(all_studies()))
    equal(found, whole)
    assert 4 in tried


def test_a_device_that_is_lost_keeps_the_checkpoint(space, monkeypatch, tmp_path):
    passes = []

    def forward(pixels, forward=space.model.forward):
        passes.append(len(pixels))
        if len(passes) > 2:
            raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported elsewhere")
        return forward(pixels)

    place = tmp_path / "counts"
    with monkeypatch.context() as patch:
        patch.setattr(space.model, "forward", forward)
        with pytest.raises(DeviceLostError, match=r"no longer answers \(CUDA error: unspecified launch failure\)"):
            go(space, Pictures(), checkpoint=place)
    passes.clear()
    monkeypatch.setattr(
        space.model, "forward", lambda pixels, f=space.model.forward: passes.append(len(pixels)) or f(pixels)
    )
    found = go(space, Pictures(), checkpoint=place, resume=True)
    resumed = sum(passes)
    equal(found, go(space, Pictures()))
    assert resumed < len(Pictures())  # the batches before were counted


def test_memory_that_runs_out_within_a_study_halves_the_batch_too(space, monkeypatch):
    """Nothing has been counted then, so the batch is read again in halves."""
    whole = go(space, Pictures(), "accuracy")

    def count(self, batch, count=Accuracy.count):
        if len(batch.labels) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return count(self, batch)

    monkeypatch.setattr(Accuracy, "count", count)
    with pytest.warns(UserWarning, match="does not suffice for 4 images at a time; going on with 2"):
        equal(go(space, Pictures(), "accuracy"), whole)


def test_a_batch_is_counted_while_the_device_works_on_the_next(space, monkeypatch):
    order = []

    class Noted(Accuracy):
        def _read(self, batch):
            order.append(("read", int(batch.indices[0])))
            return super()._read(batch)

        def _add(self, batch):
            order.append(("counted", int(batch.indices[0])))
            super()._add(batch)

    go(space, Pictures(9), [Noted()])
    assert order == [("read", 0), ("read", 4), ("counted", 0), ("read", 8), ("counted", 4), ("counted", 8)]


def test_an_error_in_reading_leaves_all_batches_before_it_counted(space, monkeypatch, tmp_path):
    class Fails(Accuracy):
        armed = True

        def _read(self, batch):
            if Fails.armed and batch.indices[0] == 8:
                raise RuntimeError("no more")
            return super()._read(batch)

    with pytest.raises(RuntimeError, match="no more"):
        go(space, Pictures(), [Fails()], checkpoint=tmp_path / "run")
    Fails.armed = False
    seen = []
    monkeypatch.setattr(
        space.model, "forward", lambda pixels, f=space.model.forward: seen.append(len(pixels)) or f(pixels)
    )
    go(space, Pictures(), [Fails()], checkpoint=tmp_path / "run", resume=True)
    assert sum(seen) == len(Pictures()) - 8


def test_threads_do_not_matter(space):
    equal(go(space, Pictures(), workers=0), go(space, Pictures(), workers=3))


def test_the_twin_is_fresh_and_the_model_unchanged(space):
    before = {k: v.clone() for k, v in space.model.state_dict().items()}
    state = torch.random.get_rng_state()
    twin = space.random_twin(1)
    assert torch.equal(state, torch.random.get_rng_state())
    for name, value in space.model.state_dict().items():
        assert torch.equal(value, before[name])
        if value.ndim > 1:
            assert not torch.equal(value, twin.model.state_dict()[name]), name
    assert all(
        torch.equal(a, b) for a, b in zip(twin.model.parameters(), space.random_twin(1).model.parameters(), strict=True)
    )
    assert not torch.equal(twin.model.head.weight, space.random_twin(2).model.head.weight)
    results = go(space, Pictures(), random_twin=True, seed=1)
    alone = go(twin, Pictures(), seed=1)
    for name in results:
        random = results[name].where(weights="random").drop(columns="weights").reset_index(drop=True)
        pd.testing.assert_frame_equal(random, alone[name].table.drop(columns="weights"))


def test_several_twins_are_drawn_from_seeds_that_follow_each_other(space):
    results = go(space, Pictures(), random_twin=3, seed=4)
    for number in (1, 2, 3):
        twin = space.random_twin(4 + number - 1)
        alone = go(twin, Pictures(), seed=4)
        for name in results:
            each = results[name].tables["twins"]
            own = each[each["twin"] == number].drop(columns="twin").reset_index(drop=True)
            pd.testing.assert_frame_equal(own, alone[name].table.drop(columns="weights"))
        assert set(results["identifiability"].tables["differences"]["against"]) == {
            "itself", "twin 1", "twin 2", "twin 3",
        }  # fmt: skip
    assert results.provenance["identity"]["random_twin"] == 3
    equal(go(space, Pictures(), random_twin=1), go(space, Pictures(), random_twin=True))
    for wrong in (-1, 2.0, "2"):
        with pytest.raises(ValueError, match="random_twin must be True, False or the number of twins"):
            go(space, Pictures(), random_twin=wrong)


def test_broken_pictures_are_listed_and_limited(space):
    results = go(space, Pictures(broken=(2, 5, 12)))
    assert [i for i, _ in results.skipped] == [2, 5, 12]
    assert results.skipped[0][1] == "OSError: truncated file 2"
    assert results.provenance["pictures"] == 10
    assert results["accuracy"].table["count"].tolist() == [10, 10]
    equal(go(space, Pictures(broken=(2, 5, 12)), max_skipped=3), results)
    with pytest.raises(DatasetError, match=r"more than max_skipped=2 \(2: OSError"):
        go(space, Pictures(broken=(2, 5, 12)), max_skipped=2)
    with pytest.raises(DatasetError, match="none of the 13 pictures"):
        go(space, Pictures(broken=range(13)))


def test_the_device_of_the_run_is_named(space, monkeypatch):
    """It is that of `Execution`, not of the space that was passed."""
    moved = copy.copy(space)
    moved.device = torch.device("cpu:0")
    monkeypatch.setattr("classspace_widgets.studies.run.on_device", lambda space, device: moved)
    assert go(space, Pictures(3)).provenance["device"] == "cpu"
    assert go(space, Pictures(3), device="cpu:0").provenance["device"] == "cpu:0"


class Interrupted(Pictures):
    """Raises KeyboardInterrupt when a picture is read, once."""

    at = 9

    def __getitem__(self, index):
        if index == self.at:
            self.at = -1
            raise KeyboardInterrupt
        return super().__getitem__(index)


@pytest.mark.parametrize("at", [0, 4, 9, 12])
def test_resuming_equals_not_being_interrupted(space, tmp_path, at):
    studies = list(all_studies())
    data = Interrupted(broken=(1, 7))
    data.at = at
    path = tmp_path / "run.npz"
    options = {"studies": studies, "checkpoint": path, "random_twin": True, "workers": 0}
    with pytest.raises(KeyboardInterrupt):
        go(space, data, **options)
    data.reads.clear()
    results = go(space, data, resume=True, **options)
    equal(results, go(space, Pictures(broken=(1, 7)), studies, random_twin=True))
    assert min(data.reads) >= at // 4 * 4, "only the batch in progress is read again"
    assert not list(tmp_path.glob("*.part"))
    data.reads.clear()
    equal(go(space, data, resume=True, **options), results)
    assert not data.reads, "a finished run is not measured again"


class Hit(Accuracy):
    """Ctrl-C while the second batch is counted."""

    hits = 0

    def _add(self, batch):
        Hit.hits += 1
        if Hit.hits == 2:
            signal.raise_signal(signal.SIGINT)
        super()._add(batch)


@pytest.fixture
def hit():
    Hit.hits = 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield Hit
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_within_a_batch_waits_for_its_end(space, tmp_path, hit):
    path = tmp_path / "run.npz"
    studies = [Hit(), Identifiability()]
    with pytest.raises(KeyboardInterrupt):
        go(space, Pictures(), studies, checkpoint=path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = go(space, Pictures(), [Hit(), Identifiability()], checkpoint=path, resume=True)
    equal(again, go(space, Pictures(), [Accuracy(), Identifiability()]))


def test_a_process_that_ignores_ctrl_c_ignores_it_in_a_batch_too(space, hit):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert go(space, Pictures(), [Hit()])["accuracy"].table["count"].tolist() == [13, 13]
    assert Hit.hits == 4
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_handler_of_one_s_own_gets_the_ctrl_c_of_a_batch(space, hit):
    class Stop(Exception):
        pass

    def handler(number, _frame):
        raise Stop(number)

    signal.signal(signal.SIGINT, handler)
    with pytest.raises(Stop, match=str(int(signal.SIGINT))):
        go(space, Pictures(), [Hit()])
    assert Hit.hits == 2
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_study_that_fails_within_a_batch_leaves_the_last_whole_batch(space, tmp_path):
    class Fails(Identifiability):
        armed = True
        calls = 0

        def _add(self, batch):
            Fails.calls += 1
            if Fails.armed and Fails.calls == 3:
                raise RuntimeError("out of memory")
            super()._add(batch)

    path = tmp_path / "run.npz"
    with pytest.raises(RuntimeError, match="out of memory"):
        go(space, Pictures(), [Accuracy(), Fails()], checkpoint=path)
    Fails.armed = False
    if not path.exists():
        pytest.fail("no checkpoint was written")
    again = go(space, Pictures(), [Accuracy(), Fails()], checkpoint=path, resume=True)
    equal(again, go(space, Pictures(), [Accuracy(), Identifiability()]))


def test_a_checkpoint_of_another_run_is_refused(space, tmp_path):
    path = tmp_path / "run.npz"
    go(space, Pictures(), checkpoint=path)
    with pytest.raises(FileExistsError, match="resume=True"):
        go(space, Pictures(), checkpoint=path)
    for change, message in [
        ({"dataset": Pictures(12)}, "pictures: checkpoint 13, now 12"),
        ({"batch_size": 3}, "batch_size: checkpoint 4, now 3"),
        ({"space": space.random_twin()}, "; weights: checkpoint"),
        ({"seed": 4}, r"another run \(seed: checkpoint 0, now 4;"),
        ({"studies": "accuracy"}, r"another run \(studies: checkpoint"),
        ({"random_twin": True}, "random_twin: checkpoint"),
        ({"coverage": 0.75}, r"another run \(coverage: checkpoint 0.5, now 0.75\)"),
        ({"autocast": torch.bfloat16}, r'another run \(autocast: checkpoint null, now "torch.bfloat16"\)'),
        ({"random_twin": 2}, "random_twin: checkpoint 0, now 2"),
    ]:
        options = {"space": space, "dataset": Pictures()} | change
        with pytest.raises(CheckpointError, match=message):
            go(options.pop("space"), options.pop("dataset"), checkpoint=path, resume=True, **options)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        go(space, Pictures(), checkpoint=path, resume=True)


def _one_more(tensor, at):
    with torch.no_grad():
        tensor.view(-1)[at] += 1


def _swapped(tensor):
    with torch.no_grad():
        tensor[[2, 3]] = tensor[[3, 2]]


OTHER_WEIGHTS = {
    "all of the classifier": lambda model: _one_more(model.head.weight, slice(None)),
    "the first value": lambda model: _one_more(model.head.weight, 0),
    "the last value": lambda model: _one_more(model.head.weight, -1),
    "a value between": lambda model: _one_more(model.blocks[1].mlp.fc1.weight, 615),
    "a bias": lambda model: _one_more(model.blocks[2].attn.proj.bias, 5),
    "rows that change places": lambda model: _swapped(model.head.weight),
    "the sign of nothing": lambda model: model.blocks[0].attn.qkv.bias.data.mul_(-1),
}


@pytest.mark.parametrize("what", OTHER_WEIGHTS)
def test_a_checkpoint_of_other_weights_is_refused(tmp_path, what):
    """The same name, architecture and size: only a value tells."""
    space, path = tiny_vit(), tmp_path / "run.npz"
    with torch.no_grad():
        space.model.blocks[0].attn.qkv.bias.fill_(0.25)
    go(space, Pictures(4), "accuracy", checkpoint=path)
    go(space, Pictures(4), "accuracy", checkpoint=path, resume=True)
    before = model_fingerprint(space.model)
    OTHER_WEIGHTS[what](space.model)
    with pytest.raises(
        CheckpointError, match=r"belongs to another run \(weights: checkpoint \"\w{16}\", now \"\w{16}\"\);"
    ):
        go(space, Pictures(4), "accuracy", checkpoint=path, resume=True)
    assert model_fingerprint(space.model) != before


def test_a_fingerprint_does_not_depend_on_where_values_stand_in_memory():
    """Nor on the number of values, their precision or what kind of numbers they are."""

    class Odd(torch.nn.Module):
        def __init__(self, strided):
            super().__init__()
            values = torch.arange(12.0).reshape(3, 4)
            self.register_buffer("strided", values.T.contiguous().T if strided else values)
            self.register_buffer("none", torch.zeros(0))
            self.register_buffer("one", torch.tensor(3))
            self.register_buffer("flags", torch.tensor([True, False]))
            self.register_buffer("sixteen", torch.ones(3, dtype=torch.bfloat16))
            self.register_buffer("pairs", torch.ones(2, dtype=torch.complex64))
            self.register_buffer("sixty_four", torch.ones(2, dtype=torch.float64))

    assert model_fingerprint(Odd(True)) == model_fingerprint(Odd(False))
    for name in ("one", "flags", "sixteen", "pairs", "sixty_four"):
        other = Odd(False)
        getattr(other, name).view(-1)[-1] = 0
        if name == "flags":
            other.flags[0] = False
        assert model_fingerprint(other) != model_fingerprint(Odd(False)), name
    linear = torch.nn.Linear(2, 2)
    assert model_fingerprint(linear) != model_fingerprint(copy.deepcopy(linear).double())


class Named(Pictures):
    """Pictures with the names of their files, classes and labels."""

    def __init__(self, paths, labels=None, class_names=None, **options):
        super().__init__(len(paths), **options)
        self.paths, self.labels = list(paths), labels or [0] * len(paths)
        self.class_names = class_names or [f"class {i}" for i in range(7)]


@pytest.mark.parametrize(
    "change",
    [
        {"paths": ["a/1.png", "a/2.png", "b/4.png"]},
        {"paths": ["a/1.png", "b/3.png", "a/2.png"]},
        {"labels": [0, 0, 1]},
        {"class_names": [f"class {i}" for i in (1, 0, 2, 3, 4, 5, 6)]},
    ],
)
def test_a_checkpoint_of_other_pictures_is_refused(space, tmp_path, change):
    """As many pictures of the same kind: only names, labels and classes tell."""
    given = {"paths": ["a/1.png", "a/2.png", "b/3.png"]}
    path = tmp_path / "run.npz"
    go(space, Named(**given), "accuracy", checkpoint=path)
    go(
        space,
        Named(**{**given, "paths": [f"/elsewhere/{p}" for p in given["paths"]]}),
        "accuracy",
        checkpoint=path,
        resume=True,
    )
    with pytest.raises(CheckpointError, match="data_fingerprint: checkpoint"):
        go(space, Named(**{**given, **change}), "accuracy", checkpoint=path, resume=True)


def test_a_checkpoint_of_another_folder_is_refused(space, tmp_path):
    from PIL import Image

    for folder, names in (("one", "ab"), ("two", "ac")):
        for label in ("class 0", "class 1"):
            (tmp_path / folder / label).mkdir(parents=True)
            for name in names:
                Image.new("RGB", (32, 32), "teal").save(tmp_path / folder / label / f"{name}.png")
    path = tmp_path / "run.npz"
    options = {"checkpoint": path, "class_map": {"class 0": 0, "class 1": 1}}
    go(space, tmp_path / "one", "accuracy", **options)
    (tmp_path / "one").rename(tmp_path / "moved")
    (tmp_path / "two").rename(tmp_path / "one")
    with pytest.raises(CheckpointError, match=r"another run \(data_fingerprint: checkpoint"):
        go(space, tmp_path / "one", "accuracy", resume=True, **options)


class Wrong(Pictures):
    """One row is replaced."""

    def __init__(self, row):
        super().__init__(5)
        self.row = row

    def __getitem__(self, index):
        return self.row if index == 3 else super().__getitem__(index)


PIXELS = torch.zeros(3, 32, 32)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((PIXELS, 7), r"label must be in 0\.\.6 .*got 7"),
        ((PIXELS, -1), "got -1"),
        ((PIXELS, 0.5), "one integer"),
        ((PIXELS, 0, np.zeros((16, 16))), r"size \[height, width\]=\(32, 32\), got \(16, 16\)"),
        ((torch.zeros(3, 16, 16), 0), r"shape \(3, 32, 32\)"),
        ((torch.zeros(3, 32, 32, dtype=torch.uint8), 0), "floats"),
        ("nothing", "items must be"),
        ({"image": PIXELS}, "'image' and 'label'"),
    ],
)
def test_data_that_do_not_fit_stop_the_run(space, row, message):
    with pytest.raises(DatasetError, match=message):
        go(space, Wrong(row))


def test_bad_arguments(space):
    with pytest.raises(ValueError, match="no study named"):
        go(space, Pictures(), "accurracy")
    with pytest.raises(ValueError, match="twice"):
        go(space, Pictures(), ["accuracy", Accuracy()])
    with pytest.raises(TypeError, match="expected a Study"):
        go(space, Pictures(), [3])
    with pytest.raises(ValueError, match="studies is empty"):
        go(space, Pictures(), [])
    with pytest.raises(ValueError, match="batch_size"):
        go(space, Pictures(), batch_size=0)
    with pytest.raises(TypeError, match="a length, and items"):
        go(space, iter([]))
    with pytest.raises(ValueError, match="empty"):
        go(space, Pictures(0))
    used = Accuracy()
    go(space, Pictures(), [Accuracy()])
    used.start(space)
    with pytest.raises(ValueError, match="already been used"):
        go(space, Pictures(), [used])


def test_autocast_keeps_the_readings_close(space):
    exact, rough = go(space, Pictures()), go(space, Pictures(), autocast=torch.bfloat16)
    a, b = (r["identifiability"].where(tokens="image", outcome="all")["value"].to_numpy() for r in (exact, rough))
    assert np.abs(a - b).max() < 0.05
    assert rough.provenance["identity"]["autocast"] == "torch.bfloat16"
