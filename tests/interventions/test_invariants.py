from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from tiny_models import images_for, tiny_vit
from torch import nn

from classspace_widgets import ClassSpace
from classspace_widgets.causal import sweep_heads, sweep_tokens
from classspace_widgets.explain import perturbation
from classspace_widgets.interventions import (
    Ablate,
    KnockOutAttention,
    MaskTokens,
    PatchResidual,
    RemoveTokens,
    ReplaceClassEmbedding,
    intervene,
    run_with,
    trace_with,
)
from classspace_widgets.models import UnsupportedModelError

ONE_OF_EACH = [
    MaskTokens(tokens=4),
    RemoveTokens(tokens=[5]),
    KnockOutAttention("edges", sources=[6], blocks=[1, 2]),
    KnockOutAttention("self_only", blocks=[3], renormalise=True),
    Ablate("head", blocks=[1], heads=[0]),
    Ablate("mlp", blocks=[2]),
    PatchResidual(2, tokens=[4], source=(0, 7)),
    ReplaceClassEmbedding(classes=[1], by=[2]),
]


def fingerprint(space):
    """Everything of a model that an intervention could leave changed."""
    found = []
    for name, module in space.model.named_modules():
        hooks = [len(module.__dict__[k]) for k in sorted(module.__dict__) if k.endswith("_hooks")]
        found.append((name, sorted(module.__dict__), hooks, getattr(module, "fused_attn", None)))
    found.append({name: tensor.clone() for name, tensor in space.model.state_dict().items()})
    found.append(id(space.lens))
    return found


def assert_same(before, after):
    assert before[:-2] == after[:-2]
    assert before[-1] == after[-1]
    assert all(torch.equal(tensor, after[-2][name]) for name, tensor in before[-2].items())


def test_empty_is_bit_identical(family):
    images = images_for(family)
    with torch.inference_mode():
        plain = family.model(images)
    assert torch.equal(run_with(family, images, []), plain)
    empty, trace = trace_with(family, images, []), family.trace(images)
    assert all(torch.equal(a, b) for a, b in zip(empty.increments, trace.increments, strict=True))
    assert empty.kept_tokens is None


def test_replacing_the_product_by_itself_changes_nothing(family):
    """Edges cut at one head only, all others through the same code: the replaced path has the module's numerics."""
    images, last = images_for(family), len(family.adapter.blocks)
    with torch.inference_mode():
        plain = family.model(images)
    cut = [KnockOutAttention("edges", sources=[2], blocks=[last], heads=[0])]
    assert not torch.allclose(run_with(family, images, cut), plain, atol=1e-7)
    patch_self = [PatchResidual(1, tokens=[2], source=family.trace(images))]
    torch.testing.assert_close(run_with(family, images, patch_self), plain)
    from classspace_widgets.interventions.attention import AfterSoftmax, attention_module, replaced_product

    tokens = family.trace(images).n_tokens
    everything = torch.ones(1, tokens, tokens, dtype=torch.bool)
    for keep in (everything, everything.expand(family.adapter.heads, -1, -1)):
        with (
            replaced_product(attention_module(family.adapter.blocks[1]), AfterSoftmax(keep, keep.device)),
            torch.inference_mode(),
        ):
            torch.testing.assert_close(family.model(images), plain)


def test_fused_and_unfused_agree(family):
    images = images_for(family)
    cuts = [
        KnockOutAttention("self_only", blocks=[1]),
        KnockOutAttention("edges", sources=[3], blocks=[2], renormalise=True),
    ]
    fused = run_with(family, images, cuts)
    modules = [m for m in family.model.modules() if hasattr(m, "fused_attn")]
    before = [m.fused_attn for m in modules]
    try:
        for module in modules:
            module.fused_attn = False
        torch.testing.assert_close(run_with(family, images, cuts), fused, rtol=1e-4, atol=1e-5)
    finally:
        for module, value in zip(modules, before, strict=True):
            module.fused_attn = value


def test_removal_equals_masking_every_edge_to_the_removed(family):
    """No survivor reads a removed token: cutting those edges before the softmax is the same thing."""
    images = images_for(family)
    n = family.trace(images).n_tokens
    gone = [n - 1, n - 4, n - 9]
    left = [t for t in range(n) if t not in gone]
    removed = trace_with(family, images, [RemoveTokens(tokens=gone)])
    cut = trace_with(family, images, [KnockOutAttention("edges", readers=left, sources=gone, renormalise=True)])
    assert removed.kept_tokens == tuple(left)
    for short, full in zip(removed.increments, cut.increments, strict=True):
        torch.testing.assert_close(short[:, left], full[:, left], rtol=1e-4, atol=1e-5)
        assert short[:, gone].isnan().all()
    short = trace_with(family, images, [RemoveTokens(tokens=gone)], full_grid=False)
    assert short.n_tokens == n - 3
    if family.adapter.pooling == "token":
        torch.testing.assert_close(removed.output, cut.output, rtol=1e-4, atol=1e-5)
    elif family.adapter.pooling == "mean_norm":
        first = 0 if family.adapter.pool_prefix else len(family.adapter.prefix)
        final = sum(increment for increment in short.increments)[:, first:]
        torch.testing.assert_close(short.output, short.lens.logits(final.mean(dim=1)), rtol=1e-4, atol=1e-4)


def test_self_only_makes_image_tokens_independent(family):
    images = images_for(family, 1)
    changed = images.clone()
    size = images.shape[-1] // family.adapter.grid[0]
    changed[:, :, :size, size : 2 * size] += 1.0
    first = len(family.adapter.prefix)
    cut = [KnockOutAttention("self_only")]
    a, b = trace_with(family, images, cut), trace_with(family, changed, cut)
    others = [t for t in range(first, a.n_tokens) if t != first + 1]
    for block in range(1, a.n_blocks + 1):
        x, y = a.stream("residual", block)[0], b.stream("residual", block)[0]
        torch.testing.assert_close(x[others], y[others])
        assert not torch.allclose(x[first + 1], y[first + 1], atol=1e-3)
    x, y = family.trace(images), family.trace(changed)
    assert not torch.allclose(x.stream("residual", 1)[0, others], y.stream("residual", 1)[0, others], atol=1e-4)


def test_increments_still_sum_to_the_stream_under_patches(space, images):
    seen = []
    handles = [b.register_forward_hook(lambda _m, _a, out: seen.append(out)) for b in space.adapter.blocks]
    try:
        trace = trace_with(space, images, ONE_OF_EACH, full_grid=False)
    finally:
        for handle in handles:
            handle.remove()
    for block, stream in enumerate(seen, start=1):
        torch.testing.assert_close(trace.stream("residual", block), stream)


def test_batch_equals_one_by_one(family):
    images = images_for(family, 3)
    interventions = [RemoveTokens(tokens=[4, 6]), KnockOutAttention("self_only"), Ablate("head", heads=[1])]
    together = run_with(family, images, interventions)
    apart = torch.cat([run_with(family, images[i : i + 1], interventions) for i in range(3)])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_everything_is_put_back(family):
    images = images_for(family)
    before = fingerprint(family)
    interventions = ONE_OF_EACH if family.adapter.prefix else ONE_OF_EACH[:-1]
    with intervene(family, interventions):
        assert fingerprint(family)[:-2] != before[:-2]
        with torch.inference_mode():
            family.model(images)
    assert_same(before, fingerprint(family))


def test_everything_is_put_back_after_an_error(space, images):
    before = fingerprint(space)
    with pytest.raises(RuntimeError, match="boom"), intervene(space, ONE_OF_EACH):
        raise RuntimeError("boom")
    assert_same(before, fingerprint(space))

    def explode(*_args):
        raise RuntimeError("inside a block")

    handle = space.adapter.blocks[1].attn.proj.register_forward_hook(explode)
    during = fingerprint(space)
    with pytest.raises(RuntimeError, match="inside a block"):
        run_with(space, images, ONE_OF_EACH)
    assert_same(during, fingerprint(space))
    handle.remove()
    with (
        pytest.raises(ValueError, match="every image token"),
        intervene(space, [RemoveTokens(tokens=range(1, 9)), RemoveTokens(tokens=range(9, 17))]),
    ):
        pass
    assert_same(before, fingerprint(space))


def test_a_callers_own_forward_is_kept(images):
    space = tiny_vit()
    module = space.adapter.blocks[0].attn
    original, calls = module.forward, []

    def own(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    module.forward = own
    run_with(space, images, [KnockOutAttention("no_cls")])
    assert module.forward is own
    assert calls == [1]


def test_refusals(space, images):
    with (
        pytest.raises(ValueError, match="nothing left to read"),
        intervene(space, [KnockOutAttention("edges", readers=[3], renormalise=True)]),
    ):
        pass
    with pytest.raises(ValueError, match="are removed by another"):
        run_with(space, images, [RemoveTokens(tokens=3), PatchResidual(1, tokens=3, source=(0, 1))])
    with pytest.raises(ValueError, match=r"image must be in 0..1"):
        run_with(space, images, [PatchResidual(1, tokens=3, source=(2, 1))])
    with pytest.raises(ValueError, match="there is no source 'donor'"):
        run_with(space, images, [Ablate("mlp", mode="resample", source="donor")])
    with pytest.raises(TypeError, match="from_spec"):
        run_with(space, images, [{"type": "Ablate"}])
    other = tiny_vit(depth=2).trace(images)
    with pytest.raises(ValueError, match="blocks, tokens, width"):
        run_with(space, images, [PatchResidual(1, source=other)])
    with pytest.raises(ValueError, match="traced with heads=True"):
        run_with(space, images, [Ablate("head", mode="resample", source=space.trace(images))])
    no_cls = tiny_vit(global_pool="avg", class_token=False)
    registers = tiny_vit(global_pool="avg", class_token=False, reg_tokens=2)
    for space in (no_cls, registers):
        with pytest.raises(ValueError, match=r"no \[CLS\] token"):
            run_with(space, images, [KnockOutAttention("no_cls")])


def test_differential_attention_is_refused_by_name():
    space = tiny_vit(attn_layer="diff", embed_dim=24, num_heads=3)
    with pytest.raises(UnsupportedModelError, match="DiffAttention"):
        run_with(space, images_for(space), [KnockOutAttention("no_cls")])


def test_closed_form_of_uniform_attention():
    """Queries are zero, values and projections the identity, nothing else acts: attention adds the mean token."""
    model = VisionTransformer(
        img_size=8, patch_size=4, embed_dim=4, depth=1, num_heads=1, num_classes=4, norm_layer=nn.Identity
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        block = model.blocks[0]
        block.attn.qkv.weight[8:] = torch.eye(4)
        block.attn.proj.weight.copy_(torch.eye(4))
        model.head.weight.copy_(torch.eye(4))
        tokens = torch.arange(20.0).reshape(5, 4)
        model.pos_embed.copy_(tokens[None])
    space, image = ClassSpace(model, device="cpu"), torch.zeros(1, 3, 8, 8)

    def stream(*interventions):
        return trace_with(space, image, list(interventions)).stream("residual", 1)[0]

    total = tokens.sum(dim=0)
    torch.testing.assert_close(stream(), tokens + total / 5)
    expected = tokens + (total - tokens[0]) / 5
    expected[0] = tokens[0] + total / 5
    torch.testing.assert_close(stream(KnockOutAttention("no_cls")), expected)
    expected = tokens + (total - tokens[0]) / 4
    expected[0] = tokens[0] + total / 5
    torch.testing.assert_close(stream(KnockOutAttention("no_cls", renormalise=True)), expected)
    torch.testing.assert_close(stream(KnockOutAttention("self_only"))[1:], tokens[1:] * 2)
    torch.testing.assert_close(stream(KnockOutAttention("self_only", renormalise=True))[1:], tokens[1:] * 2)
    torch.testing.assert_close(stream(KnockOutAttention("self_unscaled"))[1:], tokens[1:] * 1.2)
    torch.testing.assert_close(stream(KnockOutAttention("no_others"))[1:], tokens[1:] * 1.2 + tokens[0] / 5)
    together = stream(KnockOutAttention("no_others", renormalise=True))[1:]
    torch.testing.assert_close(together, tokens[1:] * 1.5 + tokens[0] / 2)
    removed = stream(RemoveTokens(tokens=[2, 3]))
    torch.testing.assert_close(removed[[0, 1, 4]], tokens[[0, 1, 4]] + tokens[[0, 1, 4]].mean(dim=0))
    torch.testing.assert_close(stream(Ablate("attention")), tokens)
    torch.testing.assert_close(stream(Ablate("head", heads=0)), tokens)
    torch.testing.assert_close(stream(MaskTokens(tokens=1))[0], tokens[0] + (total - tokens[1]) / 5)


def by_hand(attn, calls):
    """An attention's forward with its own softmax, or with several products."""

    def forward(x, attn_mask=None, is_causal=False):
        batch, tokens, width = x.shape
        q, k, v = attn.qkv(x).reshape(batch, tokens, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        if calls == 0:
            mixed = (q @ k.transpose(-2, -1) * attn.scale).softmax(dim=-1) @ v
        else:
            mixed = sum(nn.functional.scaled_dot_product_attention(q, k, v) for _ in range(calls)) / calls
        return attn.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))

    return forward


@pytest.mark.parametrize("calls", [0, 2])
def test_attention_that_does_not_compute_one_product_is_refused(images, calls):
    """Replacing a product that is not called changes nothing, and would be taken for an intervention without effect."""
    space = tiny_vit()
    plain = run_with(space, images, [])
    for block in space.model.blocks:
        block.attn.forward = by_hand(block.attn, calls)
    torch.testing.assert_close(run_with(space, images, []), plain)
    for change in (KnockOutAttention("no_cls", blocks=[2]), Ablate("head", blocks=[1], heads=[0])):
        with pytest.raises(UnsupportedModelError, match=f"expected one scaled dot product, it computed {calls}"):
            run_with(space, images, [change])
    torch.testing.assert_close(run_with(space, images, []), plain)


class Masked(VisionTransformer):
    """Brings an attention mask of its own: nobody reads the last patch."""

    def forward_features(self, x, **_options):
        x = self.norm_pre(self._pos_embed(self.patch_embed(x)))
        mask = torch.zeros(x.shape[1], x.shape[1])
        mask[:, -1] = float("-inf")
        mask[-1, -1] = 0
        for block in self.blocks:
            x = block(x, attn_mask=mask)
        return self.norm(x)


def test_a_pass_with_a_mask_of_its_own(images):
    model = Masked(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=7, mlp_ratio=2.0)
    model.load_state_dict(tiny_vit().model.state_dict())
    masked, plain = ClassSpace(model.eval(), device="cpu"), tiny_vit()
    own = KnockOutAttention("edges", readers=range(16), sources=[16], renormalise=True)
    torch.testing.assert_close(run_with(masked, images, []), run_with(plain, images, [own]))
    also = KnockOutAttention("edges", sources=[4], blocks=[2])
    torch.testing.assert_close(run_with(masked, images, [also]), run_with(plain, images, [own, also]))
    with pytest.raises(UnsupportedModelError, match="with its own attention mask"):
        run_with(masked, images, [RemoveTokens(tokens=[3])])
    with pytest.raises(UnsupportedModelError, match="with its own attention mask"):
        perturbation(masked, images, [1, 2], torch.rand(2, 16))


@pytest.mark.parametrize("change", ["head", "block"])
def test_a_pass_that_does_more_after_its_blocks_cannot_be_resumed(images, change):
    """The check when a space is made cannot see what is hooked on afterwards."""
    space = tiny_vit()
    if change == "head":
        space.model.head.register_forward_hook(lambda _m, _a, output: output * 2)
        sweep_heads(space, images[:1], 1)  # the head's own hook runs in the resumed pass too
        space.model.register_forward_hook(lambda _m, _a, output: output * 2)
    else:
        space.model.norm.register_forward_pre_hook(lambda _m, args: (args[0].flip(1),))
        space.model.fc_norm.register_forward_pre_hook(lambda _m, args: (args[0] + 1,))
        space.model.register_forward_hook(lambda _m, _a, output: output + 0.01)
    for call in (
        lambda: sweep_heads(space, images[:1], 1),
        lambda: sweep_tokens(space, images[:1], 1),
        lambda: perturbation(space, images, [1, 2], torch.rand(2, 16)),
    ):
        with pytest.raises(UnsupportedModelError, match="does more between its last block and its output"):
            call()
