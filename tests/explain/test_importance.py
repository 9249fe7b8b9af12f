from __future__ import annotations

import pytest
import torch
from tiny_models import images_for, tiny_vit
from torch.nn import functional

from classspace_widgets import ClassSpace
from classspace_widgets.explain import importance
from classspace_widgets.models import UnsupportedModelError

LOSSES = ("logit", "cross_entropy", "paper")


def by_autograd(space: ClassSpace, images, classes, token, loss, pooled=None):
    """The paper's gradient with nothing of the package: timm's unfused branch, hooks, autograd, [B, K, L, H, T].

    ``pooled``: (weights over tokens, norm first), instead of a token.
    """
    modules = [block.attn for block in space.adapter.blocks]
    before = [module.fused_attn for module in modules]
    weights, added, handles = [], [], []

    def drop(_module, _args, output):
        weights.append(output)
        return output

    for block in space.adapter.blocks:
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_hook(drop))
        handles.append(block.drop_path1.register_forward_hook(lambda _m, _a, out: added.append(out)))
    try:
        with torch.enable_grad():
            space.model(images)
    finally:
        for handle in handles:
            handle.remove()
        for module, value in zip(modules, before, strict=True):
            module.fused_attn = value
    norm = space.adapter.norm or torch.nn.Identity()
    shares = []
    for attention, output in zip(weights, added, strict=True):
        if pooled is None:
            logits = space.model.head(norm(output[:, token]))
        elif pooled[1]:
            logits = torch.einsum("t,btc->bc", pooled[0], space.model.head(norm(output)))
        else:
            logits = space.model.head(norm(torch.einsum("t,btd->bd", pooled[0], output)))
        per_class = []
        for c in classes:
            target = torch.full((len(images),), c)
            value = {
                "logit": lambda target=target, logits=logits: logits[:, target[0]],
                "cross_entropy": lambda target=target, logits=logits: (
                    -functional.cross_entropy(logits, target, reduction="none")
                ),
                "paper": lambda target=target, logits=logits: (
                    -functional.cross_entropy(logits.softmax(dim=-1), target, reduction="none")
                ),
            }[loss]()
            (slope,) = torch.autograd.grad(value.sum(), attention, retain_graph=True)
            per_class.append(slope.sum(dim=2))
        shares.append(torch.stack(per_class, dim=1))
    return torch.stack(shares, dim=2)


@pytest.mark.parametrize("loss", LOSSES)
def test_closed_form_equals_autograd(family, loss):
    images, classes, token = images_for(family), [4, 1], 3
    expected = by_autograd(family, images, classes, token, loss)
    found = importance(family, classes, images=images, token=token, loss=loss, heads=True)
    scale = expected.abs().max()
    torch.testing.assert_close(found.by_head / scale, expected / scale, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.by_block, found.by_head.sum(dim=3))
    torch.testing.assert_close(found.maps, found.by_block.sum(dim=2))
    summed = importance(family, classes, images=images, token=token, loss=loss)
    torch.testing.assert_close(summed.by_block, found.by_block, rtol=1e-4, atol=1e-5 * float(scale))
    assert summed.by_head is None


def test_the_default_token_is_where_the_output_is_read(family):
    images, adapter = images_for(family), family.adapter
    pooled = None
    if adapter.pooling in ("mean_norm", "norm_mean"):
        tokens = family.trace(images).n_tokens
        weights = torch.zeros(tokens)
        first = 0 if adapter.pool_prefix else len(adapter.prefix)
        weights[first:] = 1 / (tokens - first)
        pooled = (weights, adapter.pooling == "norm_mean")
    expected = by_autograd(family, images, [2], 0, "logit", pooled)
    found = importance(family, [2], images=images, heads=True)
    # The gradient with respect to every row, summed over rows, is what a shift of all rows alike does.
    torch.testing.assert_close(found.by_head, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_pooling_after_the_norm(loss):
    space = tiny_vit(global_pool="avg", class_token=False, fc_norm=False)
    assert space.adapter.pooling == "norm_mean"
    images = images_for(space)
    weights = torch.full((16,), 1 / 16)
    found = importance(space, [2, 5], images=images, heads=True, loss=loss)
    if loss == "logit":
        expected = by_autograd(space, images, [2, 5], 0, loss, (weights, True))
        torch.testing.assert_close(found.by_head, expected, rtol=1e-4, atol=1e-5)
    else:
        single = [importance(space, [2, 5], images=images, heads=True, loss=loss, token=t).by_head for t in range(16)]
        torch.testing.assert_close(found.by_head, torch.stack(single).mean(dim=0), rtol=1e-4, atol=1e-5)


def test_all_classes_at_once_and_both_ways_of_multiplying(family):
    images = images_for(family)
    everything = importance(family, range(7), images=images, heads=True)
    tall = torch.arange(7).repeat(12)
    many = importance(family, tall, images=images, heads=True)
    one = [importance(family, c, images=images, heads=True).by_head for c in range(7)]
    torch.testing.assert_close(everything.by_head, torch.cat(one, dim=1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(many.by_head[:, :7], everything.by_head, rtol=1e-4, atol=1e-5)
    summed = importance(family, tall, images=images)
    torch.testing.assert_close(summed.by_block[:, :7], everything.by_block, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_scale_norm_is_refused_by_name_and_differentiated_when_asked(loss):
    space = tiny_vit(scale_attn_norm=True)
    images = images_for(space)
    with pytest.raises(UnsupportedModelError, match=r"Attention: a norm acts .* fallback='autograd'"):
        importance(space, 1, images=images)
    if loss == "logit":
        # Only the gradient has the way by autograd: another method is not served by a gradient under its name.
        with pytest.raises(UnsupportedModelError, match="a norm acts"):
            importance(space, 1, images=images, method="direct", fallback="autograd")
    found = importance(space, [1, 3], images=images, fallback="autograd", heads=True, loss=loss)
    torch.testing.assert_close(found.by_head, by_autograd(space, images, [1, 3], 0, loss), rtol=1e-4, atol=1e-6)


def test_gates_and_differential_attention_are_refused_by_name():
    diff = tiny_vit(attn_layer="diff")
    with pytest.raises(UnsupportedModelError, match="DiffAttention"):
        importance(diff, 1, images=images_for(diff))
    with pytest.raises(UnsupportedModelError, match="DiffAttention"):
        importance(diff, 1, images=images_for(diff), fallback="autograd")


def test_post_norm_is_differentiated_when_asked():
    from timm.models.vision_transformer import ResPostBlock

    space = tiny_vit(block_fn=ResPostBlock)
    images = images_for(space)
    with pytest.raises(UnsupportedModelError, match="after the output projection"):
        importance(space, 1, images=images)
    found = importance(space, [1], images=images, fallback="autograd", heads=True)
    torch.testing.assert_close(found.by_head, by_autograd(space, images, [1], 0, "logit"), rtol=1e-4, atol=1e-6)


def test_direct_contributions_add_up_to_the_logit(family):
    """Sources, biases, MLPs and the embedding together are the logit: nothing is left out or counted twice."""
    images = images_for(family)
    trace = family.trace(images)
    found = importance(family, range(7), images=images, method="direct", heads=True)
    lens = family.lens
    final = trace.stream("residual", trace.n_blocks)
    first = 0 if trace.pool_prefix else len(trace.prefix)
    if trace.pooling == "token":
        pool = lambda x: x[:, 0]  # noqa: E731
        sigma = lens.sigma(pool(final))
    else:
        pool = lambda x: x[:, first:].mean(dim=1)  # noqa: E731
        sigma = lens.sigma(pool(final))
    total = found.maps.sum(dim=-1)
    rest = trace.increments[0] + sum(trace.increments[2 * block] for block in range(1, trace.n_blocks + 1))
    total = total + lens.raw(pool(rest)) / sigma[:, None]
    for block in range(1, trace.n_blocks + 1):
        total = total + lens.raw(trace.out_projection(block)[1]) / sigma[:, None]
    torch.testing.assert_close(total + lens.offset, trace.output, rtol=1e-4, atol=1e-4)


def test_direct_contributions_when_pooling_after_the_norm():
    space = tiny_vit(global_pool="avg", class_token=False, fc_norm=False)
    images = images_for(space)
    trace = space.trace(images)
    found = importance(space, range(7), images=images, method="direct").maps
    sigma = space.lens.sigma(trace.stream("residual", 3))[..., None]
    expected = torch.zeros(2, 7)
    for block in range(1, 4):
        heads = trace.stream("attention", block) - trace.out_projection(block)[1]
        expected += (space.lens.raw(heads) / sigma).mean(dim=1)
    torch.testing.assert_close(found.sum(dim=-1), expected, rtol=1e-4, atol=1e-5)


def slow_relevance(space, images, c):
    """Chefer et al. as the paper's authors wrote it: one autograd call a block."""
    weights, handles = [], []
    for block in space.adapter.blocks:
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_hook(lambda _m, _a, out: weights.append(out)))
    try:
        with torch.enable_grad():
            output = space.model(images)[0, c]
            relevance = torch.eye(weights[0].shape[-1])
            for attention in weights:
                (slope,) = torch.autograd.grad(output, attention, retain_graph=True)
                step = (slope[0] * attention[0]).clamp(min=0).mean(dim=0).detach()
                relevance = relevance + step @ relevance
            rollout = torch.eye(weights[0].shape[-1])
            for attention in weights:
                step = attention[0].mean(dim=0) + torch.eye(weights[0].shape[-1])
                rollout = (step / step.sum(dim=-1, keepdim=True)) @ rollout
    finally:
        for handle in handles:
            handle.remove()
        for block in space.adapter.blocks:
            block.attn.fused_attn = True
    return relevance.detach(), rollout.detach(), weights[-1][0].mean(dim=0).detach()


def test_baselines_equal_their_slow_versions(family):
    images = images_for(family)
    prefix = 0 if family.adapter.pool_prefix else len(family.adapter.prefix)
    found = {
        method: importance(family, [5, 2], images=images, method=method).maps
        for method in ("chefer", "rollout", "attention")
    }
    for image in range(2):
        for k, c in enumerate((5, 2)):
            slow = slow_relevance(family, images[image : image + 1], c)
            for name, matrix in zip(found, slow, strict=True):
                row = matrix[0] if family.adapter.pooling == "token" else matrix[prefix:].mean(dim=0)
                torch.testing.assert_close(found[name][image, k], row, rtol=1e-3, atol=1e-5)


def test_baselines_of_frozen_parameters(space):
    model = tiny_vit().model.requires_grad_(False)
    frozen = ClassSpace(model, device="cpu")
    images = images_for(space)
    for method in ("chefer", "gradient"):
        a = importance(frozen, 3, images=images, method=method).maps
        torch.testing.assert_close(a, importance(space, 3, images=images, method=method).maps)


def test_from_a_trace_and_with_names(space):
    images = images_for(space)
    trace = space.trace(images)
    for method in ("gradient", "direct", "chefer", "rollout", "attention"):
        a = importance(trace, [space.class_names[3]], method=method)
        b = importance(space, torch.tensor([[3], [3]]), images=images, method=method)
        torch.testing.assert_close(a.maps, b.maps)
        assert a.signed is (method in ("gradient", "direct"))
        assert not a.maps.requires_grad
    predicted = importance(space, images=images)
    assert torch.equal(predicted.classes[:, 0], trace.output.argmax(dim=1))
    assert predicted.image_maps.shape == (2, 1, 4, 4)
    torch.testing.assert_close(predicted.scores, predicted.image_maps.flatten(2))


def test_the_model_is_as_before(space):
    images = images_for(space)
    before = [sorted(m.__dict__) for m in space.model.modules()]
    for method in ("gradient", "direct", "chefer", "rollout", "attention"):
        importance(space, images=images, method=method)
    with pytest.raises(ValueError, match="shape"):
        importance(space, torch.zeros(3, 1), images=images)
    assert [sorted(m.__dict__) for m in space.model.modules()] == before
    for module in space.model.modules():
        assert not any(module.__dict__[k] for k in module.__dict__ if k.endswith("_hooks") and module.__dict__[k])
    assert all(p.grad is None for p in space.model.parameters())


def test_bad_input(space):
    images = images_for(space)
    for call, message in [
        (lambda: importance(space, 7, images=images), r"class must be in 0..6"),
        (lambda: importance(space, [], images=images), "classes is empty"),
        (lambda: importance(space, torch.tensor([9]), images=images), r"class must be in 0..6"),
        (lambda: importance(space, torch.tensor([7]), images=images), r"class must be in 0..6, got 7"),
        (lambda: importance(space, torch.tensor([[0], [-1]]), images=images), r"class must be in 0..6, got -1"),
        (lambda: importance(space, 1), "needs images="),
        (lambda: importance(space.trace(images), 1, images=images), "contains its own images"),
        (lambda: importance(space, 1, images=images, method="magic"), "method must be one of"),
        (lambda: importance(space, 1, images=images, loss="hinge"), "loss must be one of"),
        (lambda: importance(space, 1, images=images, loss="paper", method="direct"), "belongs to method='gradient'"),
        (lambda: importance(space, 1, images=images, method="rollout", heads=True), "no importance by head"),
        (lambda: importance(space, 1, images=images, token=17), r"token must be in 0..16"),
        (lambda: importance(space, 1, images=images, fallback="hope"), "fallback must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_methods_that_differentiate_work_in_inference_mode():
    space = tiny_vit()
    images = images_for(space)
    for options in ({"method": "chefer"}, {"loss": "paper", "fallback": "autograd"}):
        plain = importance(space, 3, images=images, **options).maps
        with torch.inference_mode():
            inside = importance(space, 3, images=images.clone(), **options).maps
            given = images.clone()
        assert torch.equal(inside, plain)
        assert torch.equal(importance(space, 3, images=given, **options).maps, plain)
