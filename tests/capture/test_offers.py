"""What only some kernels can be asked for: classes in words, and nearest states."""

from __future__ import annotations

import numpy as np
import pytest
from capture.test_capture import ask
from convert.originals import open_clip_pair, pixels
from convert.test_words import NAMES, OpenClipTokenizer
from tiny_models import images_for, tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.nearest import state_bank


@pytest.fixture(scope="module")
def space():
    pytest.importorskip("open_clip")
    return ClassSpace.from_words(open_clip_pair(), NAMES, tokenizer=OpenClipTokenizer())


def test_a_snapshot_says_what_its_kernel_offers(space):
    plain = tiny_vit()
    pictures = images_for(plain, 3)
    assert plain.trace(pictures).snapshot().meta["offers"] == ["flow"]
    bank = state_bank(plain, pictures, progress=False)
    assert plain.trace(pictures).snapshot(bank=bank).meta["offers"] == ["neighbours", "flow"]
    assert space.trace(pixels(1)).snapshot().meta["offers"] == ["word", "flow"]


@pytest.mark.parametrize("payload", ["all", "classes", "increments"])
def test_a_typed_class_is_read_as_if_it_had_been_there_from_the_start(space, payload):
    grid = space.trace(pixels(1)).pictures[0].shape[:2]
    mask = np.zeros(grid, np.uint8)
    mask[:4] = 1
    before = space.trace(pixels(1)).snapshot(payload=payload, mask=mask, objects=["dog"], label="cat", title="mine")
    answer = ask(before, "word", words=" zebra ")
    after = answer.snapshot
    assert answer.result == {"class": 3}
    assert after.class_names == [*NAMES, "zebra"]
    assert 3 in after.meta["classes"]["kept"]
    assert after.meta["image"]["label"] == 0
    assert after.meta["objects"] == [{"class": 1, "name": "dog"}]
    assert after.meta["payload"]["mode"] == payload
    np.testing.assert_array_equal(after.arrays["mask"], mask)
    whole = space.with_words(["zebra"]).trace(pixels(1)).snapshot(payload=payload, classes=["zebra"])
    for name in ("cat", "zebra"):
        index = after.class_names.index(name)
        if index in whole.meta["classes"]["kept"]:
            np.testing.assert_allclose(after.logits(index), whole.logits(index), atol=1e-4)
            np.testing.assert_array_equal(after.ranks(index), whole.ranks(index))
    # Another class on top of it, and one that is there.
    assert ask(after, "word", words="striped horse").result == {"class": 4}
    assert ask(after, "word", words="dog").result == {"class": 1}
    assert ask(after, "word", words="dog").snapshot is None


def test_words_that_make_no_class_are_refused(space):
    snapshot = space.trace(pixels(1)).snapshot()
    with pytest.raises(ValueError, match="a class must be a text of 1 to"):
        ask(snapshot, "word", words="  ")
    with pytest.raises(ValueError, match="words must be a text of at most"):
        ask(snapshot, "word", words=["zebra"])
    plain = tiny_vit()
    with pytest.raises(ValueError, match="has no text tower to read words with"):
        ask(plain.trace(images_for(plain, 1)).snapshot(), "word", words="zebra")


def test_fitted_lenses_stand_in_the_way_of_more_classes(space):
    lens = space.fit_lens("translator", list(pixels(8)), progress=False)
    snapshot = space.trace(pixels(1)).snapshot(lenses=[lens])
    assert snapshot.meta["offers"] == ["flow"]
    with pytest.raises(ValueError, match="make the Explorer without lenses= to add classes"):
        ask(snapshot, "word", words="zebra")
