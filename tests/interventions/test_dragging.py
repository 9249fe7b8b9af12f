"""States carried from one place to another: between blocks, tokens and pictures; pairs of scenes; shares restored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from slow_vit import slow_forward
from tiny_models import images_for, tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.causal import sweep_tokens
from classspace_widgets.interventions import PatchResidual, RemoveTokens, run_with, trace_with
from classspace_widgets.scenes import pair


@pytest.fixture(scope="module")
def tiny():
    space = tiny_vit()
    images = images_for(space)
    return space, images, space.trace(images)


def expected(space, trace, image, patches):
    """Logits of the slow pass of one picture, with vectors written to tokens after blocks."""
    return slow_forward(space.model, trace.increments[0][image].double().numpy(), patches=patches)[1]


def test_a_state_of_another_picture_at_another_block_and_token(tiny):
    space, images, trace = tiny
    donor = trace.image(1)
    vector = donor.stream("residual", 3)[0, 7].numpy()
    # Blocks may go back: the donor's pass is complete.
    change = PatchResidual(source_block=3, target_block=1, source_token=7, source=donor, tokens=[2, 5])
    found = run_with(space, images[:1], change)[0]
    slow = expected(space, trace, 0, [(1, 2, vector), (1, 5, vector)])
    assert np.allclose(found.numpy(), slow, atol=1e-4)
    named = PatchResidual(1, [2, 5], "a", source_block=3, source_token=7)
    assert torch.equal(run_with(space, images[:1], named, sources={"a": donor})[0], found)


def test_a_state_of_the_same_picture_from_an_earlier_block(tiny):
    space, images, trace = tiny
    change = PatchResidual(source_block=1, target_block=2, source_token=9, tokens=[0])
    found = run_with(space, images, change)
    for image in (0, 1):
        vector = trace.stream("residual", 1)[image, 9].numpy()
        assert np.allclose(found[image].numpy(), expected(space, trace, image, [(2, 0, vector)]), atol=1e-4)
    from_embedding = run_with(space, images, PatchResidual(2, [0], source_block=0, source_token=9))
    vector = trace.increments[0][0, 9].numpy()
    assert np.allclose(from_embedding[0].numpy(), expected(space, trace, 0, [(2, 0, vector)]), atol=1e-4)
    of_the_first = run_with(space, images, PatchResidual(2, [0], source=(0, 9), source_block=1))
    vector = trace.stream("residual", 1)[0, 9].numpy()
    assert np.allclose(of_the_first[1].numpy(), expected(space, trace, 1, [(2, 0, vector)]), atol=1e-4)


def test_states_of_the_same_pass_are_those_of_the_changed_pass(tiny):
    space, images, _ = tiny
    gone = [RemoveTokens(tokens=[3]), PatchResidual(source_block=1, target_block=2, source_token=9, tokens=[0])]
    short = trace_with(space, images, gone, full_grid=False)
    plain = trace_with(space, images, [RemoveTokens(tokens=[3])], full_grid=False)
    assert torch.allclose(short.stream("residual", 2)[:, 0], plain.stream("residual", 1)[:, 8], atol=1e-6)
    with pytest.raises(ValueError, match=r"tokens \[9\] are removed"):
        run_with(space, images, [RemoveTokens(tokens=[9]), gone[1]])
    lost = trace_with(space, images[:1], [RemoveTokens(tokens=[3])])
    with pytest.raises(ValueError, match="tokens of the source were removed"):
        run_with(space, images, PatchResidual(1, [0], lost, source_token=3))


def test_a_patch_dragged_onto_itself_changes_nothing(tiny):
    space, images, trace = tiny
    for change in (
        PatchResidual(2, [6], source_token=6),
        PatchResidual(2, [6], trace, source_token=6),
        PatchResidual(2, [6], trace),
        PatchResidual(0, [6], source_token=6),
    ):
        again = trace_with(space, images, change)
        assert torch.equal(again.output, trace.output)
        assert all(torch.equal(a, b) for a, b in zip(again.increments, trace.increments, strict=True))


def test_all_tokens_of_a_picture_give_its_answer(tiny):
    space, images, trace = tiny
    donor = trace.image(1)
    for block in (0, 1, 3):
        assert torch.equal(run_with(space, images[:1], PatchResidual(block, None, donor)), space.model(images[1:2]))


@pytest.mark.parametrize("seed", range(6))
def test_a_pair_is_equal_outside_the_swapped_object(seed):
    fish, boat = pair(seed, swap=("fish", "boat"))
    assert (fish.class_name, boat.class_name) == ("fish", "boat")
    assert fish.context == boat.context
    outside = (fish.mask != 1) & (boat.mask != 1)
    assert outside.any()
    assert np.array_equal(fish.image[outside], boat.image[outside])
    assert not np.array_equal(fish.image, boat.image)
    assert np.array_equal(fish.mask[outside], boat.mask[outside])
    names = [o for scene in (fish, boat) for o, _ in scene.objects[1:]]
    assert not {fish.label, boat.label} & set(names)
    again, _ = pair(seed, swap=("fish", "boat"))
    assert np.array_equal(again.image, fish.image)


def test_pairs_of_the_same_class_are_refused():
    with pytest.raises(ValueError, match="two different classes"):
        pair(0, swap=("fish", "fish"))
    with pytest.raises(ValueError, match="boat"):
        pair(0, swap=("fish", "baot"))
    with pytest.raises(ValueError, match="there is no context 'sae'"):
        pair(0, swap=("fish", "boat"), context="sae")


def test_the_share_that_a_patch_restores():
    space = ClassSpace.bundled("contrast")
    clean, corrupt = pair(2, swap=("fish", "boat"))
    swept = sweep_tokens(
        space, classes=["fish", "boat"], clean=clean.picture, corrupt=corrupt.picture, blocks=[0, 4, 7], progress=False
    )
    fish, boat = swept.classes
    full = {name: space.trace(scene.picture).output[0] for name, scene in (("clean", clean), ("corrupt", corrupt))}
    assert torch.allclose(swept.clean, full["clean"][[fish, boat]], atol=1e-4)
    assert torch.allclose(swept.baseline, full["corrupt"][[fish, boat]], atol=1e-4)
    source = space.trace(clean.picture)
    for i, block in enumerate(swept.blocks):
        for token in (0, 60):
            patched = run_with(space, corrupt.picture, PatchResidual(block, [token], source))[0, fish]
            share = (patched - full["corrupt"][fish]) / (full["clean"][fish] - full["corrupt"][fish])
            assert swept.restored[0, i, token].item() == pytest.approx(share.item(), abs=1e-3)
    # A patch outside both objects is the same in both pictures.
    side = space.adapter.grid[0]
    cells = ((clean.mask == 1) | (corrupt.mask == 1)).reshape(side, 96 // side, side, 96 // side)
    inside = cells.any(axis=(1, 3)).ravel()
    assert swept.restored[:, 0, 1:][:, ~torch.from_numpy(inside)].abs().max() < 1e-5
    assert swept.restored[0, 2, 0] > 0.5


def test_clean_and_corrupt_belong_together():
    space = ClassSpace.bundled()
    clean, corrupt = (scene.picture for scene in pair(2, swap=("fish", "boat")))
    for arguments, message in (
        ({"clean": clean}, "belong together, got only clean="),
        ({"corrupt": clean}, "belong together, got only corrupt="),
        ({"image": clean, "clean": clean, "corrupt": corrupt}, "not both"),
        ({"mode": "remove", "clean": clean, "corrupt": corrupt}, "leave mode='remove' out"),
        ({}, "needs a picture, or two"),
        ({"clean": tiny_vit().trace(torch.zeros(1, 3, 32, 32)), "corrupt": corrupt}, "clean must have 8 blocks"),
    ):
        with pytest.raises(ValueError, match=message):
            sweep_tokens(space, classes="fish", progress=False, **arguments)
    swept = sweep_tokens(space, clean, "fish", tokens=[0], blocks=[8], progress=False)
    with pytest.raises(ValueError, match="has no clean picture"):
        _ = swept.restored
