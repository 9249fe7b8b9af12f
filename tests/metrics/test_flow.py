"""Where the logit stands at every depth: sums for all families, explicit matrices, refusals, gains over depth."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from core.families import POOLED, available, build, build_double, pixels
from slow_held import slow_flow
from tiny_models import images_for, tiny_vit

from classspace_widgets import ClassSpace, metrics
from classspace_widgets.explain import importance
from classspace_widgets.interventions import AddVector, KnockOutAttention, RemoveTokens, trace_with
from classspace_widgets.metrics.flow import ROUNDING
from classspace_widgets.models import UnsupportedModelError, attention_parts
from classspace_widgets.scenes import gallery
from classspace_widgets.trace import Trace

KINDS = {
    "plain": {},
    "LayerScale": {"init_values": 0.5},
    "no bias": {"qkv_bias": False, "proj_bias": False},
}


@pytest.fixture(scope="module")
def double():
    """A small model in float64 with LayerScale, and two pictures."""
    space = tiny_vit(init_values=0.5)
    space = ClassSpace(space.model.double(), check=False, name="tiny")
    return space, space.trace(torch.randn(2, 3, 32, 32, dtype=torch.float64))


@pytest.mark.parametrize("family", [*available, *POOLED])
def test_shares_sum_to_the_logit_at_every_depth_of_every_family(family):
    space = ClassSpace(build_double(family), name=family)
    batch, wanted = pixels(space), [3, 7]
    parts = attention_parts(space.adapter.blocks[0])
    reason = parts.split or parts.sources
    if reason is not None or not space.adapter.linear:
        trace = space.trace(batch)
        with pytest.raises(UnsupportedModelError, match=type(parts.module).__name__ if reason else "pools its tokens"):
            metrics.flow(trace, wanted)
        return
    logits = space.model(batch).detach()[:, wanted]
    # Attention weights are computed again from the stream, or taken from the trace.
    again, kept = space.trace(batch), space.trace(batch, attention=True)
    found, same = metrics.flow(again, wanted), metrics.flow(kept, wanted)
    assert found.values.shape == (2 * again.n_blocks + 1, 2, again.n_tokens, 2)
    assert torch.allclose(found.total(), logits.expand(len(found.points), -1, -1), rtol=0, atol=1e-12)
    assert torch.allclose(found.values, same.values, rtol=0, atol=1e-12)
    # What passes through attention and MLPs is what they change.
    for block in again.points.blocks:
        through = found.attention[block - 1].sum(dim=1), found.mlp[block - 1].sum(dim=1)
        assert torch.isfinite(torch.stack(through)).all()


@pytest.mark.parametrize("family", ["ViT", "DINOv2 giant (SwiGLU)", "BEiT", "EVA-02", "SigLIP, GAP", "DeiT, distilled"])
def test_shares_sum_to_the_logit_in_single_precision(family):
    space = ClassSpace(build(family))
    trace = space.trace(pixels(space))
    found = metrics.flow(trace, range(12))
    assert torch.allclose(found.total(), trace.output.expand(len(found.points), -1, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_against_explicit_matrices(kind):
    space = tiny_vit(**{"depth": 2, "patch_size": 16, "embed_dim": 12, **KINDS[kind]})
    space = ClassSpace(space.model.double(), check=False)
    for block in space.model.blocks:
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            if layer.bias is None:  # the reference adds a bias of nothing
                layer.bias = torch.nn.Parameter(torch.zeros(layer.out_features, dtype=torch.float64))
    trace = space.trace(torch.randn(1, 3, 32, 32, dtype=torch.float64))
    found = metrics.flow(trace, [4], heads=True)
    expected, heads = slow_flow(space.model, trace.increments[0][0].numpy(), 4)
    for n, (values, bias) in enumerate(expected):
        assert np.allclose(found.values[n, 0, :, 0].numpy(), values, rtol=0, atol=1e-12)
        assert np.isclose(found.bias[n, 0, 0].item(), bias, rtol=0, atol=1e-12)
    for block, (by_source, by_bias) in enumerate(heads):
        for head in range(3):
            through = found.heads[block, 0, head, :, 0].numpy()
            # The value's own bias is a part of what is read.
            assert np.isclose(through.sum(), by_source[head].sum() + by_bias[head], rtol=0, atol=1e-12)


def test_the_last_block_is_the_direct_contribution(double):
    _, trace = double
    found = metrics.flow(trace, [2, 5])
    direct = metrics.contributions(trace, [2, 5])
    assert torch.allclose(found.at(3)[:, 0].T, direct.values.sum(dim=1)[:, :, 0], atol=1e-12)
    assert found.at(3)[:, 1:].abs().max() == 0
    assert torch.allclose(found.bias[-1], trace.lens.offset[[2, 5]].expand(2, -1), atol=1e-12)
    # The last MLP acts on the output token alone, and brings what it adds there.
    assert torch.allclose(found.mlp[-1][:, 0].T, direct.mlp[:, -1, :, 0], atol=1e-12)


def test_heads_and_the_projection_bias_are_what_passes_through_attention(double):
    space, trace = double
    found = metrics.flow(trace, [2, 5], heads=True)
    assert found.heads.shape == (3, 2, 3, trace.n_tokens, 2)
    silent = metrics.flow(trace, [2, 5])
    assert silent.heads is None
    assert torch.equal(silent.values, found.values)
    for block in (1, 2, 3):
        # What adding the projection's bias at every token brings, by the slopes that the values give away.
        changed = metrics.flow(trace_without_bias(space, trace, block), [2, 5], heads=True)
        rest = found.attention[block - 1].sum(dim=1) - found.heads[block - 1].sum(dim=(1, 2))
        assert rest.abs().max() > 1e-4
        none = changed.attention[block - 1].sum(dim=1) - changed.heads[block - 1].sum(dim=(1, 2))
        assert torch.allclose(none, torch.zeros_like(none), atol=1e-12)


def trace_without_bias(space, trace, block):
    """The trace of a model whose output projection has no bias in one block."""
    model = copy.deepcopy(space.model)
    with torch.no_grad():
        model.blocks[block - 1].attn.proj.bias.zero_()
    other = ClassSpace(model, check=False)
    return trace_with(other, trace, [])


def test_a_part_of_the_points(double):
    _, trace = double
    whole = metrics.flow(trace, [2])
    some = metrics.flow(trace, [2], points=[(3, "residual"), (1, "mid"), (0, "residual")])
    assert [tuple(p) for p in some.points] == [(3, "residual"), (1, "mid"), (0, "residual")]
    assert torch.equal(some.values, whole.values[[6, 1, 0]])
    assert torch.equal(some.at(1, "mid"), whole.at(1, "mid"))
    with pytest.raises(ValueError, match=r"this flow has the points .* got \(2, 'mid'\)"):
        some.at(2, "mid")


def test_classes_in_groups_are_the_same(double, monkeypatch):
    _, trace = double
    whole = metrics.flow(trace, range(7), heads=True)
    monkeypatch.setattr(sys.modules[metrics.flow.__module__], "NUMBERS_AT_ONCE", 1)
    assert torch.allclose(metrics.flow(trace, range(7), heads=True).values, whole.values, atol=1e-14)


def test_a_class_of_its_own_for_each_picture(double):
    _, trace = double
    found = importance(trace, labels=[2, 5], method="flow", block=1)
    both = metrics.flow(trace, [2, 5]).at(1)
    assert torch.allclose(found.maps[:, 0], torch.stack([both[0, :, 0], both[1, :, 1]]), atol=1e-12)
    assert found.signed


def test_the_embedding_class_of_a_user_is_followed_too():
    plain = tiny_vit()
    space = ClassSpace(plain.model, class_embedding=torch.randn(5, 24), class_bias=torch.randn(5))
    trace = space.trace(images_for(space))
    found = metrics.flow(trace, range(5))
    assert torch.allclose(found.total(), trace.output.expand(len(found.points), -1, -1), atol=1e-4)


def test_places_sum_to_the_logit():
    scene = gallery()[0]
    trace = ClassSpace.bundled("contrast").trace([scene.picture, gallery()[1].picture])
    found = metrics.flow(trace, "fish")
    for mask in (None, scene.mask, np.stack([scene.mask, gallery()[1].mask])):
        places = found.by_place(mask)
        assert torch.allclose(sum(places.values()), found.total(), atol=1e-4)
    assert list(places) == ["prefix", "object", "context", "biases"]
    # The answer leaves the patches and enters [CLS].
    share = places["prefix"][:, 0, 0] / (found.total() - places["biases"])[:, 0, 0]
    assert share[0].abs() < 0.05
    assert share[-1] > 0.99
    with pytest.raises(ValueError, match="mask must be one or B=2 of them, got 3"):
        found.by_place(np.stack([scene.mask] * 3))
    assert "Where the class logit of fish stands" in found._repr_html_()


def test_bad_input_is_refused_in_words(double, tmp_path):
    _, trace = double
    with pytest.raises(ValueError, match="class"):
        metrics.flow(trace, [7])
    with pytest.raises(TypeError, match="classes must be a class or several"):
        metrics.flow(trace, None)
    for points in ([(4, "residual")], [(0, "mid")]):
        with pytest.raises(ValueError, match="block"):
            metrics.flow(trace, [2], points=points)
    with pytest.raises(ValueError, match="read at the residual stream, 'mid' or 'residual', got 'attention'"):
        metrics.flow(trace, [2], points=[(1, "attention")])
    for points in ((1, "mid"), 3, []):
        with pytest.raises(ValueError, match="points must be pairs of a block and a stream"):
            metrics.flow(trace, [2], points=points)
    path = tmp_path / "trace.safetensors"
    trace.save(path)
    with pytest.raises(RuntimeError, match="no model behind it"):
        metrics.flow(Trace.load(path), [2])
    changed = replace(trace, increments=(*trace.increments[:-1], trace.increments[-1] * 1.1))
    with pytest.raises(UnsupportedModelError, match="do not divide at block 3 mid"):
        metrics.flow(changed, [2])


def test_interventions_are_followed_or_refused(double):
    space, trace = double
    cut = trace_with(space, trace, [KnockOutAttention("edges", readers=[0], blocks=[2])], attention=True)
    found = metrics.flow(cut, [2])
    assert torch.allclose(found.total(), cut.output[:, [2]].expand(len(found.points), -1, -1), atol=1e-12)
    with pytest.raises(UnsupportedModelError, match="attention=True"):
        metrics.flow(trace_with(space, trace, [KnockOutAttention("no_cls")]), [2])
    with pytest.raises(UnsupportedModelError, match="An intervention changed what its blocks add"):
        metrics.flow(trace_with(space, trace, [AddVector(2, torch.randn(24))]), [2])
    remove = [RemoveTokens(tokens=[3, 4])]
    short = trace_with(space, trace, remove, full_grid=False, attention=True)
    found = metrics.flow(short, [2])
    assert torch.allclose(found.total(), short.output[:, [2]].expand(len(found.points), -1, -1), atol=1e-12)
    with pytest.raises(ValueError, match="cannot be computed again"):
        metrics.flow(trace_with(space, trace, remove), [2])
    with pytest.raises(ValueError, match="leaves gaps"):
        metrics.flow(trace_with(space, trace, remove, attention=True), [2])


def test_the_model_is_left_as_it_was(double):
    space, trace = double
    before = {
        name: (module.__dict__.keys(), dict(module._forward_hooks)) for name, module in space.model.named_modules()
    }
    fused = [block.attn.fused_attn for block in space.model.blocks]
    metrics.flow(trace, [2])
    assert fused == [block.attn.fused_attn for block in space.model.blocks]
    for name, module in space.model.named_modules():
        assert (module.__dict__.keys(), dict(module._forward_hooks)) == before[name]
        assert "forward" not in module.__dict__


def test_importance_by_flow_needs_a_block():
    space = tiny_vit()
    batch = images_for(space)
    with pytest.raises(ValueError, match="block=2 belongs to method='flow', not to 'direct'"):
        importance(space, 1, images=batch, method="direct", block=2)
    with pytest.raises(ValueError, match=r"block must be in 0..3, got 4"):
        importance(space, 1, images=batch, method="flow", block=4)
    with pytest.raises(ValueError, match="token= does not go with method='flow'"):
        importance(space, 1, images=batch, method="flow", token=0)
    found = importance(space, 1, images=batch, method="flow", block=2)
    assert torch.allclose(found.maps[:, 0], metrics.flow(space.trace(batch), 1).at(2)[..., 0], atol=1e-6)


def test_rounding_in_many_pictures_whose_products_cancel_is_no_error():
    """The norm takes a large direction out that all tokens share: a token's products then cancel, and its share is small."""
    torch.manual_seed(0)
    space = tiny_vit()
    with torch.no_grad():
        space.model.pos_embed += 1e4
    found = metrics.flow(space.trace(torch.randn(64, 3, 32, 32)), range(7))
    error = (found.total() - found.total()[-1]).abs()
    shares = found.values.abs().sum(dim=2) + found.bias.abs()
    # Judged by the shares alone it would be refused.
    assert (error / shares).max() > ROUNDING * torch.finfo(torch.float32).eps
    assert error.max() < 0.1 * found.total()[-1].abs().max()
