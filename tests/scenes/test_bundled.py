"""The bundled models: they load, they know their scenes, and damage is told."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from classspace_widgets.models import load_bundled, read_card, variants
from classspace_widgets.models.bundled import TRAINED_ON, WEIGHTS
from classspace_widgets.scenes import CLASSES, ScenesDataset
from classspace_widgets.training.augment import normalise
from classspace_widgets.training.cache import draw_all
from classspace_widgets.training.phenomena import measure

# Top-1 on 200 held-out scenes must not fall below this; the cards have the accuracy on 2,000.
LEAST = {"default": 0.96, "gap": 0.96, "contrast": 0.92}


@pytest.mark.parametrize("variant", variants(trained_on="scenes"))
def test_a_bundled_model_knows_its_scenes(variant):
    recipe = read_card(variant)["recipe"]
    data = ScenesDataset(200, 2, p_home=recipe["p_home"], distractors=tuple(recipe["distractors"]))
    scenes = [data.scene(i) for i in range(200)]
    model = load_bundled(variant)
    with torch.inference_mode():
        output = model(normalise(torch.from_numpy(np.stack([scene.image for scene in scenes]))))
    right = (output.argmax(-1) == torch.tensor([scene.label for scene in scenes])).float().mean()
    assert right >= LEAST[variant]


def test_object_tokens_of_the_default_model_name_their_object():
    places = measure(load_bundled(), draw_all(ScenesDataset(40, 4, p_home=0.5, distractors=(1, 2))))
    assert np.nanmean(places.main_on_main[:, -1]) > np.nanmean(places.main_on_context[:, -1]) + 0.02
    for block in (places.main_on_main.shape[1] // 2, -1):
        own, main = places.others_on_others[:, block], places.main_on_others[:, block]
        assert np.nanmean(own) > np.nanmean(main) + 0.15
    assert np.nanmean(places.others_on_others[:, -1]) > 0.9  # chance is about one half
    assert np.nanmean(places.main_on_main[:, -1]) > np.nanmean(places.main_on_main[:, 0]) + 0.1


@pytest.mark.parametrize("variant", variants(trained_on="scenes"))
def test_preprocessing_is_timm_s_own(variant):
    from timm.data import create_transform, resolve_data_config

    model = load_bundled(variant)
    assert not model.training
    assert model.num_classes == len(CLASSES)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    transform = create_transform(**resolve_data_config({}, model=model))
    scene = ScenesDataset(1, seed=2).scene(0)
    assert torch.allclose(transform(scene.picture), normalise(torch.from_numpy(scene.image)[None])[0], atol=1e-5)


@pytest.mark.parametrize("variant", variants())
def test_a_bundled_model_is_small_with_its_lenses(variant):
    assert sum(file.stat().st_size for file in WEIGHTS.glob(f"{variant}.*")) < 12e6


def test_what_models_were_trained_on():
    assert variants(trained_on="scenes") == ("contrast", "default", "gap")
    assert variants(trained_on="photographs") == ("photos",)
    assert set(variants()) == {name for kind in TRAINED_ON for name in variants(trained_on=kind)}
    with pytest.raises(ValueError, match=r"one of \('scenes', 'photographs'\).* got 'drawings'"):
        variants(trained_on="drawings")


def test_unknown_variants_are_refused():
    with pytest.raises(ValueError, match="no bundled model is called 'defalt'; close matches: default"):
        load_bundled("defalt")


def test_missing_weights_raise_an_error(tmp_path):
    with pytest.raises(ValueError, match="no weights are installed; reinstall"):
        load_bundled(folder=tmp_path)


def test_damaged_weights_raise_an_error(tmp_path):
    for suffix in ("json", "safetensors"):
        shutil.copy(WEIGHTS / f"default.{suffix}", tmp_path)
    place = tmp_path / "default.safetensors"
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"is damaged: expected sha256 .* reinstall it with: pip install"):
        load_bundled(folder=tmp_path)
