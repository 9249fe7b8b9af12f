"""Heads that pool all tokens by a module of the model's own: a token is read as if it were the only one."""

from __future__ import annotations

import re

import pytest
import torch

from classspace_widgets import ClassSpace
from classspace_widgets.causal import sweep_heads, sweep_tokens
from classspace_widgets.explain import importance
from classspace_widgets.interventions import (
    Ablate,
    KnockOutAttention,
    RemoveTokens,
    ReplaceClassEmbedding,
    run_with,
    trace_with,
)
from classspace_widgets.metrics import (
    class_identifiability,
    contributions,
    direct_by_head,
    direct_by_source,
    output_contributions,
)
from classspace_widgets.models import UnsupportedModelError, adapt
from classspace_widgets.models.convert.pools import first_and_mean_vit
from classspace_widgets.studies import run_study
from classspace_widgets.studies.hidden import read_hidden
from core.families import POOLED, build, perturbed, pixels

FIRST_AND_MEAN = "first and mean"
SIZES = {"depth": 2, "embed_dim": 32, "num_heads": 4, "img_size": 32, "patch_size": 8, "reg_tokens": 2}


def made(family):
    if family == FIRST_AND_MEAN:
        return perturbed(first_and_mean_vit(12, **SIZES))
    return build(family)


@pytest.fixture(scope="module", params=[*POOLED, FIRST_AND_MEAN])
def case(request):
    model = made(request.param).double()
    space = ClassSpace(model)
    return space, space.trace(pixels(space), attention=True, heads=True)


def single(model, vector):
    """The model's head on a sequence of one token."""
    with torch.no_grad():
        tokens = model.norm(vector.view(1, 1, -1))
        if type(model.attn_pool).__name__ == "FirstAndMean":
            return model.head(torch.cat([tokens[:, 0], tokens[:, 0]], dim=1))[0]
        return model.head(model.fc_norm(model.attn_pool(tokens)))[0]


def test_a_token_is_read_as_if_it_were_the_only_one(case):
    space, trace = case
    for stream, block in (("residual", 0), ("attention", 1), ("mlp", 2), ("residual", 2)):
        found = trace.logits(stream, block)
        for image, token in ((0, 0), (0, 3), (1, trace.n_tokens - 1)):
            expected = single(space.model, trace.stream(stream, block)[image, token])
            assert torch.allclose(found[image, token], expected, atol=1e-10)
            ranks = torch.tensor([int((expected > logit).sum()) for logit in expected])
            assert torch.equal(trace.ranks(stream, block)[image, token], ranks)
    assert torch.allclose(trace.logits(classes=[7, 2])[..., 0], trace.logits()[..., 7])
    assert torch.equal(trace.top_k(2).classes[0, 3], trace.logits()[0, 3].topk(2).indices)


def test_the_whole_stream_gives_the_models_answer(case):
    space, trace = case
    with torch.no_grad():
        expected = space.model(pixels(space))
    assert torch.allclose(trace.output, expected, atol=1e-10)
    assert torch.allclose(trace.readout(), expected, atol=1e-10)
    assert space.adapter.pooling == "pool"
    assert space.identities["output"] < 1e-10


def test_identifiability_and_stream_readings(case):
    space, trace = case
    found = space.stream_readings(pixels(space), [0, 7], k=3)
    for stream in trace.points.streams:
        for block in (1, 2):
            point = found.points.number(stream, block)
            assert torch.allclose(found.logits[point], trace.logits(stream, block, [0, 7]), atol=1e-10)
            assert torch.equal(found.ranks[point].long(), trace.ranks(stream, block, [0, 7]))
            assert torch.equal(found.top_classes[point].long(), trace.top_k(3, stream, block).classes)
    ranks = torch.stack([trace.ranks("residual", b, labels=[3, 5])[..., 0] for b in range(3)])
    assert torch.allclose(class_identifiability(trace, [3, 5]), 1 - ranks / 12)
    assert torch.allclose(space.stream_readings(pixels(space), [1], chunk=1).output, found.output)


def test_interventions(case):
    space, trace = case
    batch = pixels(space)
    kept = [t for t in range(trace.n_tokens) if t != trace.n_tokens - 2]
    removed = trace_with(space, batch, [RemoveTokens(tokens=[trace.n_tokens - 2])])
    assert removed.kept_tokens == tuple(kept)
    assert torch.isnan(removed.logits(tokens=[trace.n_tokens - 2])).all()
    assert torch.allclose(removed.readout(), removed.output, atol=1e-9)
    assert not torch.allclose(removed.output, trace.output, atol=1e-3)
    cut = run_with(space, batch, [KnockOutAttention("self_only")])
    assert torch.allclose(trace_with(space, batch, [KnockOutAttention("self_only")]).readout(), cut, atol=1e-9)
    swept = sweep_heads(space, batch[:1], [0, 3])
    alone = run_with(space, batch[:1], [Ablate("head", blocks=2, heads=1)])
    expected = (alone - trace.output[:1])[0, [0, 3]].to(swept.effect)
    torch.testing.assert_close(swept.effect[:, 1, 1], expected, rtol=1e-4, atol=1e-6)
    assert sweep_tokens(space, batch[:1], [0]).effect.isfinite().all()
    other = trace_with(space, batch, [ReplaceClassEmbedding(classes=[2], by=[5])])
    assert torch.allclose(other.output[:, 2], trace.output[:, 5], atol=1e-9)
    assert torch.allclose(other.logits()[..., 2], trace.logits()[..., 5], atol=1e-9)


REFUSED = {
    "contributions": lambda space, trace: contributions(trace, [0]),
    "contributions to the output": lambda space, trace: output_contributions(trace, [0]),
    "heads": lambda space, trace: direct_by_head(trace, 1, [0]),
    "sources": lambda space, trace: direct_by_source(trace, 1, [0], [0]),
    "views": lambda space, trace: trace.snapshot(),
    "importance": lambda space, trace: importance(space, 0, images=pixels(space)),
    "rollout": lambda space, trace: importance(space, 0, images=pixels(space), method="rollout"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_needs_a_linear_head_is_refused_by_name(case, what):
    space, trace = case
    pool = type(space.model.attn_pool).__name__
    with pytest.raises(UnsupportedModelError, match=rf"pools its tokens by {pool}, .* needs a linear head") as caught:
        REFUSED[what](space, trace)
    named = {"contributions to the output": "contributions", "rollout": "importance"}.get(what, what)
    assert named in str(caught.value)


def test_files_and_studies_of_memories_are_refused_by_name(tmp_path):
    space = ClassSpace(build("SigLIP, attention pooling"))
    with pytest.raises(UnsupportedModelError, match="files"):
        space.trace(pixels(space)).save(tmp_path / "trace.safetensors")
    data = [(pixels(space)[0], 1), (pixels(space)[1], 2)]
    with pytest.raises(UnsupportedModelError, match="memories"):
        run_study(space, data, ["class_value_agreement"], progress=False)


def test_hidden_readings_of_studies(case):
    _, trace = case
    labels = torch.tensor([3, 5])
    found = read_hidden(trace, labels)
    for at, (block, stream) in enumerate(found.points):
        expected = trace.logits(stream, block, labels=[3, 5])[..., 0]
        assert torch.allclose(found.label_logit[:, at, :-1].double(), expected, atol=1e-4)
        assert torch.equal(found.label_rank[:, at, :-1], trace.ranks(stream, block, labels=[3, 5])[..., 0])
    # The last place is that of the whole picture.
    assert torch.allclose(found.label_logit[:, -1, -1].double(), trace.output[[0, 1], labels], atol=1e-4)
    assert torch.equal(found.top1[:, -1, -1], trace.output.argmax(dim=1))


def test_a_study_of_identifiability():
    space = ClassSpace(build("SigLIP, attention pooling"))
    data = [(pixels(space)[0], 1), (pixels(space)[1], 2)]
    results = run_study(space, data, ["identifiability", "accuracy"], progress=False)
    expected = class_identifiability(space.trace(pixels(space)), [1, 2])[-1].mean()
    table = results["identifiability"].table
    last = table[(table["block"] == 2) & (table["stream"] == "residual") & (table["tokens"] == "image")]
    assert last["value"].iloc[0] == pytest.approx(float(expected), abs=1e-6)
    assert 0.1 < float(expected) < 0.95


def test_the_lens_follows_the_model_and_a_trace_does_not():
    space = ClassSpace(build("SigLIP, attention pooling"))
    before = space.trace(pixels(space))
    told = before.logits(tokens=[3]).clone()
    assert space.lens is space.lens
    with torch.no_grad():
        space.model.attn_pool.mlp.fc2.weight *= 2
    assert torch.equal(before.logits(tokens=[3]), told)
    after = space.trace(pixels(space))
    assert torch.allclose(
        after.logits(tokens=[3])[0, 0], single(space.model, after.stream("residual", 2)[0, 3]), atol=1e-5
    )
    assert not torch.allclose(after.logits(tokens=[3]), told, atol=1e-2)


def test_features_of_classes_are_read_behind_the_pooling():
    model = build("SigLIP, attention pooling", num_classes=0)
    features = torch.randn(4, 32)
    with pytest.raises(UnsupportedModelError, match="no linear classifier"):
        ClassSpace(model)
    space = ClassSpace(model, class_embedding=features, class_bias=torch.arange(4.0), class_norm="pool")
    trace = space.trace(pixels(space))
    with torch.no_grad():
        expected = model(pixels(space)) @ features.T + torch.arange(4.0)
    assert torch.allclose(trace.output, expected, atol=1e-4)
    swept = sweep_heads(space, pixels(space)[:1], [0])
    torch.testing.assert_close(swept.baseline, trace.output[0, [0]], rtol=1e-3, atol=1e-4)
    assert space.random_twin().trace(pixels(space)).output.shape == (2, 4)
    # Without, tokens are read by the final norm alone, as in any model.
    assert adapt(model, class_embedding=features).linear


def test_a_pooling_that_is_not_there():
    with pytest.raises(
        ValueError, match=re.escape("class_norm='pool' needs a model that pools its tokens by a module")
    ):
        ClassSpace(build("ViT"), class_embedding=torch.randn(3, 32), class_norm="pool")
    with pytest.raises(ValueError, match="class_norm must be 'final', 'none' or 'pool', got 'map'"):
        ClassSpace(build("ViT"), class_norm="map")


def test_a_random_twin_has_its_own_pooling():
    space = ClassSpace(build("SigLIP, attention pooling"))
    twin = space.random_twin(seed=1)
    assert twin.adapter.pooling == "pool"
    assert not torch.equal(twin.model.attn_pool.latent, space.model.attn_pool.latent)
    assert "pooled by a module of the model" in space._repr_html_()
