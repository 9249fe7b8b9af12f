"""The memory atlas against slow loops over every neuron, class and patch; and the widget that shows it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image
from study_helpers import Pictures
from tiny_models import tiny_vit

from classspace_widgets.memories import memory_atlas, most_activating, value_vectors
from classspace_widgets.snapshot import Snapshot, SnapshotError
from classspace_widgets.snapshot.atlas import MemoryAtlas
from classspace_widgets.widgets import MemoryBrowser

KEYS = [(b, s) for b in (1, 2, 3) for s in ("attention", "mlp")]


@pytest.fixture(scope="module")
def space():
    return tiny_vit()


@pytest.fixture(scope="module")
def atlas(space):
    return memory_atlas(space, Pictures(9, broken=(4,)), classes=3, neurons=6, patches=4, batch_size=4, progress=False)


@pytest.fixture(scope="module")
def cosines(space):
    """Every neuron's cosine with every class, [n, C], one by one."""
    embedding = space.model.head.weight.detach()
    rows = []
    for block, sublayer in KEYS:
        for vector in value_vectors(space, block, sublayer).vectors:
            rows.append([float(torch.dot(e, vector) / e.norm() / vector.norm()) for e in embedding])
    return np.array(rows)


def test_every_neuron_has_its_classes(atlas, cosines):
    assert atlas.arrays["top"].shape == (3 * (24 + 48), 3)
    expected = np.argsort(-cosines, axis=1)[:, :3]
    assert np.array_equal(atlas.arrays["top"], expected)
    found = np.take_along_axis(cosines, expected, axis=1)
    np.testing.assert_allclose(atlas.arrays["top_cosine"].astype(float), found, atol=1e-3)


def test_every_class_has_its_neurons(atlas, cosines):
    for c in range(7):
        for which, sublayer in enumerate(("attention", "mlp")):
            own = [n for n in range(len(cosines)) if atlas.place(n)[1] == sublayer]
            best = sorted(own, key=lambda n: -cosines[n, c])[:6]
            assert atlas.arrays["values"][c, which].tolist() == best
    table = atlas.for_class(3)
    assert len(table) == 12
    assert table["cosine"].is_monotonic_decreasing
    first = table.iloc[0]
    assert atlas.neuron(first["block"], first["sublayer"], first["value"]) == int(np.argmax(cosines[:, 3]))


def test_places_and_numbers_are_inverse(atlas):
    for n in range(3 * 72):
        assert atlas.neuron(*atlas.place(n)) == n
    assert atlas.place(72 + 24 + 5) == (2, "mlp", 5)
    for bad, message in (
        ((0, "mlp", 0), "block must be in 1..3"),
        ((1, "mlp", 48), r"value must be in 0..47, got 48"),
        ((1, "head", 0), "sublayer must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            atlas.neuron(*bad)


@pytest.mark.parametrize(("block", "sublayer"), KEYS)
def test_patches_are_those_that_activate_most(space, atlas, block, sublayer):
    values = [0, 5, 23]
    whole = [i for i in range(9) if i != 4]
    table = most_activating(space, Pictures(9, broken=(4,)), block, sublayer, values, k=4, by="picture", batch_size=3)
    for value in values:
        own = table[table["value"] == value]
        n = atlas.neuron(block, sublayer, value)
        patch = [
            whole.index(p) * 16 + r * 4 + c for p, r, c in zip(own["picture"], own["row"], own["column"], strict=True)
        ]
        assert atlas.arrays["patch"][n].tolist() == patch
        np.testing.assert_allclose(atlas.arrays["coefficient"][n], own["coefficient"], rtol=1e-5, atol=1e-6)


def test_pictures_are_what_the_model_saw(space, atlas):
    about = atlas.meta["pictures"]
    assert (about["count"], about["skipped"], len(about["labels"])) == (8, 1, 8)
    ends = atlas.arrays["picture_ends"].tolist()
    files = [atlas.arrays["picture_bytes"][a:b].tobytes() for a, b in zip([0, *ends], ends, strict=False)]
    assert len(files) == 8
    assert all(Image.open(io.BytesIO(file)).size == (32, 32) for file in files)


def test_without_pictures_and_with_more_neurons_than_there_are(space):
    bare = memory_atlas(space, neurons=1000, progress=False)
    assert "patch" not in bare.arrays
    assert bare.meta["pictures"]["count"] == 0
    assert (bare.arrays["values"][0, 0] != 0xFFFFFFFF).sum() == 3 * 24
    assert len(bare.for_class(0)) == 3 * 72


def test_bad_input(space):
    with pytest.raises(ValueError, match="patches must be at least 1, got 0"):
        memory_atlas(space, Pictures(2), patches=0)
    with pytest.raises(ValueError, match="none of the 2 pictures could be read"):
        memory_atlas(space, Pictures(2, broken=(0, 1)), progress=False)
    with pytest.raises(ValueError, match="the data set is empty"):
        memory_atlas(space, Pictures(0), progress=False)


def test_an_atlas_is_saved_and_opened(atlas, tmp_path):
    again = MemoryAtlas.load(atlas.save(tmp_path / "tiny.atlas"))
    assert again.meta == atlas.meta
    assert set(again.arrays) == set(atlas.arrays)
    for name, array in atlas.arrays.items():
        assert np.array_equal(again.arrays[name], array)
        assert again.arrays[name].dtype == array.dtype
    (tmp_path / "broken").write_bytes((tmp_path / "tiny.atlas").read_bytes()[:200])
    with pytest.raises(SnapshotError, match="not a memory atlas, or it is damaged"):
        MemoryAtlas.load(tmp_path / "broken")


def test_containers_of_another_kind_are_refused(atlas):
    with pytest.raises(SnapshotError, match="expected a whole snapshot, got a container of kind 'memories'"):
        Snapshot.unpack(atlas.pack())


@pytest.fixture
def built_front_end(monkeypatch):
    monkeypatch.setattr("classspace_widgets.widgets.memories.script", lambda name: "export default {}")


def test_a_closed_browser_leaves_no_widget_behind(atlas, built_front_end):
    from ipywidgets.widgets.widget import _instances

    before = set(_instances)
    MemoryBrowser(atlas).close()
    assert set(_instances) == before


def test_the_browser_s_state(atlas, space, built_front_end):
    browser = MemoryBrowser(atlas, class_name=atlas.class_names[2])
    assert browser.class_index == 2
    browser.neuron = [3, 1, 47]
    for bad in ([0, 0, 0], [1, 2, 0], [1, 0, 24], [1, 1]):
        with pytest.raises(traitlets.TraitError, match="neuron must be"):
            browser.neuron = bad
    with pytest.raises(traitlets.TraitError, match=r"class_index must be in 0\.\.6, got 7"):
        browser.class_index = 7
    assert (browser.class_index, browser.neuron) == (2, [3, 1, 47])
    browser.close()
    with pytest.raises(TypeError, match="expected a ClassSpace or a MemoryAtlas, got int"):
        MemoryBrowser(3)
    with pytest.raises(TypeError, match="shown as it is"):
        MemoryBrowser(atlas, Pictures(2))
    own = MemoryBrowser(space, Pictures(3), patches=2, progress=False)
    assert own.atlas.arrays["patch"].shape == (216, 2)
    own.close()
