from __future__ import annotations

import pytest
import torch
from tiny_models import images_for, tiny_vit

from classspace_widgets.explain import importance, perturbation, random_scores
from classspace_widgets.interventions import RemoveTokens, run_with
from classspace_widgets.interventions import subsets as packing


@pytest.mark.parametrize("budget", [4000, 70, 1])
def test_curves_equal_one_pass_a_step(family, budget, monkeypatch):
    monkeypatch.setattr(packing, "TOKENS_AT_ONCE", budget)
    images, prefix = images_for(family), len(family.adapter.prefix)
    scores = torch.randn(2, 16, generator=torch.Generator().manual_seed(3))
    labels = [2, 4]
    steps = (16, 11, 6, 1)
    found = perturbation(family, images, labels, scores, kept=steps)
    assert found.kept == steps
    for b in range(2):
        best = scores[b].argsort(descending=True)
        for s, n in enumerate(steps):
            for order, left in (("negative", best[:n]), ("positive", best[16 - n :])):
                gone = sorted(set(range(16)) - set(left.tolist()))
                remove = [RemoveTokens(tokens=[t + prefix for t in gone])] if gone else []
                logits = run_with(family, images[b : b + 1], remove)[0]
                probability = logits.softmax(dim=0)[labels[b]]
                torch.testing.assert_close(found.probability[order][b, s], probability, rtol=1e-3, atol=1e-5)
                assert bool(found.correct[order][b, s]) == (int(logits.argmax()) == labels[b])


def test_areas_by_hand(space):
    scores = torch.arange(16.0).repeat(2, 1)
    found = perturbation(space, images_for(space), [0, 1], scores, kept=[16, 10, 2])
    p = found.probability["negative"].double()
    expected = ((p[:, 0] + p[:, 1]) / 2 * 6 + (p[:, 1] + p[:, 2]) / 2 * 8) / 14
    torch.testing.assert_close(found.area("negative", "probability"), expected)
    with pytest.raises(ValueError, match=r"order must be one of .*, got 'neg'"):
        found.area("neg")
    full = perturbation(space, images_for(space), [0, 1], scores)
    assert full.kept == tuple(range(16, 0, -1))
    assert ((full.area("positive") >= 0) & (full.area("positive") <= 1)).all()


def test_reversed_scores_swap_the_orders(space):
    images = images_for(space)
    scores = torch.randn(2, 16, generator=torch.Generator().manual_seed(4))
    a = perturbation(space, images, [0, 1], scores)
    b = perturbation(space, images, [0, 1], -scores)
    torch.testing.assert_close(a.probability["negative"], b.probability["positive"])
    torch.testing.assert_close(a.area("positive", "probability"), b.area("negative", "probability"))


def test_one_token_that_decides():
    """A model whose answer is in one token: removing it first or last is the whole difference."""
    space = tiny_vit(depth=1)
    model = space.model
    with torch.no_grad():
        block = model.blocks[0]
        block.attn.qkv.weight.zero_()
        block.attn.qkv.bias.zero_()
        block.attn.qkv.weight[48:].copy_(torch.eye(24))
        block.attn.proj.weight.copy_(torch.eye(24))
        block.attn.proj.bias.zero_()
        block.mlp.fc2.weight.zero_()
        block.mlp.fc2.bias.zero_()
        block.norm1.weight.fill_(1)
        block.norm1.bias.zero_()
        model.pos_embed.zero_()
        model.cls_token.zero_()
        model.patch_embed.proj.weight.zero_()
        model.patch_embed.proj.bias.zero_()
        model.pos_embed[0, 6, 3] = 10.0
        model.norm.weight.fill_(1)
        model.norm.bias.zero_()
        model.head.weight.zero_()
        model.head.weight[5, 3] = 1.0
        model.head.bias.zero_()
        model.head.bias[2] = 0.5
    space = type(space)(model, device="cpu")
    image = torch.zeros(1, 3, 32, 32)
    scores = importance(space, 5, images=image).scores[:, 0]
    assert int(scores.argmax()) == 5
    curves = perturbation(space, image, [5], scores)
    assert curves.correct["negative"].all()
    assert curves.correct["positive"][0, 0]
    assert not curves.correct["positive"][0, 1:].any()


def test_random_scores_depend_only_on_the_picture():
    a = random_scores([3, 7, 9], 10, repeat=1, seed=5)
    b = random_scores([9, 3], 10, repeat=1, seed=5)
    assert torch.equal(a[0], b[1])
    assert torch.equal(a[2], b[0])
    assert not torch.equal(a[0], random_scores([3], 10, repeat=2, seed=5)[0])


def test_bad_input(space):
    images, scores = images_for(space), torch.zeros(2, 16)
    for call, message in [
        (lambda: perturbation(space, images, [0, 1], scores[:, :5]), r"shape \[B, P\] with P=16"),
        (lambda: perturbation(space, images, [0], scores), r"labels must have shape"),
        (lambda: perturbation(space, images, torch.eye(7)[[0, 1]], scores), r"for one-hot .* labels.argmax\(1\)"),
        (lambda: perturbation(space, images, "ab", scores), r"labels must have shape \[B\]=\(2,\), got \(\)"),
        (lambda: perturbation(space, images, [0, 1, 2], torch.zeros(3, 16)), "the pass has 2"),
        (lambda: perturbation(space, images, [0, 1], scores, kept=[0]), r"in 1..16"),
        (lambda: perturbation(space, images, [0, 1], scores, orders=["up"]), "orders must be"),
        (lambda: perturbation(space, images, [0, 1], scores * torch.nan), "must not be NaN"),
        (lambda: perturbation(space, images, [0, 1], scores).area("negative", "loss"), "measure must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_tied_tokens_go_in_the_order_of_the_tokens(space):
    """Equal scores: the first token counts as the best, whatever sorts them."""
    images = images_for(space)
    tied = torch.tensor([1.0, 2.0, 2.0, 1.0] * 4).repeat(2, 1)
    order = sorted(range(16), key=lambda t: (-float(tied[0, t]), t))
    distinct = torch.empty(16)
    distinct[order] = torch.arange(16, 0, -1).float()
    a = perturbation(space, images, [0, 1], tied)
    b = perturbation(space, images, [0, 1], distinct.repeat(2, 1))
    constant = perturbation(space, images, [0, 1], torch.zeros(2, 16))
    falling = perturbation(space, images, [0, 1], torch.arange(16, 0, -1).float().repeat(2, 1))
    for found, expected in ((a, b), (constant, falling)):
        for way in ("negative", "positive"):
            torch.testing.assert_close(found.probability[way], expected.probability[way])
    assert not torch.allclose(constant.probability["negative"], constant.probability["positive"], atol=1e-4)


def test_random_scores_are_a_function_of_seed_repeat_and_place():
    plain = random_scores([3, 4], 16)
    assert plain.shape == (2, 16)
    assert torch.equal(plain, random_scores([3, 4], 16))
    assert torch.equal(plain.flip(0), random_scores([4, 3], 16))
    others = [random_scores([3, 4], 16, repeat=1), random_scores([3, 4], 16, seed=1), random_scores([5, 6], 16)]
    for n, one in enumerate(others):
        assert not torch.equal(one, plain)
        assert all(not torch.equal(one, other) for other in others[:n])
    assert bool(((plain >= 0) & (plain < 1)).all())


def test_the_area_is_over_the_share_of_kept_tokens(space):
    """A curve that does not change has its own height as area, wherever it starts and ends."""
    found = perturbation(space, images_for(space), [0, 1], torch.rand(2, 16), kept=[13, 9, 4])
    flat = {order: torch.full((2, 3), 0.25) for order in found.probability}
    curves = type(found)(found.kept, found.correct, flat)
    torch.testing.assert_close(curves.area("negative", "probability"), torch.full((2,), 0.25, dtype=torch.float64))
