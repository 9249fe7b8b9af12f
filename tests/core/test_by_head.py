"""What attention heads write: of all blocks at once, at the model's own output, and over many pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import images_for, tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets import metrics as m
from classspace_widgets.metrics.identifiability import chance_identifiability, identifiability
from classspace_widgets.scenes import gallery
from classspace_widgets.studies import bootstrap_ci, head_table
from core.families import build_double, pixels

KINDS = {
    "token": {},
    "mean_norm": {"global_pool": "avg", "class_token": False, "fc_norm": True},
    "norm_mean": {"global_pool": "avg", "class_token": False, "fc_norm": False},
}


@pytest.fixture(scope="module", params=KINDS)
def space(request):
    space = tiny_vit(**KINDS[request.param])
    assert space.adapter.pooling == request.param
    return space


@pytest.fixture(scope="module")
def trace(space):
    return space.trace(images_for(space), attention=True, heads=True)


def test_all_blocks_at_once_are_the_single_ones(trace):
    heads, bias = m.direct_by_head(trace, None, [1, 4])
    sources = m.direct_by_source(trace, None, [1, 4], [0, 3])
    assert heads.shape == (3, 2, 3, 2, trace.n_tokens)
    assert sources.shape == (3, 2, 3, 2, 2, trace.n_tokens)
    for block in (1, 2, 3):
        one, rest = m.direct_by_head(trace, block, [1, 4])
        assert torch.equal(heads[block - 1], one)
        assert torch.equal(bias[block - 1], rest)
        assert torch.equal(sources[block - 1], m.direct_by_source(trace, block, [1, 4], [0, 3]))
    picked, _ = m.direct_by_head(trace, [3, 1], 4)
    assert torch.allclose(picked, heads[[2, 0]][:, 1:], atol=1e-6)
    assert torch.allclose(m.direct_by_head(trace, -1, 4)[0], heads[2, 1:], atol=1e-6)
    assert torch.allclose(m.direct_by_source(trace, [-1], 4, [0, 3]), sources[2:, 1:], atol=1e-6)
    for wrong in (0, 4, [1, 4], [0], -2):
        with pytest.raises(ValueError, match=r"block must be in 1..3"):
            m.direct_by_head(trace, wrong, 4)
    with pytest.raises(ValueError, match="block is empty"):
        m.direct_by_source(trace, [], 4, [0])


def test_heads_at_the_output_against_a_loop(space, trace):
    """Each head's own vector, read by hand through a norm whose scale is that of the model's last residual stream."""
    found = m.output_by_head(trace, [1, 4])
    model, size = space.model, 24 // 3
    norm = model.fc_norm if space.adapter.pooling == "mean_norm" else model.norm
    final = trace.stream("residual", 3)
    patches = range(len(trace.prefix), trace.n_tokens)
    for block in (1, 2, 3):
        weight = model.blocks[block - 1].attn.proj.weight.detach()
        for h in range(3):
            part = slice(h * size, (h + 1) * size)
            written = trace.head_inputs[block][..., part] @ weight[:, part].T
            for b in range(2):

                def read(vector, scale, c):
                    spread = float(scale.var(unbiased=False) + norm.eps) ** 0.5
                    scaled = (vector - vector.mean()) / spread * norm.weight.detach()
                    return float(model.head.weight.detach()[c] @ scaled)

                for k, c in enumerate((1, 4)):
                    if space.adapter.pooling == "token":
                        expected = read(written[b, 0], final[b, 0], c)
                    elif space.adapter.pooling == "mean_norm":
                        expected = read(written[b, patches].mean(0), final[b, patches].mean(0), c)
                    else:
                        expected = np.mean([read(written[b, t], final[b, t], c) for t in patches])
                    assert float(found[block - 1, k, h, b]) == pytest.approx(expected, abs=1e-4)
    assert torch.equal(m.output_by_head(trace, [1, 4], 2), found[1])
    assert torch.allclose(m.output_by_head(trace, 4, [3, -1]), found[[2, 2], 1:], atol=1e-6)


def test_both_classifiers_of_a_distilled_model():
    space = ClassSpace(build_double("DeiT, distilled"))
    trace = space.trace(pixels(space), heads=True)
    shares, offset = m.output_contributions(trace, [0, 7])
    assert torch.allclose(shares.sum(dim=1) + offset[:, None], trace.output[:, [0, 7]].T, atol=1e-9)
    heads = m.output_by_head(trace, [0, 7], 2)
    # What is missing to the attention's share is the projection's bias, which no head writes.
    _, bias = trace.out_projection(2)
    with torch.no_grad():
        final, expected = trace.stream("residual", trace.n_blocks), torch.zeros(2, len(trace.output)).double()
        for token, lens in ((0, trace.lens), (1, trace.second_lens)):
            expected += (lens.folded[[0, 7]] @ bias)[:, None] / lens.sigma(final[:, token]) / 2
    assert torch.allclose(heads.sum(dim=1) + expected, shares[:, 3], atol=1e-9)


def test_a_table_of_means_with_intervals(space):
    pictures = [Image.new("RGB", (32, 32), (40 * i, 90, 200 - 30 * i)) for i in range(5)]
    table = head_table(space, [1, 4], images=pictures, batch_size=2, replicates=200, seed=3)
    assert len(table) == 2 * 3 * 3
    assert (table["count"] == 5).all()
    assert table["value"].is_monotonic_decreasing
    values = m.output_by_head(space.trace(pictures, heads=True), [1, 4])  # [L, K, H, B]
    for row in table.itertuples():
        own = values[row.block - 1, int(space.class_names.index(row.class_name) == 4), row.head].double().numpy()
        assert space.class_names.index(row.class_name) in (1, 4)
        assert row.value == pytest.approx(own.mean(), abs=1e-5)
        low, high = bootstrap_ci(own, replicates=200, seed=3)
        assert (row.low, row.high) == (pytest.approx(float(low), abs=1e-5), pytest.approx(float(high), abs=1e-5))
        assert row.low <= row.value <= row.high
    of_a_trace = head_table(space.trace(pictures, heads=True), [1, 4], replicates=200, seed=3)
    assert of_a_trace.equals(of_a_trace.sort_values("value", ascending=False, ignore_index=True, kind="stable"))
    merged = table.merge(of_a_trace, on=["class_name", "block", "head"])
    np.testing.assert_allclose(
        merged[["value_x", "low_x", "high_x"]], merged[["value_y", "low_y", "high_y"]], atol=1e-5
    )
    narrow = head_table(space, 1, images=pictures, level=0.5)
    wide = head_table(space, 1, images=pictures)
    assert ((narrow["high"] - narrow["low"]) < (wide["high"] - wide["low"])).all()


def test_one_picture_has_no_interval(space):
    array = np.zeros((32, 32, 3), np.uint8)
    for images in (array, array[None], [array]):
        table = head_table(space, 1, images=images)
        assert (table["count"] == 1).all()
        assert table[["low", "high"]].isna().all(axis=None)


def test_what_a_table_of_heads_refuses(space, trace):
    with pytest.raises(TypeError, match=r"a ClassSpace \(with images=\) or a Trace, got str"):
        head_table("model", 1)
    with pytest.raises(ValueError, match="needs images="):
        head_table(space, 1)
    with pytest.raises(ValueError, match="at least one picture"):
        head_table(space, 1, images=[])
    with pytest.raises(ValueError, match="contains its own images"):
        head_table(trace, 1, images=[1])
    with pytest.raises(ValueError, match="this trace has no heads of block 1; trace with heads=True"):
        head_table(space.trace(images_for(space)), 1)
    with pytest.raises(ValueError, match="batch_size"):
        head_table(space, 1, images=images_for(space), batch_size=0)


def test_predictions_are_names_and_probabilities(space):
    trace = space.trace(images_for(space, 3))
    table = trace.predictions(k=4)
    assert table["image"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for row in table.itertuples():
        logits = trace.output[row.image].double()
        assert row.class_name == space.class_names[row.class_index]
        assert row.logit == pytest.approx(float(logits[row.class_index]), rel=1e-5)
        assert row.probability == pytest.approx(float(logits[row.class_index].exp() / logits.exp().sum()), rel=1e-4)
        assert row.rank == int((logits > logits[row.class_index]).sum())
    assert table.groupby("image")["probability"].apply(lambda p: p.is_monotonic_decreasing).all()
    assert (trace.predictions(k=7).groupby("image")["probability"].sum() - 1).abs().max() < 1e-5
    with pytest.raises(ValueError, match=r"k must be in 1..7, got 8"):
        trace.predictions(k=8)


def test_predictions_name_the_pictures_and_ties_share_a_rank(tmp_path):
    space = ClassSpace.bundled(device="cpu")
    gallery()[0].picture.save(tmp_path / "one.png")
    trace = space.trace([tmp_path / "one.png", gallery()[1].picture])
    table = trace.predictions(k=1)
    assert table["class_name"].tolist() == ["fish", "rocket"]
    assert table["name"].tolist()[0] == "one.png"
    trace = replace(trace, output=torch.zeros_like(trace.output))
    assert set(trace.predictions(k=3)["rank"]) == {0}
    assert trace.predictions(k=3)["probability"].tolist() == pytest.approx([1 / 24] * 6)


@pytest.mark.parametrize("count", [1, 2, 5, 24, 1000])
def test_identifiability_at_chance(count):
    ranks = torch.arange(count)
    assert chance_identifiability(count) == pytest.approx(float(identifiability(ranks, count).double().mean()))


def test_chance_needs_classes():
    with pytest.raises(ValueError, match="n_classes must be at least 1, got 0"):
        chance_identifiability(0)
    with pytest.raises(TypeError, match="whole number"):
        chance_identifiability(2.5)
