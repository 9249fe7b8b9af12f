"""Interventions against the slow forward pass, which shares no code with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from slow_vit import array, linear, norm, slow_forward
from tiny_models import tiny_vit

from classspace_widgets.explain import importance
from classspace_widgets.interventions import (
    Ablate,
    AddVector,
    KnockOutAttention,
    MaskTokens,
    PatchResidual,
    RemoveTokens,
    ReplaceClassEmbedding,
    intervene,
    run_with,
    trace_with,
)


@pytest.fixture(scope="module")
def space():
    return tiny_vit(init_values=0.7, depth=2, img_size=24)


@pytest.fixture(scope="module")
def picture():
    return torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="module")
def embedded(space, picture):
    return space.trace(picture).increments[0][0].double().numpy()


def compare(space, picture, interventions, embedded, rows=None, **options):
    streams, logits = slow_forward(space.model, embedded, **options)
    trace = trace_with(space, picture, interventions)
    for block, expected in enumerate(streams, start=1):
        got = trace.stream("residual", block)[0].double().numpy()
        np.testing.assert_allclose(got if rows is None else got[rows], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trace.output[0].double().numpy(), logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(run_with(space, picture, interventions).numpy(), trace.output.numpy())


def test_no_intervention(space, picture, embedded):
    compare(space, picture, [], embedded)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("renormalise", [True, False])
def test_edges(space, picture, embedded, renormalise, fused):
    interventions = [
        KnockOutAttention("no_cls", blocks=[1], renormalise=renormalise),
        KnockOutAttention("self_only", blocks=[2], heads=[0, 2], renormalise=renormalise),
        KnockOutAttention("edges", readers=[0, 3], sources=[1, 4, 5], blocks=[2], renormalise=renormalise),
    ]

    def keep(block, _head, reader, source):
        if block == 1:
            return not (reader >= 1 and source == 0)
        return not (reader in (0, 3) and source in (1, 4, 5))

    def before(block, head, reader, source):
        return not (block == 2 and head in (0, 2) and reader >= 1 and reader != source)

    if renormalise:
        interventions[2] = KnockOutAttention("edges", readers=[0], sources=[1, 4], blocks=[2], renormalise=True)

        def keep(block, head, reader, source):
            if block == 1:
                return not (reader >= 1 and source == 0)
            if head in (0, 2) and reader >= 1 and reader != source:
                return False
            return not (reader == 0 and source in (1, 4))

    for block in space.model.blocks:
        block.attn.fused_attn = fused
    try:
        masks = {"renormalise": True} if renormalise else {"before": before}
        compare(space, picture, interventions, embedded, keep=keep, **masks)
        assert all(block.attn.fused_attn is fused for block in space.model.blocks)
    finally:
        for block in space.model.blocks:
            block.attn.fused_attn = True


KEPT = {
    "no_cls": lambda reader, source: reader == 0 or source != 0,
    "no_others": lambda reader, source: reader == 0 or source in (0, reader),
    "self_only": lambda reader, source: reader == 0 or source == reader,
    "self_unscaled": lambda reader, source: reader == 0 or source == reader,
}


@pytest.mark.parametrize("kind", KEPT)
def test_kinds_of_knock_outs(space, picture, embedded, kind):
    def keep(_block, _head, reader, source):
        return KEPT[kind](reader, source)

    masks = {"before": keep} if kind == "self_only" else {"keep": keep}
    compare(space, picture, [KnockOutAttention(kind)], embedded, **masks)
    if kind == "self_only":
        compare(space, picture, [KnockOutAttention(kind, renormalise=True)], embedded, **masks)
        with pytest.raises(AssertionError, match="Not equal"):
            compare(space, picture, [KnockOutAttention("self_unscaled")], embedded, **masks)


def test_self_only_sets_the_weight_on_itself_to_1(space, picture):
    def weights(kind):
        return trace_with(space, picture, [KnockOutAttention(kind)], attention=True).attention_weights

    whole = space.trace(picture, attention=True).attention_weights[1][0]
    paper, unscaled = weights("self_only"), weights("self_unscaled")
    for block in paper:
        assert torch.equal(paper[block][0, :, 1:, :], torch.eye(10)[1:].expand(3, 9, 10))
        assert torch.equal(unscaled[block][0, :, 1:, 1:] != 0, torch.eye(9, dtype=torch.bool).expand(3, 9, 9))
    own = whole.diagonal(dim1=-2, dim2=-1)[:, 1:]
    torch.testing.assert_close(unscaled[1][0].diagonal(dim1=-2, dim2=-1)[:, 1:], own)
    assert own.max() < 0.5


def test_ablations(space, picture, embedded):
    interventions = [Ablate("head", blocks=1, heads=[1, 2]), Ablate("mlp", blocks=[1]), Ablate("attention", blocks=2)]
    compare(space, picture, interventions, embedded, dead_heads={(1, 1), (1, 2)}, dead={(1, "mlp"), (2, "attention")})


def test_removed_tokens_are_absent(space, picture, embedded):
    rows = [0, 1, 3, 4, 5, 6, 7, 9]
    compare(space, picture, [RemoveTokens(tokens=[2, 8])], embedded[rows], rows=rows)
    compare(space, picture, [RemoveTokens(tokens=2), RemoveTokens(tokens=8)], embedded[rows], rows=rows)


def test_removal_composes_with_edges_and_heads(space, picture, embedded):
    rows = [0, 1, 3, 4, 5, 6, 7, 9]
    compare(
        space,
        picture,
        [RemoveTokens(tokens=[2, 8]), KnockOutAttention("edges", readers=[0], sources=[3], blocks=1)],
        embedded[rows],
        rows=rows,
        keep=lambda block, _head, reader, source: not (block == 1 and reader == 0 and source == 2),
    )


def test_masked_tokens(space, picture, embedded):
    zeroed = embedded.copy()
    zeroed[[2, 5]] = 0
    compare(space, picture, [MaskTokens(tokens=[2, 5])], zeroed)
    averaged = embedded.copy()
    averaged[[2, 5]] = embedded[1:].mean(axis=0)
    compare(space, picture, [MaskTokens(tokens=[2, 5], mode="mean")], averaged)


def test_patched_residual(space, picture, embedded):
    donor = space.trace(torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(1)))
    vectors = donor.stream("residual", 1)[0].double().numpy()
    patches = [(1, 0, vectors[0]), (1, 4, vectors[4])]
    compare(space, picture, [PatchResidual(1, tokens=[0, 4], source=donor)], embedded, patches=patches)
    own = space.trace(picture).stream("residual", 1)[0].double().numpy()
    compare(
        space,
        picture,
        [PatchResidual(1, tokens=[2, 3], source=(0, 7))],
        embedded,
        patches=[(1, 2, own[7]), (1, 3, own[7])],
    )
    changed = embedded.copy()
    changed[3] = embedded[1]
    compare(space, picture, [PatchResidual(0, tokens=3, source=(0, 1))], changed)


def test_added_vectors(space, picture, embedded):
    vector = np.linspace(-1, 1, embedded.shape[1])
    own = space.trace(picture).stream("residual", 1)[0].double().numpy()
    patches = [(1, token, own[token] + vector) for token in (0, 4)]
    compare(space, picture, [AddVector(1, vector, tokens=[0, 4])], embedded, patches=patches)
    compare(space, picture, [AddVector(0, vector)], embedded + vector)
    twice = [(1, token, own[token] + 2 * vector) for token in range(len(own))]
    compare(space, picture, [AddVector(1, vector), AddVector(1, torch.as_tensor(vector))], embedded, patches=twice)


def test_patching_everything_gives_the_donors_answer(space, picture):
    other = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    donor = space.trace(other)
    for block in range(3):
        output = run_with(space, picture, [PatchResidual(block, source="donor")], sources={"donor": donor})
        torch.testing.assert_close(output, donor.output)


def test_resampled_and_mean_ablations(space, picture):
    other = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    donor, single = space.trace(other, heads=True), space.trace(other[:1], heads=True)
    for block in (1, 2):
        for sublayer in ("attention", "mlp"):
            trace = trace_with(space, picture, [Ablate(sublayer, blocks=block, mode="resample", source=single)])
            torch.testing.assert_close(trace.stream(sublayer, block), single.stream(sublayer, block))
            trace = trace_with(space, picture, [Ablate(sublayer, blocks=block, mode="mean", source=donor)])
            expected = donor.stream(sublayer, block).mean(dim=0, keepdim=True)
            torch.testing.assert_close(trace.stream(sublayer, block), expected)
            plain = space.trace(picture).stream(sublayer, block).mean(dim=1, keepdim=True)
            trace = trace_with(space, picture, [Ablate(sublayer, blocks=block, mode="mean")])
            torch.testing.assert_close(trace.stream(sublayer, block), plain.expand(1, 10, -1))
    with pytest.raises(ValueError, match="1 image or as many as the batch"):
        run_with(space, picture.repeat(3, 1, 1, 1), [Ablate("mlp", mode="resample", source=donor)])


def test_resampled_heads(space, picture):
    other = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    donor = space.trace(other, heads=True)
    trace = trace_with(space, picture, [Ablate("head", blocks=1, heads=1, mode="resample", source=donor)], heads=True)
    plain = space.trace(picture, heads=True).head_inputs[1].clone()
    plain[:, :, 8:16] = donor.head_inputs[1][:, :, 8:16]
    torch.testing.assert_close(trace.head_inputs[1], plain)
    trace = trace_with(space, picture, [Ablate("head", blocks=1, heads=2, mode="mean")], heads=True)
    plain = space.trace(picture, heads=True).head_inputs[1].clone()
    plain[:, :, 16:] = plain[:, :, 16:].mean(dim=1, keepdim=True)
    torch.testing.assert_close(trace.head_inputs[1], plain)


def test_replaced_class_embedding(space, picture):
    plain = space.trace(picture)
    swapped = trace_with(space, picture, [ReplaceClassEmbedding(classes=[3, 1], by=[1, 3])])
    order = [0, 3, 2, 1, 4, 5, 6]
    torch.testing.assert_close(swapped.output, plain.output[:, order])
    torch.testing.assert_close(swapped.logits("mid", 1), plain.logits("mid", 1)[..., order])
    vector = torch.arange(24.0) / 24
    given = trace_with(space, picture, [ReplaceClassEmbedding(classes=2, vectors=vector[None].numpy())])
    normed = space.model.norm(plain.stream("residual", 2)[:, 0])
    torch.testing.assert_close(given.output[:, 2], normed @ vector + space.model.head.bias[2])
    torch.testing.assert_close(given.logits()[:, 0], given.output)
    torch.testing.assert_close(space.trace(picture).output, plain.output)
    with (
        pytest.raises(ValueError, match=r"shape \[K, 24\]"),
        intervene(space, [ReplaceClassEmbedding(classes=2, vectors=[[1.0]])]),
    ):
        pass


def slow_weights(space, trace, block, keep=None, *, renormalise=False):
    """Attention weights ``[H, T, T]`` of a block from its input, one edge at a time."""
    module = space.model.blocks[block - 1]
    rows = [norm(module.norm1, array(x)) for x in trace.stream("residual", block - 1)[0]]
    count, heads, width = len(rows), module.attn.num_heads, len(rows[0])
    size = width // heads
    qkv = [linear(module.attn.qkv, row) for row in rows]
    found = np.zeros((heads, count, count))
    for h in range(heads):
        cut = slice(h * size, (h + 1) * size)
        for t in range(count):
            scores = np.array([qkv[t][:width][cut] @ qkv[s][width : 2 * width][cut] / size**0.5 for s in range(count)])
            kept = np.array([keep is None or keep(h, t, s) for s in range(count)])
            power = np.exp(scores - scores.max()) * (kept if renormalise else 1)
            found[h, t] = power / power.sum() * kept
    return found


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("blocks", [[1], [2], [1, 2]])
def test_weights_of_blocks_that_are_cut(space, picture, fused, renormalise, blocks):
    """Every block's weights are there, cut or not; what is cut is 0."""
    changes = {
        "no_cls": (
            [KnockOutAttention("no_cls", blocks=blocks, renormalise=renormalise)],
            lambda _h, t, s: not (t >= 1 and s == 0),
        ),
        "edges of one head": (
            [KnockOutAttention("edges", sources=[3, 4], heads=[1], blocks=blocks, renormalise=renormalise)],
            lambda h, _t, s: not (h == 1 and s in (3, 4)),
        ),
        "a head": ([Ablate("head", blocks=blocks, heads=[0])], None),
    }
    for block in space.model.blocks:
        block.attn.fused_attn = fused
    try:
        for interventions, keep in changes.values():
            trace = trace_with(space, picture, interventions, attention=True)
            assert list(trace.attention_weights) == [1, 2]
            for block, weights in trace.attention_weights.items():
                own = keep if block in blocks else None
                expected = slow_weights(space, trace, block, own, renormalise=renormalise)
                np.testing.assert_allclose(weights[0].double().numpy(), expected, rtol=1e-4, atol=1e-6)
                if own is not None:
                    gone = [(h, t, s) for h in range(3) for t in range(10) for s in range(10) if not own(h, t, s)]
                    assert all(float(weights[0][edge]) == 0 for edge in gone)
    finally:
        for block in space.model.blocks:
            block.attn.fused_attn = True


def test_weights_of_blocks_without_some_tokens(space, picture):
    left = [0, 1, 3, 4, 5, 6, 7, 9]
    cut = KnockOutAttention("edges", readers=[1], sources=[3, 9], blocks=[2])
    trace = trace_with(space, picture, [RemoveTokens(tokens=[2, 8]), cut], attention=True, full_grid=False)
    full = trace_with(space, picture, [RemoveTokens(tokens=[2, 8]), cut], attention=True)
    for block in (1, 2):
        keep = None if block == 1 else lambda _h, t, s: not (t == 1 and left[s] in (3, 9))
        expected = slow_weights(space, trace, block, keep)
        np.testing.assert_allclose(trace.attention_weights[block][0].double().numpy(), expected, rtol=1e-4, atol=1e-6)
        whole = full.attention_weights[block][0]
        np.testing.assert_allclose(whole[:, left][:, :, left].double().numpy(), expected, rtol=1e-4, atol=1e-6)
        assert float(whole[:, [2, 8]].abs().max()) == float(whole[:, :, [2, 8]].abs().max()) == 0


def test_a_patch_from_a_token_of_the_same_picture_where_others_are_gone(space, picture, embedded):
    """Places are counted in the whole picture, for the token that is read too."""
    rows = [0, 1, 3, 4, 5, 6, 7, 9]
    own = trace_with(space, picture, [RemoveTokens(tokens=[2, 8])], full_grid=False).stream("residual", 1)[0]
    for source in (7, 9, 1):
        vector = own[rows.index(source)].double().numpy()
        compare(
            space,
            picture,
            [RemoveTokens(tokens=[2, 8]), PatchResidual(1, 3, (0, source))],
            embedded[rows],
            rows=rows,
            patches=[(1, 2, vector)],
        )
    changed = embedded.copy()
    changed[3] = embedded[9]
    compare(space, picture, [RemoveTokens(tokens=[2, 8]), PatchResidual(0, 3, (0, 9))], changed[rows], rows=rows)
    with pytest.raises(ValueError, match=r"tokens \[8\] are removed by another"):
        run_with(space, picture, [RemoveTokens(tokens=[2, 8]), PatchResidual(1, 3, (0, 8))])


def test_everything_that_was_asked_for_is_put_back_on_the_full_grid(space, picture):
    gone, left = [2, 8], [0, 1, 3, 4, 5, 6, 7, 9]
    kept = {"attention": True, "heads": True, "keys": True}
    short = trace_with(space, picture, [RemoveTokens(tokens=gone)], full_grid=False, **kept)
    full = trace_with(space, picture, [RemoveTokens(tokens=gone)], **kept)
    assert short.n_tokens == 8
    assert full.n_tokens == 10
    for block in (1, 2):
        for of_short, of_full in (
            (short.head_inputs[block], full.head_inputs[block]),
            (short.mlp_keys[block], full.mlp_keys[block]),
            (short.stream("residual", block), full.stream("residual", block)),
        ):
            assert of_full.shape == (1, 10, of_short.shape[2])
            assert torch.equal(of_full[:, left], of_short)
            assert bool(of_full[:, gone].isnan().all())
        assert torch.equal(full.values(block)[:, :, left], short.values(block))
        assert float(full.values(block)[:, :, gone].abs().max()) == 0
    assert torch.equal(full.output, short.output)
    assert bool((full.ranks(block=2)[:, gone] == -1).all())


def test_a_pass_that_starts_from_a_trace_keeps_its_pictures_and_names(space, tmp_path):
    from PIL import Image

    path = tmp_path / "one.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
    trace = space.trace(path)
    again = trace_with(space, trace, [Ablate("mlp", blocks=2)])
    assert again.image_names == ("one.png",)
    assert np.array_equal(again.pictures, trace.pictures)
    assert not np.array_equal(again.pictures, np.zeros_like(again.pictures))
    maps = importance(trace, 1)
    assert np.array_equal(maps.pictures, trace.pictures)
