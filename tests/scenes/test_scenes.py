"""Scenes: the same bytes again, masks that are what was drawn, and errors that help."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from classspace_widgets.scenes import CLASSES, ScenesDataset, contact_sheet, gallery, make_scene
from classspace_widgets.scenes.contexts import CONTEXTS
from classspace_widgets.scenes.generator import draw
from classspace_widgets.scenes.shapes import HOMES


def grown(mask: np.ndarray) -> np.ndarray:
    """The mask and the pixels next to it: where antialiasing reaches."""
    wide = np.pad(mask, 1)
    rows, columns = mask.shape
    return np.any([wide[i : i + rows, j : j + columns] for i in range(3) for j in range(3)], axis=0)


def without(scene, gone: int):
    """The scene without one of its objects."""
    objects = tuple(o for i, o in enumerate(scene.layout.objects) if i != gone)
    depth = tuple(i - (i > gone) for i in scene.layout.depth if i != gone)
    return draw(replace(scene.layout, objects=objects, depth=depth), scene.image.shape[0])


def test_there_is_enough_to_see():
    assert len(set(CLASSES)) == len(CLASSES) >= 20
    assert len(set(CONTEXTS)) == len(CONTEXTS) >= 8
    assert set(HOMES) == set(CONTEXTS)


def test_the_same_bytes_on_every_machine():
    digest = hashlib.sha256()
    for seed in range(6):
        scene = make_scene(seed)
        digest.update(scene.image.tobytes() + scene.mask.tobytes())
    assert digest.hexdigest() == "c6ce892c44a621a3eb517195ff5e8a3275da902c6fc2cdcd38db9a8d9cc5f4f7"


def test_same_seed_same_scene_other_seed_other_scene():
    a, b, c = make_scene(3), make_scene(np.random.default_rng(3)), make_scene(4)
    assert a.layout == b.layout
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.mask, b.mask)
    assert not np.array_equal(a.image, c.image)


@pytest.mark.parametrize("label", CLASSES)
def test_every_class_is_drawn_in_every_kind_of_place(label):
    images = [make_scene(seed, label=label, size=48, distractors=0).image for seed in range(3)]
    assert len({image.tobytes() for image in images}) == 3
    scene = make_scene(0, label=label, distractors=0)
    assert scene.class_name == label
    assert 0.04 < (scene.mask == 1).mean() < 0.6


@pytest.mark.parametrize("seed", range(12))
def test_masks_are_what_was_drawn(seed):
    """Taking an object away changes pixels inside its mask and its antialiased edge, and all of its mask."""
    scene = make_scene(seed, distractors=2)
    for gone in range(1, len(scene.layout.objects)):
        less = without(scene, gone)
        changed = (scene.image != less.image).any(axis=-1)
        mask = scene.objects[gone][1]
        assert not (changed & ~grown(mask)).any()
        assert changed[mask].mean() > 0.97  # an object may share a colour with what it hides


def test_occlusion_is_in_the_masks():
    scene = next(s for s in (make_scene(i, distractors=2) for i in range(200)) if _overlap(s))
    for number, (_, mask) in enumerate(scene.objects, start=1):
        assert np.array_equal(mask, scene.mask == number)
    assert sum(mask.sum() for _, mask in scene.objects) == (scene.mask > 0).sum()


def _overlap(scene) -> bool:
    alone = [draw(replace(scene.layout, objects=(o,), depth=(0,)), 96).mask > 0 for o in scene.layout.objects]
    return len(alone) > 1 and bool((alone[0] & alone[1]).any())


def test_patch_mask_is_the_share_of_every_patch():
    scene = make_scene(1, distractors=2)
    shares = scene.patch_mask(12)
    assert shares.shape == (len(scene.objects), 12, 12)
    for share, (_, mask) in zip(shares, scene.objects, strict=True):
        assert share[4, 7] == pytest.approx(mask[32:40, 56:64].mean())
        assert share.sum() * 64 == pytest.approx(mask.sum())
    assert scene.patch_mask((6, 12)).shape[1:] == (6, 12)
    with pytest.raises(ValueError, match="must divide the picture's 96x96 pixels, got 7x7"):
        scene.patch_mask(7)


def test_any_resolution_shows_the_same_scene():
    small, large = make_scene(5), make_scene(5, size=192)
    assert small.layout == large.layout
    assert np.array_equal(small.redraw(192).image, large.image)
    halved = large.image.reshape(96, 2, 96, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - small.image).mean() < 6
    assert (large.mask[::2, ::2] == small.mask).mean() > 0.97


def test_p_home_is_a_dial():
    def share(p: float) -> float:
        data = ScenesDataset(60, 11, size=16, p_home=p, distractors=0)
        return float(np.mean([data.scene(i).at_home for i in range(60)]))

    assert share(0.0) == 0
    assert share(1.0) == 1
    assert 0.3 < share(0.5) < 0.7


def test_distractors_are_smaller_and_of_other_classes():
    for seed in range(20):
        scene = make_scene(seed, size=32, distractors=2)
        labels = [label for label, _ in scene.objects]
        assert labels[0] == scene.label
        assert len(set(labels)) == len(labels)
        assert all(o.radius < scene.layout.objects[0].radius for o in scene.layout.objects[1:])


def test_data_set_protocol():
    data = ScenesDataset(5, seed=9)
    picture, label, mask = data[4]
    assert len(data) == 5
    assert picture.size == (96, 96)
    assert picture.mode == "RGB"
    assert isinstance(label, int)
    assert mask.dtype == np.uint8
    assert (mask == 1).any()
    assert data[-1][1] == label
    assert len(list(data)) == 5
    assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(data))[4][0]), np.asarray(picture))
    assert not np.array_equal(np.asarray(ScenesDataset(5, seed=10)[4][0]), np.asarray(picture))
    with pytest.raises(IndexError, match=r"0\.\.4, got 5"):
        data[5]


def test_a_loader_takes_it():
    from torch.utils.data import DataLoader

    loader = DataLoader(ScenesDataset(4, seed=1, size=32), batch_size=2, collate_fn=list)
    assert [len(batch) for batch in loader] == [2, 2]


def test_gallery():
    scenes = gallery()
    assert len(scenes) >= 6
    assert any(len(scene.objects) > 1 for scene in scenes)
    assert any(not scene.at_home for scene in scenes)
    assert any(scene.at_home for scene in scenes)
    assert {scene.image.shape for scene in scenes} == {(96, 96, 3)}
    assert gallery(size=64)[0].layout == scenes[0].layout


def test_contact_sheet_shows_every_class_twice():
    assert contact_sheet(size=16, columns=6).size == (96, 128)
    with pytest.raises(ValueError, match="columns must be 1 or more, got 0"):
        contact_sheet(columns=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "fsh"}, "no class is called 'fsh'; close matches: fish"),
        ({"label": 24}, r"class must be in 0\.\.23, got 24"),
        ({"context": "nigth sky"}, "there is no context 'nigth sky'; close matches: night sky"),
        ({"size": 8}, r"in 16\.\.1024, got 8"),
        ({"size": 96.5}, r"whole number of pixels in 16\.\.1024, got 96\.5"),
        ({"size": 4096}, "got 4096"),
        ({"p_home": 1.5}, r"probability in \[0, 1\], got 1\.5"),
        ({"distractors": -1}, "got -1"),
        ({"distractors": (3, 1)}, r"got \(3, 1\)"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_scene(0, **options)


def test_drawing_needs_no_torch():
    code = (
        "import sys; from classspace_widgets.scenes import gallery; gallery(size=16); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
