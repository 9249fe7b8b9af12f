"""Where the model of photographs counts as unsure: the thresholds, and how they do."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from classspace_widgets import ClassSpace
from classspace_widgets.models import read_card
from classspace_widgets.training.photos.card import model_card
from classspace_widgets.training.photos.unsure import half_right, thresholds, told


def test_the_threshold_stands_where_half_are_right():
    """Right with a probability that rises evenly from 0 to 1: half of them at .5."""
    rng = np.random.default_rng(0)
    certainty = rng.random(20_000)
    assert half_right(certainty, rng.random(20_000) < certainty) == pytest.approx(0.5, abs=0.04)
    assert half_right(certainty, np.ones(20_000, bool)) == -np.inf


def test_both_thresholds_and_what_they_tell_by_hand():
    """Of ten pictures of three classes; sure and right six times, unsure and wrong four times."""
    sure, torn = [4.0, 0.0, 0.0], [0.1, 0.0, 0.0]
    logits = np.array([sure] * 6 + [torn] * 4)
    labels = np.array([0] * 6 + [1] * 4)
    found = thresholds(logits, labels)
    assert found["margin"] < 0.1
    assert found["entropy"] == pytest.approx(np.log(3), abs=0.01)
    found = {"margin": 0.5, "entropy": 9.0}
    others = told(found, np.array([sure, sure, torn, torn]), np.array([0, -1, 0, -1]))
    assert others == {
        "own": 2,
        "others": 2,
        "own_unsure": 0.5,
        "others_unsure": 0.5,
        "right": 1.0,
        "right_otherwise": 1.0,
    }


def test_noise_counts_as_unsure():
    space = ClassSpace.bundled("photos", device="cpu")
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(8)]
    unsure = [space.trace(picture).snapshot().meta["answer"]["unsure"] for picture in noise]
    assert sum(unsure) >= 7


def test_the_card_says_what_was_measured():
    card = read_card("photos")
    text = model_card(card)
    assert f"{card['unsure']['others_unsure']:.3f}" in text
    apart = card["kept_apart"]
    low, high = apart["top1_interval"]
    assert f"| kept apart | {apart['pictures']:,} | {apart['top1']:.3f} [{low:.3f}, {high:.3f}] |" in text
    assert "60 were left, the fewest allowed" in text
    assert "no token is labelled" in text
    assert card["unsure"]["right"] < 0.5 < card["unsure"]["right_otherwise"]
    assert card["unsure"]["own_unsure"] < card["unsure"]["others_unsure"]
