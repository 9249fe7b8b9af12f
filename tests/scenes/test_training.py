"""Training: targets from masks, augmentation that moves masks along, and runs that can be interrupted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from classspace_widgets.models import load_bundled
from classspace_widgets.models.bundled import build
from classspace_widgets.scenes import ScenesDataset
from classspace_widgets.training.augment import CONTEXT, IGNORED, augment, flip, normalise, token_targets
from classspace_widgets.training.cache import draw_all
from classspace_widgets.training.phenomena import attention_cut, identifiability, interval, measure, streams, wilson
from classspace_widgets.training.recipe import RECIPES, Recipe
from classspace_widgets.training.scenes import copy_weights, losses, random_tokens, share_of_rate, train

TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "global_pool": "token"}
TINY = Recipe(timm=TIMM, vary=True, scenes=16, steps=6, batch=4, warm_up=2, keep=0.5, keep_until=0.7)


def test_token_targets_against_a_loop():
    scene = ScenesDataset(1, seed=5, distractors=2).scene(0)
    classes = torch.tensor([[label for label, _ in scene.objects] + [-1]])
    targets = token_targets(torch.from_numpy(scene.mask)[None], classes, 8)[0].reshape(12, 12)
    seen = set()
    for i in range(12):
        for j in range(12):
            patch = scene.mask[8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
            shares = [(patch == number).mean() for number in range(1, len(scene.objects) + 1)]
            if max(shares) >= 0.4:
                expected = scene.objects[int(np.argmax(shares))][0]
            else:
                expected = IGNORED if any(shares) else CONTEXT
            assert targets[i, j] == expected
            seen.add(expected)
    assert {IGNORED, CONTEXT, scene.label} <= seen


def test_augmentation_moves_masks_with_pictures():
    """Where a picture is its own mask, it still is after augmentation, but for colour and interpolated edges."""
    masks = torch.zeros(6, 64, 64, dtype=torch.uint8)
    masks[:, 20:40, 8:44] = 1
    pixels = masks[:, None].float().expand(-1, 3, -1, -1).contiguous()
    moved, numbers = augment(pixels, masks, torch.Generator().manual_seed(0))
    for picture, number in zip(moved, numbers, strict=True):
        middle = (picture[0].min() + picture[0].max()) / 2
        assert ((picture[0] > middle) == (number == 1)).float().mean() > 0.99
    assert not torch.equal(numbers[0], numbers[1])


def test_flips_move_masks_with_pictures():
    pixels, masks = torch.rand(8, 3, 4, 4), torch.randint(0, 3, (8, 4, 4))
    mirrored, numbers = flip(pixels, masks, torch.Generator().manual_seed(0))
    kinds = set()
    for i in range(8):
        flipped = not torch.equal(mirrored[i], pixels[i])
        kinds.add(flipped)
        assert torch.equal(mirrored[i], pixels[i].flip(-1) if flipped else pixels[i])
        assert torch.equal(numbers[i], masks[i].flip(-1) if flipped else masks[i])
    assert kinds == {True, False}


def test_normalise():
    images = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    assert torch.allclose(normalise(images), torch.full((1, 3, 2, 2), 2.0))


def test_losses_of_a_model_without_preference_are_log_c():
    model = build(TIMM)
    torch.nn.init.zeros_(model.head.weight)
    targets = torch.full((2, 16), CONTEXT)
    targets[0, :4] = 3
    found = losses(model, torch.randn(2, 3, 32, 32), torch.tensor([[1, -1], [2, -1]]), targets)
    for loss in found:
        assert loss.item() == pytest.approx(math.log(24), abs=1e-5)


def test_losses_read_the_model_s_own_output():
    torch.manual_seed(0)
    for changes in ({}, {"class_token": False, "global_pool": "avg"}):
        model = build({**TIMM, **changes}).eval()
        pixels, labels = torch.randn(3, 3, 32, 32), torch.tensor([[1], [2], [3]])
        own = torch.nn.functional.cross_entropy(model(pixels), labels[:, 0])
        assert losses(model, pixels, labels, torch.full((3, 16), CONTEXT))[0].item() == pytest.approx(
            own.item(), abs=1e-5
        )
        kept = torch.arange(16).expand(3, -1).flip(1)
        assert losses(model, pixels, labels, torch.full((3, 16), 5), kept)[0].item() == pytest.approx(
            own.item(), abs=1e-5
        )


def test_kept_tokens_are_a_choice_without_repeats():
    kept = random_tokens(torch.zeros(5, 16), 0.25, torch.Generator().manual_seed(0))
    assert kept.shape == (5, 4)
    assert all(len(set(row.tolist())) == 4 for row in kept)
    assert random_tokens(torch.zeros(5, 16), 1.0, torch.Generator()) is None


def test_rate_rises_then_falls_to_zero():
    assert TINY.warm_up == 2
    rates = [share_of_rate(step, TINY) for step in range(7)]
    assert rates[0] == pytest.approx(0.5)
    assert rates[1] == pytest.approx(1)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[6] == pytest.approx(0, abs=1e-9)


def test_workers_do_not_change_the_pictures(tmp_path):
    data = ScenesDataset(210, seed=1, size=16)
    one, two = draw_all(data, tmp_path / "one"), draw_all(data, tmp_path / "two", workers=2)
    again = draw_all(data, tmp_path / "one")
    for a, b, c in zip(one, two, again, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)
    assert np.array_equal(one[0][209], np.asarray(data[209][0]))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="training asks for torch 2.9 or later, and says so")
def test_an_interrupted_run_gives_the_same_model(tmp_path):
    options = {"variant": "default", "save_every": 2, "cache": tmp_path / "cache"}
    whole = train(TINY, tmp_path / "whole", **options)
    train(TINY, tmp_path / "parts", stop_at=3, **options)
    parts = train(TINY, tmp_path / "parts", **options)
    other = train(TINY, tmp_path / "other", seed=2, **options)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name
    assert not torch.equal(whole.head.weight, other.head.weight)
    loaded = load_bundled("default", folder=tmp_path / "parts")
    assert torch.equal(loaded.head.weight, whole.head.weight.half().float())


def test_a_twin_starts_from_the_trained_weights():
    trained = build(TIMM)
    twin = build({**TIMM, "class_token": False, "global_pool": "avg"})
    copy_weights(twin, trained)
    assert torch.equal(twin.fc_norm.weight, trained.norm.weight)
    assert torch.equal(twin.pos_embed, trained.pos_embed[:, 1:])
    assert torch.equal(twin.head.weight, trained.head.weight)


def test_recipes_are_of_plain_models_with_enough_tokens():
    for recipe in RECIPES.values():
        assert recipe.timm["img_size"] // recipe.timm["patch_size"] >= 8
        assert 8 <= recipe.timm["depth"] <= 12


def test_identifiability_by_hand():
    logits = torch.tensor([[[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]]])
    assert identifiability(logits, torch.tensor([0])).tolist() == [[1.0, 0.25]]
    assert identifiability(logits, torch.tensor([[1, 2]])).tolist() == [[0.75, 0.75]]


def test_cut_attention_keeps_image_tokens_apart():
    torch.manual_seed(0)
    model = build(TIMM).eval()
    pixels = torch.randn(1, 3, 32, 32)
    changed = pixels.clone()
    changed[:, :, :8, :8] += 1.0
    with torch.inference_mode(), attention_cut(model), streams(model) as collected:
        model(pixels)
        model(changed)
    before, after = collected[2], collected[5]
    assert torch.equal(before[:, 2:], after[:, 2:])
    assert not torch.allclose(before[:, 1], after[:, 1])
    assert not torch.allclose(before[:, 0], after[:, 0])
    assert not model.blocks[0].attn._forward_hooks
    assert not model.blocks[0]._forward_hooks


def test_cut_attention_equals_a_mask():
    torch.manual_seed(0)
    model = build(TIMM).eval()
    x = torch.randn(1, 17, 16)
    attention = model.blocks[0].attn
    with torch.inference_mode(), attention_cut(model):
        found = attention(x)[:, 1:]
    value = torch.nn.functional.linear(x[:, 1:], attention.qkv.weight[32:], attention.qkv.bias[32:])
    assert torch.allclose(found, attention.proj(value), atol=1e-6)


def test_measure_has_one_row_per_picture_and_stream():
    places = measure(build(TIMM).eval(), draw_all(ScenesDataset(3, seed=1, size=32, distractors=1)), batch=2)
    assert places.main_on_main.shape == (3, 3)
    assert ((places.main_on_main > 0) & (places.main_on_main <= 1)).all()
    assert places.correct.dtype == bool


def test_intervals():
    assert interval(np.array([1.0, 1.0, np.nan])) == (1.0, 1.0, 1.0)
    mean, low, high = interval(np.arange(100) / 99)
    assert low < mean < high
    assert mean == pytest.approx(0.5)
    assert wilson(97, 100) == pytest.approx((0.97, 0.9155, 0.9897), abs=1e-3)
