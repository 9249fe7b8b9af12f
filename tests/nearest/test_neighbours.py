"""Nearest states of other pictures, against a search by scikit-learn and by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from tiny_models import tiny_vit

from classspace_widgets.nearest import StateBank, neighbours, state_bank
from classspace_widgets.snapshot.container import unpack


def pictures_of(count, seed):
    generator = np.random.default_rng(seed)
    return [Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module")
def case():
    space = tiny_vit(reg_tokens=1)
    pictures = pictures_of(6, 1)
    bank = state_bank(space, [(p, n % 3) for n, p in enumerate(pictures)], batch_size=4)
    return space, pictures, bank, space.trace(pictures_of(2, 2))


@pytest.mark.parametrize("block", [0, 2, 3])
def test_the_nearest_are_those_that_scikit_learn_finds(case, block):
    space, pictures, bank, trace = case
    states = space.trace(pictures).stream("residual", block)[:, 2:].flatten(0, 1).numpy()
    search = NearestNeighbors(metric="cosine", algorithm="brute").fit(states)
    distances, found = search.kneighbors(trace.stream("residual", block)[1, 5:6].numpy(), n_neighbors=20)
    mine = neighbours(trace, 5, bank, block=block, k=20, per_picture=16, image=1)
    np.testing.assert_allclose(mine.cosines, 1 - distances[0], atol=2e-3)
    # States are kept in half precision: those that are as near may change places.
    agree = (mine.pictures * 16 + mine.tokens - 2 == found[0]).mean()
    assert agree > 0.8
    assert (np.diff(mine.cosines) <= 0).all()


def test_what_all_states_share_can_be_subtracted(case):
    space, pictures, bank, trace = case
    states = space.trace(pictures).stream("residual", 2)[:, 2:].flatten(0, 1)
    mean = states.mean(0)
    own = trace.stream("residual", 2)[0, 4]
    expected = torch.nn.functional.cosine_similarity(states - mean, (own - mean)[None])
    found = neighbours(trace, 4, bank, block=2, k=96, per_picture=16, centred=True)
    assert len(found) == 96
    np.testing.assert_allclose(found.cosines, expected.sort(descending=True).values.numpy(), atol=2e-3)


def test_a_picture_gives_one_patch_unless_asked(case):
    _, _, bank, trace = case
    found = neighbours(trace, 4, bank, k=8)
    assert sorted(found.pictures.tolist()) == list(range(6))
    several = neighbours(trace, 4, bank, k=96, per_picture=2)
    assert (np.bincount(several.pictures, minlength=6) == 2).all()
    every = neighbours(trace, 4, bank, k=96, per_picture=16)
    for picture in range(6):
        best = every.cosines[every.pictures == picture][:2]
        np.testing.assert_array_equal(several.cosines[several.pictures == picture], best)


def test_the_traced_picture_itself_is_left_out(case):
    space, pictures, bank, _ = case
    found = neighbours(space.trace(pictures[3]), 4, bank, k=96, per_picture=16)
    assert 3 not in found.pictures
    assert len(found) == 5 * 16


def test_what_is_said_of_each(case):
    space, _, bank, trace = case
    found = neighbours(trace, 4, bank, block=1, k=3)
    table = found.table
    assert list(table.columns) == ["cosine", "picture", "name", "row", "column", "label", "answer"]
    first = table.iloc[0]
    assert first["label"] == space.class_names[first["picture"] % 3]
    assert 2 + 4 * first["row"] + first["column"] == found.tokens[0]
    for file in found.thumbnails():
        assert Image.open(io.BytesIO(file)).size == (32, 32)
    text = found._repr_html_()
    assert text.count("<img") == 3
    assert "Neighbours(3 patches like token 4 at block 1" in text


def test_memory_is_bounded_by_keeping_fewer_patches_of_each_picture(case):
    space, pictures, bank, _ = case
    whole = bank.states.nbytes
    small = state_bank(space, pictures, max_bytes=whole // 3)
    assert small.states.nbytes <= whole // 3
    assert (np.bincount(small.pictures) == 5).all()
    for n, (picture, token) in enumerate(zip(small.pictures, small.tokens, strict=True)):
        there = (bank.pictures == picture) & (bank.tokens == token)
        np.testing.assert_allclose(small.states[:, n], bank.states[:, there][:, 0], atol=2e-3)
    again = state_bank(space, pictures, max_bytes=whole // 3, batch_size=1)
    np.testing.assert_array_equal(again.tokens, small.tokens)
    assert (small.labels == -1).all()
    with pytest.raises(
        ValueError, match=r"one patch of each of 6 pictures at 4 blocks takes 1,152 bytes, more than max_bytes=99"
    ):
        state_bank(space, pictures, max_bytes=99)


def test_a_bank_is_written_and_read(case, tmp_path):
    space, _, bank, trace = case
    bank.save(tmp_path / "one.bank")
    loaded = StateBank.load(tmp_path / "one.bank")
    assert repr(loaded) == repr(bank)
    for name in ("states", "lengths", "tokens", "labels", "picture_bytes", "marks"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(bank, name))
    before, after = (neighbours(trace, 4, one, k=5).table for one in (bank, loaded))
    assert before.equals(after)
    with pytest.raises(FileNotFoundError, match="no state bank at"):
        StateBank.load(tmp_path / "two.bank")
    data = (tmp_path / "one.bank").read_bytes()
    (tmp_path / "cut.bank").write_bytes(data[:-9])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        StateBank.load(tmp_path / "cut.bank")
    (tmp_path / "odd.bank").write_bytes(data.replace(b'"count', b'"c0unt').replace(b"picture_ends", b"picture_odds"))
    with pytest.raises(ValueError, match=r"damaged state bank .it lacks picture_ends"):
        StateBank.load(tmp_path / "odd.bank")
    space.fit_lens("translator", pictures_of(8, 3)).save(tmp_path / "lens")
    with pytest.raises(ValueError, match="not a state bank"):
        StateBank.load(tmp_path / "lens")


def test_what_does_not_fit_is_refused(case):
    space, pictures, bank, trace = case
    with pytest.raises(ValueError, match="a bank needs pictures, got none"):
        state_bank(space, [])
    with pytest.raises(TypeError, match="a sequence of pictures"):
        state_bank(space, "folder")
    some = state_bank(space, pictures, blocks=[1])
    with pytest.raises(ValueError, match=r"blocks \[1\], not of block 3; build one with it"):
        neighbours(trace, 4, some)
    with pytest.raises(ValueError, match="token"):
        neighbours(trace, 99, bank)
    other = tiny_vit(reg_tokens=1)
    with torch.no_grad():
        other.model.head.bias.add_(1)
    with pytest.raises(ValueError, match=r"of the weights .*; this model has others"):
        neighbours(other.trace(pictures[:1]), 4, bank)
    larger = tiny_vit(reg_tokens=1, img_size=40)
    with pytest.raises(ValueError, match=r"of the grid \(4, 4\); this model has others \(5, 5\)"):
        neighbours(larger.trace(torch.zeros(1, 3, 40, 40)), 4, bank)


def test_a_live_kernel_answers_with_small_pictures(case):
    _, _, bank, trace = case
    source = trace.snapshot(bank=bank).source
    steps = source.answer("neighbours", {"token": 4, "block": 2, "k": 3})
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            answer = stop.value
            break
    expected = neighbours(trace, 4, bank, block=2, k=3)
    assert answer.result["token"] == 4
    assert answer.result["grid"] == [4, 4]
    assert [patch["picture"] for patch in answer.result["neighbours"]] == expected.pictures.tolist()
    meta, arrays = unpack(answer.part)
    assert meta["kind"] == "part"
    first = bytes(arrays["picture_bytes"][: arrays["picture_ends"][0]])
    assert first == expected.thumbnails()[0]
    with pytest.raises(RuntimeError, match="no state bank"):
        list(trace.snapshot().source.answer("neighbours", {"token": 4, "block": 2}))
    with pytest.raises((TypeError, ValueError), match="block"):
        list(source.answer("neighbours", {"token": 4, "block": 9}))
