"""Interventions on traces, in chunks and on other sizes; and what a trace with removed tokens still says."""

from __future__ import annotations

import pytest
import torch
from core.families import build, build_double, pixels

from classspace_widgets import ClassSpace
from classspace_widgets import metrics as m
from classspace_widgets.explain import importance
from classspace_widgets.interventions import (
    Ablate,
    KnockOutAttention,
    PatchResidual,
    RemoveTokens,
    run_with,
    trace_with,
)


@pytest.fixture(scope="module")
def space():
    return ClassSpace(build("ViT").double())


@pytest.fixture(scope="module")
def source(space):
    return space.trace(pixels(space, 3, seed=9), heads=True)


def test_a_trace_is_resumed_in_chunks(space):
    trace = space.trace(pixels(space, 3))
    whole = trace_with(space, trace, [Ablate("mlp", blocks=1)])
    for chunk in (1, 2):
        parts = trace_with(space, trace, [Ablate("mlp", blocks=1)], chunk=chunk)
        assert torch.allclose(parts.output, whole.output)
        assert torch.allclose(parts.increments[3], whole.increments[3])


@pytest.mark.parametrize("mode", ["mean", "resample"])
@pytest.mark.parametrize("sublayer", ["attention", "head"])
def test_sources_go_with_their_pictures_in_chunks(space, source, sublayer, mode):
    images = pixels(space, 3)
    change = [Ablate(sublayer, blocks=1, mode=mode, source=source), PatchResidual(2, [0, 3], source)]
    whole = trace_with(space, images, change)
    assert torch.allclose(trace_with(space, images, change, chunk=2).output, whole.output)
    with pytest.raises(ValueError, match=r"1 image or as many as the batch \(2\), got 3"):
        trace_with(space, images[:2], [PatchResidual(2, [0], source)])


def test_a_vector_of_another_picture_needs_the_whole_batch(space):
    with pytest.raises(ValueError, match="whole batch in one pass"):
        trace_with(space, pixels(space, 3), [PatchResidual(1, [0], (0, 2))], chunk=1)
    trace_with(space, pixels(space, 3), [PatchResidual(1, [0], (0, 2))], chunk=3)


@pytest.mark.parametrize("full_grid", [True, False])
def test_a_trace_without_all_its_tokens_is_not_resumed(space, full_grid):
    trace = trace_with(space, pixels(space), [RemoveTokens(tokens=[2])], full_grid=full_grid)
    for again in (lambda: run_with(space, trace, []), lambda: importance(trace, 1)):
        with pytest.raises(ValueError, match="tokens of this trace were removed"):
            again()


@pytest.mark.parametrize("family", ["Parallel things", "Parallel attention and MLP", "Hybrid (convolutional stem)"])
def test_patching_everything_gives_the_source(family):
    space = ClassSpace(build(family))
    source = space.trace(pixels(space, seed=9))
    patched = trace_with(space, space.trace(pixels(space)), [PatchResidual(1, source=source)])
    assert torch.allclose(patched.output, source.output, atol=1e-5)
    assert torch.allclose(patched.readout(), patched.output, atol=1e-5)


def test_a_trace_of_another_size_is_resumed():
    space = ClassSpace(build("ViT, dynamic image size"))
    images = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    trace = space.trace(images)
    found = importance(trace, 3)
    assert found.image_maps.shape == (2, 1, 3, 4)
    assert torch.equal(found.maps, importance(space, 3, images=images).maps)


def test_removed_tokens_have_no_readings(space):
    images, removed, label = pixels(space), [RemoveTokens(tokens=[2, 3])], [3, 5]
    full = trace_with(space, images, removed)
    short = trace_with(space, images, removed, full_grid=False)
    kept = [0, 1, 4]
    ranks = full.ranks("mid", 2)
    assert torch.equal(ranks[:, kept], short.ranks("mid", 2))
    assert bool((ranks[:, [2, 3]] == -1).all())
    found = m.class_identifiability(full, label)
    assert torch.equal(found[..., kept], m.class_identifiability(short, label))
    assert bool(found[..., [2, 3]].isnan().all())
    for measure in (m.residual_composition, lambda t: m.class_similarity_change(t, label)):
        assert torch.equal(measure(full)[..., kept], measure(short))
        assert not bool(measure(full)[..., [2, 3]].any())


@pytest.mark.parametrize("family", ["SigLIP, GAP", "Residual post-norm (rpn), GAP", "ViT, mean over all tokens"])
def test_pooled_readings_are_of_the_tokens_that_are_left(family):
    space = ClassSpace(build_double(family))
    images = pixels(space)
    for full_grid in (True, False):
        trace = trace_with(space, images, [RemoveTokens(tokens=[space.adapter.grid[0] + 1])], full_grid=full_grid)
        assert torch.allclose(trace.readout(), trace.output)
        shares, offset = m.output_contributions(trace, range(trace.n_classes))
        assert torch.allclose(shares.sum(dim=1).T + offset, trace.output)


@pytest.mark.parametrize("family", ["DINOv3", "RoPE, mixed", "EVA-02", "BEiT", "DINOv2 with registers"])
def test_removing_a_token_equals_cutting_all_edges_to_it(family):
    """With several prefix tokens, too: positions of what is left must be its own."""
    space = ClassSpace(build_double(family))
    images, gone = pixels(space), [len(space.adapter.prefix), len(space.adapter.prefix) + 2]
    unused = KnockOutAttention("edges", sources=gone, renormalise=True)
    removed = run_with(space, images, [RemoveTokens(tokens=gone)])
    kept = [t for t in range(space.trace(images).n_tokens) if t not in gone]
    if space.adapter.pooling == "token":
        assert torch.allclose(removed, run_with(space, images, [unused]))
    last = trace_with(space, images, [unused]).stream("residual", 2)
    short = trace_with(space, images, [RemoveTokens(tokens=gone)], full_grid=False).stream("residual", 2)
    assert torch.allclose(short, last[:, kept])
