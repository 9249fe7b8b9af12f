from __future__ import annotations

import pytest
import torch
from tiny_models import images_for, tiny_vit

from classspace_widgets.causal import KnockOut, Patch, sweep_heads, sweep_tokens
from classspace_widgets.causal.sweeps import Cancelled, head_steps
from classspace_widgets.interventions import (
    Ablate,
    KnockOutAttention,
    PatchResidual,
    RemoveTokens,
    run_with,
    trace_with,
)
from classspace_widgets.interventions.resume import Resumable


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_heads_equal_one_run_each(family, mode):
    image = images_for(family, 1)
    plain = run_with(family, image, [])[0]
    sweep = sweep_heads(family, image, [2, 5], mode=mode)
    close(sweep.baseline, plain[[2, 5]])
    assert sweep.effect.shape == (2, len(family.adapter.blocks), family.adapter.heads)
    for i, block in enumerate(sweep.blocks):
        for head in sweep.places:
            output = run_with(family, image, [Ablate("head", blocks=block, heads=head, mode=mode)])[0]
            close(sweep.effect[:, i, head], (output - plain)[[2, 5]])


def test_removed_tokens_equal_one_run_each(family):
    """At block 1 a token that is absent from the block on is a removed token."""
    image = images_for(family, 1)
    plain = run_with(family, image, [])[0]
    sweep = sweep_tokens(family, image, 3, mode="remove", blocks=[1])
    prefix = len(family.adapter.prefix)
    assert sweep.effect[:, :, :prefix].isnan().all()
    for token in (prefix, prefix + 5, sweep.places[-1]):
        output = run_with(family, image, [RemoveTokens(tokens=token)])[0]
        close(sweep.effect[0, 0, token], (output - plain)[3])


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("window", [1, 2])
def test_knocked_out_tokens_equal_one_run_each(family, window, renormalise):
    image = images_for(family, 1)
    plain = run_with(family, image, [])[0]
    sweep = sweep_tokens(family, image, 3, mode=KnockOut(window, renormalise), tokens=[0, 4, 7])
    n = len(sweep.places)
    assert sweep.effect[:, :, [1, 2, 3, 5, 6]].isnan().all()
    for i, block in enumerate(sweep.blocks):
        for token in (0, 4, 7):
            cut = KnockOutAttention(
                "edges",
                readers=[t for t in range(n) if t != token],
                sources=token,
                blocks=range(block, min(block + window, 4)),
                renormalise=renormalise,
            )
            close(sweep.effect[0, i, token], (run_with(family, image, [cut])[0] - plain)[3])


def test_patched_tokens_equal_one_run_each(family):
    image, other = images_for(family, 1), images_for(family, 1, seed=8)
    plain, donor = run_with(family, image, [])[0], family.trace(other)
    sweep = sweep_tokens(family, image, [1, 3], mode=Patch(donor))
    assert sweep.blocks == (0, 1, 2)
    for i, block in enumerate(sweep.blocks):
        for token in (0, 6):
            output = run_with(family, image, [PatchResidual(block, tokens=token, source=donor)])[0]
            close(sweep.effect[:, i, token], (output - plain)[[1, 3]])


def test_late_removal_equals_a_resumed_pass(space):
    image = images_for(space, 1)
    run = Resumable.record(space.adapter, image)
    sweep = sweep_tokens(space, image, 3, mode="remove", blocks=[3])
    x = run.inputs[2][:, [t for t in range(17) if t != 9]]
    output = space.model.forward_head(space.model.norm(space.adapter.blocks[2](x)))
    close(sweep.effect[0, 0, 9], (output - run.output)[0, 3].detach())


def test_unfused_attention_gives_the_same_sweep():
    space = tiny_vit()
    image = images_for(space, 1)
    fused = sweep_tokens(space, image, 3).effect
    for block in space.adapter.blocks:
        block.attn.fused_attn = False
    close(sweep_tokens(space, image, 3).effect, fused)


def test_probabilities(space):
    image = images_for(space, 1)
    sweep = sweep_heads(space, image, list(range(7)), measure="probability")
    close(sweep.baseline.sum(), torch.tensor(1.0))
    close(sweep.effect.sum(dim=0), torch.zeros(3, 3))


def test_a_trace_can_be_swept_and_intervened_on(family):
    image = images_for(family, 1)
    trace = family.trace(image)
    assert torch.equal(run_with(family, trace, []), trace.output)
    cut = [RemoveTokens(tokens=[6]), KnockOutAttention("self_only", blocks=1)]
    a, b = trace_with(family, trace, cut), trace_with(family, image, cut)
    torch.testing.assert_close(a.output, b.output)
    close(sweep_heads(family, trace, 3).effect, sweep_heads(family, image, 3).effect)
    with pytest.raises(ValueError, match="whole picture"):
        run_with(family, a, [])


def test_progress_and_cancel(space):
    image, seen = images_for(space, 1), []
    sweep_heads(space, image, 0, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    with pytest.raises(Cancelled):
        sweep_heads(space, image, 0, cancelled=lambda: True)
    steps = head_steps(space, image, 0)
    next(steps)
    steps.close()
    assert not any(m.__dict__.get("forward") for m in space.model.modules())


def test_bad_input(space):
    image = images_for(space, 1)
    for call, message in [
        (lambda: KnockOut(window=0), "window must be at least 1"),
        (lambda: sweep_heads(space, image, 7), r"class must be in 0..6"),
        (lambda: sweep_heads(space, image, 1, mode="boil"), "mode must be"),
        (lambda: sweep_heads(space, image, 1, measure="rank"), "measure must be"),
        (lambda: sweep_heads(space, image, 1, blocks=[4]), r"block must be in 1..3"),
        (lambda: sweep_heads(space, images_for(space, 2), 1), "over one picture"),
        (lambda: sweep_tokens(space, image, 1, mode="patch"), "needs a source"),
        (lambda: sweep_tokens(space, image, 1, mode="remove", tokens=[0]), "prefix tokens"),
        (
            lambda: sweep_tokens(space, image, 1, mode=Patch(space.trace(image)), blocks=[99]),
            r"block must be .*0\.\.2, got 99",
        ),
        (lambda: sweep_tokens(space, image, 1, tokens=[17]), r"token must be in 0..16"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("renormalise", [False, True])
def test_sweeps_of_unfused_attention(renormalise):
    """Where a model computes its weights explicitly, a hidden token still reads itself."""
    space = tiny_vit()
    image = images_for(space, 1)
    fused = (
        sweep_tokens(space, image, 2, mode=KnockOut(renormalise=renormalise)),
        sweep_heads(space, image, 2, mode="mean"),
    )
    for block in space.model.blocks:
        block.attn.fused_attn = False
    unfused = (
        sweep_tokens(space, image, 2, mode=KnockOut(renormalise=renormalise)),
        sweep_heads(space, image, 2, mode="mean"),
    )
    for a, b in zip(fused, unfused, strict=True):
        close(a.effect, b.effect)
    plain = run_with(space, image, [])[0, 2]
    others = [t for t in range(17) if t != 5]
    single = run_with(
        space, image, [KnockOutAttention("edges", readers=others, sources=[5], blocks=[2], renormalise=renormalise)]
    )[0, 2]
    close(unfused[0].effect[0, 1, 5], single - plain)
