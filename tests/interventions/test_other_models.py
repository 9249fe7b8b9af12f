"""Parallel blocks, foreign class embeddings, models in training mode."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import ParallelScalingBlock
from tiny_models import images_for, tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.causal import KnockOut, Patch, sweep_heads, sweep_tokens
from classspace_widgets.explain import importance, perturbation
from classspace_widgets.interventions import (
    Ablate,
    KnockOutAttention,
    PatchResidual,
    RemoveTokens,
    ReplaceClassEmbedding,
    run_with,
    trace_with,
)
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.studies.explanation import ExplanationStudy
from classspace_widgets.studies.readings import Readings


def test_parallel_blocks():
    space = tiny_vit(block_fn=ParallelScalingBlock)
    images = images_for(space)
    plain = run_with(space, images, [])
    gone = [3, 8]
    left = [t for t in range(17) if t not in gone]
    removed = trace_with(space, images, [RemoveTokens(tokens=gone)])
    cut = trace_with(space, images, [KnockOutAttention("edges", readers=left, sources=gone, renormalise=True)])
    torch.testing.assert_close(removed.output, cut.output, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(removed.output, plain, atol=1e-3)
    donor = space.trace(images.flip(0))
    patched = trace_with(space, images, [PatchResidual(2, source=donor)])
    torch.testing.assert_close(patched.output, donor.output)
    torch.testing.assert_close(patched.stream("residual", 2), donor.stream("residual", 2))
    sweep = sweep_heads(space, images[:1], 4)
    single = run_with(space, images[:1], [Ablate("head", blocks=2, heads=1)])
    torch.testing.assert_close(sweep.effect[0, 1, 1], single[0, 4] - plain[0, 4], rtol=1e-3, atol=1e-5)
    with pytest.raises(UnsupportedModelError, match="ablate heads instead"):
        run_with(space, images, [Ablate("mlp")])
    with pytest.raises(UnsupportedModelError, match="ParallelScalingBlock"):
        importance(space, 1, images=images)


def test_a_foreign_class_embedding():
    model = tiny_vit().model
    embedding = torch.randn(5, 24, generator=torch.Generator().manual_seed(1))
    space = ClassSpace(model, device="cpu", class_embedding=embedding)
    images = images_for(space)
    trace = space.trace(images)
    torch.testing.assert_close(run_with(space, images, []), trace.output)
    swapped = trace_with(space, images, [ReplaceClassEmbedding(classes=[0, 1], by=[1, 0])])
    torch.testing.assert_close(swapped.output, trace.output[:, [1, 0, 2, 3, 4]])
    for method in ("gradient", "direct", "chefer"):
        found = importance(space, [1, 4], images=images, method=method)
        swap = importance(
            ClassSpace(model, device="cpu", class_embedding=embedding[[4, 1]]), [1, 0], images=images, method=method
        )
        torch.testing.assert_close(found.maps, swap.maps)


POOLED = {
    "first token": {},
    "mean, then norm": {"global_pool": "avg", "class_token": False, "fc_norm": True},
    "norm, then mean": {"global_pool": "avg", "class_token": False, "fc_norm": False},
    "mean over all tokens": {"global_pool": "avg", "pool_include_prefix": True, "fc_norm": True},
}


@pytest.mark.parametrize("how", POOLED)
def test_a_class_embedding_is_served_as_the_same_matrix_in_the_head(how):
    """Sweeps, perturbation and the explanation study: equal numbers, whichever way E and b come in."""
    own = tiny_vit(**POOLED[how])
    head = own.model.head
    model = copy.deepcopy(own.model)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    foreign = ClassSpace(
        model, class_embedding=head.weight.detach().clone(), class_bias=head.bias.detach(), device="cpu"
    )
    assert foreign.adapter.pooling == own.adapter.pooling
    images, other = images_for(own), own.trace(images_for(own, 1, seed=8))

    def close(a, b):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)

    close(foreign.trace(images).output, own.trace(images).output)
    for mode in ("zero", "mean"):
        for measure in ("logit", "probability"):
            ours, theirs = (sweep_heads(s, images[:1], [0, 5], mode=mode, measure=measure) for s in (foreign, own))
            close(ours.baseline, theirs.baseline)
            close(ours.effect, theirs.effect)
            assert float(theirs.effect.abs().max()) > 1e-4
    for mode in ("knock out", KnockOut(window=2, renormalise=True), "remove", Patch(other)):
        ours, theirs = (sweep_tokens(s, images[:1], 2, mode=mode) for s in (foreign, own))
        close(ours.effect, theirs.effect)
    scores = torch.randn(2, 16, generator=torch.Generator().manual_seed(3))
    ours, theirs = (perturbation(s, images, [1, 4], scores) for s in (foreign, own))
    for order in ("negative", "positive"):
        assert torch.equal(ours.correct[order], theirs.correct[order])
        close(ours.probability[order], theirs.probability[order])
    tables = []
    for space in (foreign, own):
        study = ExplanationStudy(methods=("gradient", "direct", "chefer"), steps=5, replicates=20)
        study.update(Readings(space.trace(images), torch.tensor([1, 4]), indices=np.arange(2), pixels=images))
        tables.append(study.result().table)
    numbers = ["value", "low", "high"]
    np.testing.assert_allclose(tables[0][numbers], tables[1][numbers], atol=1e-5)
    assert tables[0].drop(columns=numbers).equals(tables[1].drop(columns=numbers))


def test_a_class_embedding_serves_a_head_that_pools_by_attention():
    model = timm.create_model(
        "vit_base_patch16_siglip_224", img_size=32, embed_dim=24, depth=2, num_heads=3, patch_size=8
    )
    embedding = torch.randn(4, 24, generator=torch.Generator().manual_seed(1))
    space = ClassSpace(model.eval(), class_embedding=embedding, device="cpu")
    image = images_for(space, 1)
    plain = space.trace(image).output
    swept = sweep_heads(space, image, [0, 3])
    torch.testing.assert_close(swept.baseline, plain[0, [0, 3]])
    single = run_with(space, image, [Ablate("head", blocks=2, heads=1)])
    torch.testing.assert_close(swept.effect[:, 1, 1], (single - plain)[0, [0, 3]], rtol=1e-3, atol=1e-5)


def test_a_model_in_training_mode_is_read_in_evaluation_mode():
    space = tiny_vit(attn_drop_rate=0.3, proj_drop_rate=0.3, drop_path_rate=0.3)
    images = images_for(space)
    cut = [KnockOutAttention("self_only"), Ablate("head", heads=0)]
    expected = run_with(space, images, cut)
    maps = importance(space, 1, images=images).maps
    sweep = sweep_heads(space, images[:1], 1).effect
    curves = perturbation(space, images, [1, 2], maps[:, 0, 1:]).probability["negative"]
    space.model.train()
    torch.testing.assert_close(run_with(space, images, cut), expected)
    torch.testing.assert_close(importance(space, 1, images=images).maps, maps)
    torch.testing.assert_close(sweep_heads(space, images[:1], 1).effect, sweep)
    again = perturbation(space, images, [1, 2], maps[:, 0, 1:]).probability["negative"]
    torch.testing.assert_close(again, curves)
    assert all(module.training for module in space.model.modules())


def test_a_trace_of_a_hybrid_is_resumed_from_its_embedding():
    model = timm.create_model("vit_tiny_r_s16_p8_224", img_size=64, num_classes=7, pretrained=False)
    space = ClassSpace(model)
    images = images_for(space)
    trace = space.trace(images)
    again = trace_with(space, trace, RemoveTokens(tokens=[1]))
    torch.testing.assert_close(again.output, run_with(space, images, [RemoveTokens(tokens=[1])]), rtol=1e-4, atol=1e-5)


def test_sweeps_take_names_and_check_their_arguments():
    space = tiny_vit()
    image = images_for(space)[:1]
    named = sweep_heads(space, image, ["class 4"], blocks=[3, 1])
    assert named.classes == (4,)
    assert named.blocks == (3, 1)
    for options, words in (
        ({"blocks": []}, "blocks is empty"),
        ({"tokens": []}, "tokens is empty"),
        ({"tokens": [17]}, r"token must be in 0\.\.16"),
        ({"mode": "patch"}, r"needs a source: mode=Patch\(trace"),
        ({"mode": "boil"}, "mode must be one of"),
    ):
        with pytest.raises(ValueError, match=words):
            sweep_tokens(space, image, 4, **options)
    with pytest.raises(TypeError, match="one other picture"):
        Patch(space.trace(images_for(space)))
    with pytest.raises(TypeError, match="a sweep takes a ClassSpace"):
        sweep_heads(space.trace(image), image, 4)
