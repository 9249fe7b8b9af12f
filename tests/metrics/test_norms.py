"""Lengths of tokens: planted ones are found, their absence is said, and interventions choose by them."""

from __future__ import annotations

import pytest
import torch
from tiny_models import images_for, tiny_vit

from classspace_widgets import ClassSpace, metrics
from classspace_widgets.interventions import AddVector, MaskTokens, RemoveTokens, run_with, trace_with
from classspace_widgets.scenes import gallery


@pytest.fixture(scope="module")
def planted():
    """A pass in which two image tokens become long after block 2."""
    space = tiny_vit()
    trace = space.trace(images_for(space))
    long = trace_with(space, trace, AddVector(2, 60 * torch.randn(24), tokens=[4, 11]), attention=True)
    return space, long


def test_planted_tokens_are_found(planted):
    _, trace = planted
    found = metrics.token_norms(trace)
    for block in range(4):
        lengths = trace.stream("residual", block).norm(dim=-1)
        medians = lengths[:, 1:].median(dim=1).values
        assert torch.allclose(found.medians[block], medians)
        assert torch.allclose(found.norms[block], lengths / medians[:, None])
    assert found.outliers.any(dim=1)[2:].nonzero()[:, 1].unique().tolist() == [4, 11]
    assert not found.outliers[:2].any()
    assert found.longer_than(3, image=1) == (4, 11)
    assert found.longer_than(3, block=1) == ()
    assert "2.0 image tokens a picture are longer than 3 times the median of their block, after block 2" in found.text()
    table = found.table()
    assert set(table["token"]) == {4, 11}
    assert table["norm"].is_monotonic_decreasing
    first = table.iloc[0]
    assert (first["row"], first["column"]) == divmod(int(first["token"]) - 1, 4)
    weights = trace.attention_weights[3]
    at_two = table[table["block"] == 2].iloc[0]
    expected = weights[int(at_two["image"]), :, :, int(at_two["token"])].sum() / weights[0].sum()
    assert at_two["received"] == pytest.approx(expected.item(), rel=1e-5)
    assert table[table["block"] == 3]["received"].isna().all()
    best = trace.logits("residual", 2)[int(at_two["image"]), int(at_two["token"])].argmax()
    assert at_two["class (logit)"] == trace.class_names[best]
    assert "longer than 3 times" in found._repr_html_()


def test_attention_received_sums_to_one(planted):
    space, trace = planted
    found = metrics.token_norms(trace)
    assert torch.allclose(found.received.sum(dim=-1), torch.ones(3, 2))
    assert metrics.token_norms(space.trace(images_for(space))).received is None


def test_their_absence_is_said():
    trace = ClassSpace.bundled("contrast").trace(gallery()[0].picture)
    lens = ClassSpace.bundled("contrast").bundled_lens("jacobian")
    found = metrics.token_norms(trace, lenses=[lens])
    assert found.text().startswith("No image token is longer than 3 times the median of its block; the longest is ")
    assert found.table().empty
    assert list(found.classes) == ["logit", "jacobian"]
    assert bool((found.classes["jacobian"][-1, 0, 1:] == -1).all())
    with pytest.raises(ValueError, match="threshold must be above 0"):
        metrics.token_norms(trace, threshold=0)


def test_interventions_choose_tokens_by_length(planted):
    space, long = planted
    images = images_for(space)
    one = long.image(0)
    by_index = run_with(space, images, [RemoveTokens(tokens=[4, 11])])
    assert torch.equal(run_with(space, images, [RemoveTokens(norm_above=3, source=one)]), by_index)
    named = [RemoveTokens(norm_above=3, norm_block=2, source="long")]
    assert torch.equal(run_with(space, images, named, sources={"long": one}), by_index)
    masked = run_with(space, images, [MaskTokens(norm_above=3, source=one, mode="mean")])
    assert torch.equal(masked, run_with(space, images, [MaskTokens(tokens=[4, 11], mode="mean")]))
    with pytest.raises(ValueError, match="no image token is longer than 3 medians after block 1; the longest has"):
        run_with(space, images, [RemoveTokens(norm_above=3, norm_block=1, source=one)])
    with pytest.raises(ValueError, match=r"source has 2; take source.image\(0\)"):
        run_with(space, images, [RemoveTokens(norm_above=3, source=long)])
    with pytest.raises(ValueError, match=r"norm_block must be in 0..3, got 4"):
        run_with(space, images, [RemoveTokens(norm_above=3, norm_block=4, source=one)])


def test_by_default_the_picture_itself_is_measured():
    space = tiny_vit()
    image = images_for(space)[:1]
    found = metrics.token_norms(space.trace(image))
    factor = float(found.norms[:, 0, 1:].amax(dim=0).median())
    chosen = found.longer_than(factor)
    assert 0 < len(chosen) < 16
    expected = run_with(space, image, [RemoveTokens(tokens=chosen)])
    assert torch.equal(run_with(space, image, RemoveTokens(norm_above=factor)), expected)
    assert torch.equal(trace_with(space, space.trace(image), [RemoveTokens(norm_above=factor)]).output, expected)
    from classspace_widgets.interventions import intervene

    with (
        pytest.raises(ValueError, match="pass source=trace of the picture"),
        intervene(space, [RemoveTokens(norm_above=factor)]),
    ):
        pass
