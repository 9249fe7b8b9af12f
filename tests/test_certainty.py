"""How sure a model is of its answer: margin, entropy, and the sentence that views show."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats

from classspace_widgets import ClassSpace
from classspace_widgets.certainty import answer_meta, margin_and_entropy
from classspace_widgets.images import sample_photo
from classspace_widgets.models.bundled import card_of, described, read_card, variants
from classspace_widgets.scenes import gallery
from classspace_widgets.snapshot import Snapshot
from classspace_widgets.snapshot.still import caption

NAMES = ["cat", "dog", "cow"]
DOUBT = {"margin": 0.2, "entropy": 1.0, "right": 0.35}


def test_margin_and_entropy_are_scipy_s():
    logits = np.random.default_rng(0).normal(0, 3, (5, 7))
    margin, entropy = margin_and_entropy(logits)
    for row, m, h in zip(logits, margin, entropy, strict=True):
        shares = scipy.special.softmax(row)
        best, second = sorted(shares)[:-3:-1]
        assert m == pytest.approx(best - second)
        assert h == pytest.approx(scipy.stats.entropy(shares))


def test_large_logits_give_no_overflow():
    margin, entropy = margin_and_entropy(np.array([1e4, 0.0, -1e4]))
    assert (margin, entropy) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("shares", "unsure"),
    [
        ([0.9, 0.05, 0.05], False),
        ([0.5, 0.35, 0.15], True),  # the second is near
        ([0.48, 0.26, 0.26], True),  # ahead by .22, but spread out: 1.06 nats
    ],
)
def test_a_small_margin_or_a_large_entropy_is_unsure(shares, unsure):
    found = answer_meta(np.log(shares), NAMES, DOUBT)
    assert found["unsure"] is unsure
    assert found["text"].startswith("Unsure: cat") is unsure
    assert (
        "named 35% of photographs of its 3 classes rightly; this picture may show none of them" in found["text"]
    ) is unsure


def test_without_thresholds_nothing_is_judged():
    found = answer_meta(np.log([0.5, 0.35, 0.15]), NAMES)
    assert found["unsure"] is None
    assert found["text"] == "cat 50%, 15 points ahead of dog; as unsure as among 2.7 equally likely classes."


def test_a_model_that_is_sure_is_told_in_few_words():
    assert answer_meta(np.array([30.0, 1.0, 0.0]), NAMES)["text"] == "cat 100%, 100 points ahead of dog."


@pytest.mark.parametrize("logits", [[1.0], [1.0, np.nan], [np.inf, 0.0]])
def test_one_class_and_broken_logits_have_no_margin(logits):
    assert answer_meta(np.array(logits), NAMES[: len(logits)]) is None


def test_the_card_counts_for_its_own_model_and_classes_alone():
    names = tuple(read_card("photos")["classes"])
    assert card_of("bundled/photos", names)["variant"] == "photos"
    assert card_of("bundled/photos", names[1:]) is None
    assert card_of("bundled/photos (random weights, seed 0)", names) is None
    assert card_of("vit_base_patch16_224", names) is None
    for variant in variants():
        words = described(read_card(variant))
        assert "ClassSpace.from_timm(" in words
        assert ("drawn scenes" in words) == (variant != "photos")


def test_it_travels_in_snapshots_and_stands_in_captions(tmp_path):
    space = ClassSpace.bundled("photos", device="cpu")
    trace = space.trace(sample_photo("cat"))
    snapshot = trace.snapshot()
    snapshot.save(tmp_path / "cat.csnap")
    loaded = Snapshot.load(tmp_path / "cat.csnap")
    assert loaded.answer == snapshot.answer
    assert loaded.meta["answer"]["unsure"] is True
    assert "unsure of its answer" in repr(loaded)
    assert ", unsure. " in caption(loaded)
    assert "(unsure)" in repr(trace)
    assert "Unsure: " in trace._repr_html_()
    margin, entropy = margin_and_entropy(trace.output[0].numpy())
    assert (margin, entropy) == pytest.approx(
        (loaded.meta["answer"]["margin"], loaded.meta["answer"]["entropy"]), abs=1e-4
    )


def test_a_model_without_thresholds_says_its_numbers_and_is_not_judged():
    trace = ClassSpace.bundled(device="cpu").trace(gallery()[0].picture)
    snapshot = trace.snapshot()
    assert snapshot.answer.startswith("fish 100%, ")
    assert snapshot.meta["answer"]["unsure"] is None
    for words in (repr(trace), trace._repr_html_(), repr(snapshot), caption(snapshot)):
        assert "nsure" not in words
