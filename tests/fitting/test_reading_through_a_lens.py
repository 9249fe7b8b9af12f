"""Traces read through a fitted lens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import images_for, tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.lens import FittedLens, LensMismatchError, class_ranks


@pytest.fixture(scope="module")
def case():
    space = tiny_vit(reg_tokens=1)
    lens = space.fit_lens("jacobian", images_for(space, 8))
    return space, lens, space.trace(images_for(space, 2, seed=9))


def by_hand(lens, trace, stream, block):
    """Scores ``[B, T, C]``, one token at a time."""
    number = lens.points.increment(stream, block)
    prefix = len(trace.prefix)
    tokens = []
    for t, vectors in enumerate(trace.stream(stream, block).unbind(dim=1)):
        kind = t if t < prefix else prefix
        scores = vectors @ lens.weights[number, kind].T
        if stream in ("mid", "residual"):
            scores = scores + lens.offsets[number, kind]
        tokens.append(scores if lens.defined[number, kind] else torch.full_like(scores, torch.nan))
    return torch.stack(tokens, dim=1)


@pytest.mark.parametrize("stream", ["attention", "mid", "mlp", "residual"])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_every_point_is_read_with_its_own_map(case, stream, block):
    space, lens, trace = case
    scores = trace.logits(stream, block, lens=lens)
    expected = by_hand(lens, trace, stream, block)
    if block == 3 and stream in ("mlp", "residual"):
        expected[:, 0] = space.lens.logits(trace.stream(stream, 3))[:, 0]
    assert torch.allclose(scores, expected, atol=1e-5, equal_nan=True)
    assert bool(scores[:, 1:].isnan().all()) == (block == 3)
    chosen = trace.logits(stream, block, classes=[4, 2], tokens=[5, 0], lens=lens)
    assert torch.allclose(chosen, expected[:, [5, 0]][..., [4, 2]], atol=1e-5, equal_nan=True)
    own = trace.logits(stream, block, labels=[3, 6], lens=lens)
    assert torch.allclose(own[1, :, 0], expected[1, :, 6], atol=1e-5, equal_nan=True)


def test_ranks_and_top_classes_follow(case):
    _, lens, trace = case
    for block in (1, 3):
        scores = trace.logits("residual", block, lens=lens)
        assert torch.equal(trace.ranks("residual", block, lens=lens), class_ranks(scores))
        best = trace.top_k(2, "residual", block, tokens=[0, 1], lens=lens)
        assert torch.equal(best.classes, scores[:, :2].topk(2).indices)
    assert (trace.ranks("residual", 3, lens=lens)[:, 1:] == -1).all()
    several = trace.logits("residual", None, lens=lens)
    assert torch.equal(several[2].nan_to_num(), trace.logits("residual", 2, lens=lens).nan_to_num())


def test_the_logit_lens_as_maps_of_its_own_is_the_logit_lens_bit_for_bit(case):
    """A lens that leaves every point to the classifier gives today's readings."""
    _, lens, trace = case
    plain = replace(lens, classifier=torch.ones_like(lens.defined), defined=torch.ones_like(lens.defined))
    for stream in trace.points.streams:
        assert torch.equal(trace.logits(stream, None, lens=plain), trace.logits(stream, None))
        assert torch.equal(trace.ranks(stream, None, lens=plain), trace.ranks(stream, None))


def test_the_output_token_of_the_last_block_is_read_as_ever(case):
    _, lens, trace = case
    assert torch.equal(trace.logits(lens=lens)[:, 0], trace.logits()[:, 0])


def test_a_lens_of_some_classes_gives_scores_and_no_ranks(case):
    space, lens, trace = case
    some = space.fit_lens("jacobian", images_for(space, 8), classes=[5, 1])
    assert torch.allclose(
        trace.logits("residual", 1, lens=some), trace.logits("residual", 1, classes=[5, 1], lens=lens), atol=1e-5
    )
    for ask in (trace.ranks, trace.top_k):
        with pytest.raises(ValueError, match="need a lens of all 7 classes, this one was fitted for 2"):
            ask(lens=some)
    with pytest.raises(ValueError, match="not among them"):
        trace.logits(classes=[0], lens=some)


def test_lenses_of_other_models_are_refused(case):
    space, lens, trace = case
    other = tiny_vit()
    with pytest.raises(LensMismatchError, match="prefix tokens"):
        other.trace(images_for(other)).logits(lens=lens)
    twin = space.random_twin()
    with pytest.raises(LensMismatchError, match="other weights"):
        twin.trace(images_for(twin)).logits(lens=lens)
    before = space.model.head.bias.detach().clone()
    with torch.no_grad():
        space.model.head.bias.add_(0.5)
    try:
        with pytest.raises(LensMismatchError, match="other weights"):
            trace.logits(lens=lens)
    finally:
        with torch.no_grad():
            space.model.head.bias.copy_(before)


def test_a_trace_and_a_lens_from_files_read_the_same(case, tmp_path):
    _, lens, trace = case
    trace.save(tmp_path / "trace.safetensors")
    lens.save(tmp_path / "lens.safetensors")
    back = type(trace).load(tmp_path / "trace.safetensors")
    again = back.logits("mid", 2, lens=FittedLens.load(tmp_path / "lens.safetensors"))
    assert torch.equal(again, trace.logits("mid", 2, lens=lens))


def test_a_bundled_model_reads_through_a_lens():
    space = ClassSpace.bundled("contrast")
    from classspace_widgets.scenes import ScenesDataset

    lens = space.fit_lens("translator", ScenesDataset(8, seed=5), progress=False)
    trace = space.trace(ScenesDataset(1, seed=6)[0][0])
    assert trace.ranks("residual", 4, lens=lens).shape == (1, 65, 24)


FAMILIES = [{"reg_tokens": 2}, {}, {"global_pool": "avg", "class_token": False}, {"depth": 6, "num_classes": 400}]


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@pytest.mark.parametrize("kind", ["jacobian", "translator"])
def test_stream_readings_are_those_of_the_trace(family, kind):
    space = tiny_vit(**family)
    lens = space.fit_lens(kind, images_for(space, 8))
    images = images_for(space, 31, seed=9)  # rows of several pieces, which begin in the middle of a picture
    trace = space.trace(images)
    found = space.stream_readings(images, classes=[3, 0], k=2, lens=lens)
    assert torch.allclose(found.output, trace.output, atol=1e-5)
    for number, point in enumerate(found.points):
        scores = trace.logits(point.stream, point.block, lens=lens)
        assert torch.allclose(found.logits[number], scores[..., [3, 0]], atol=2e-4, equal_nan=True), point
        known = ~scores[..., 0].isnan()
        assert torch.equal(known, found.ranks[number, ..., 0] >= 0)
        # Ranks up to ties of rounding: the class's score lies between those of its neighbours in rank.
        ordered = scores.sort(dim=-1, descending=True).values
        at_rank = ordered.gather(2, found.ranks[number].long().clamp_min(0))
        assert torch.allclose(at_rank[known], scores[..., [3, 0]][known], atol=2e-4), point
        best = scores.topk(2)
        assert torch.allclose(found.top_logits[number], best.values, atol=2e-4, equal_nan=True), point
        assert torch.equal(found.top_classes[number] == -1, scores[..., :2].isnan())
        again = scores.gather(2, found.top_classes[number].long().clamp_min(0))
        assert torch.allclose(again[known], best.values[known], atol=2e-4), point


def test_a_head_that_pools_by_attention_is_read_through_a_lens():
    """The logit lens is not linear there, which the maps do not need."""
    space = tiny_vit(global_pool="map", class_token=False)
    lens = space.fit_lens("jacobian", images_for(space, 8))
    images = images_for(space, 2, seed=9)
    found = space.stream_readings(images, classes=[3], k=2, lens=lens)
    trace = space.trace(images)
    for number, point in enumerate(found.points):
        expected = trace.logits(point.stream, point.block, classes=[3], lens=lens)
        assert torch.allclose(found.logits[number], expected, atol=2e-4, equal_nan=True), point


def test_stream_readings_refuse_lenses_that_do_not_fit(case):
    space, lens, _ = case
    images = images_for(space)
    some = space.fit_lens("jacobian", images_for(space, 8), classes=[0, 1])
    with pytest.raises(ValueError, match="stream readings need a lens of all 7 classes"):
        space.stream_readings(images, classes=[0], lens=some)
    with pytest.raises(LensMismatchError, match="other weights"):
        space.random_twin().stream_readings(images, classes=[0], lens=lens)
