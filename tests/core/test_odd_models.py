"""Models and callers in unusual states: wrapped, compiled, without weights, overflowing, under autocast, on a default device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from classspace_widgets import ClassSpace
from classspace_widgets.explain import importance
from classspace_widgets.interventions import Ablate, run_with
from classspace_widgets.lens import ClassLens
from classspace_widgets.memories import value_vectors
from classspace_widgets.metrics import contributions, direct_by_head, direct_by_source
from classspace_widgets.models import UnsupportedModelError
from core.families import build, perturbed, pixels


def test_wrapped_models_are_taken_without_their_wrapper():
    model = build("ViT")
    for wrapped in (torch.nn.DataParallel(model), torch.compile(model, backend="eager")):
        space = ClassSpace(wrapped)
        assert space.model is model
        assert "VisionTransformer" in repr(space) or "vit_base" in repr(space)


def test_a_model_inside_another_module_is_named():
    outer = torch.nn.Module()
    outer.net = torch.nn.Sequential(build("ViT"))
    with pytest.raises(UnsupportedModelError, match=r"it holds one: pass model\.net\[0\] "):
        ClassSpace(outer)


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch before 2.6 compiles whatever is called")
@pytest.mark.parametrize("how", ["blocks", "in place"])
def test_nothing_is_compiled_anew_for_a_pass(how):
    compiled = []

    def backend(graph, _inputs):
        compiled.append(graph)
        return graph.forward

    model = build("ViT")
    if how == "blocks":
        for n, block in enumerate(model.blocks):
            model.blocks[n] = torch.compile(block, backend=backend)
    else:
        model.compile(backend=backend)
    space = ClassSpace(model)
    images = pixels(space)
    plain = space.trace(images).output
    assert not torch.allclose(run_with(space, images, [Ablate("mlp")]), plain)
    assert torch.equal(space.trace(images).output, plain)
    assert not compiled
    with torch.no_grad():
        model(images)
    assert compiled, "the caller's model is compiled as ever"
    torch._dynamo.reset()


def test_a_model_without_weights_is_refused():
    with torch.device("meta"):
        model = VisionTransformer(img_size=32, patch_size=16, embed_dim=16, depth=1, num_heads=2, num_classes=3)
    with pytest.raises(ValueError, match="meta device, so it has no weights"):
        ClassSpace(model)


def test_overflow_is_named():
    model = build("ViT")
    with torch.no_grad():
        # Weights within float16, whose products are not, whatever the other weights are.
        model.blocks[0].mlp.fc1.bias += 10
        model.blocks[0].mlp.fc2.weight.fill_(6e4)
    with pytest.raises(UnsupportedModelError, match=r"NaN or infinite on a noise image in torch\.float16"):
        ClassSpace(model, dtype=torch.float16)
    space = ClassSpace(model, dtype=torch.float16, check=False)
    images = pixels(space)
    trace, found = space.trace(images), space.stream_readings(images, [1])
    assert bool((trace.ranks(classes=1) == -1).all())
    assert bool((found.ranks[-1] == -1).all())
    assert bool(found.identifiability()[-1].isnan().all())


class Flipped(VisionTransformer):
    """Reads its answer from another token than it says."""

    def forward_head(self, x, pre_logits=False):
        return super().forward_head(x.flip(1), pre_logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_head_that_does_something_else_is_found_in_every_precision(dtype):
    model = build("ViT")
    model.__class__ = Flipped
    with pytest.raises(UnsupportedModelError, match="does not give its output"):
        ClassSpace(model, dtype=dtype)


class Lowrank(torch.nn.Linear):
    """A linear map with something beside its weight, as adapters for fine-tuning are written."""

    def forward(self, entered):
        return super().forward(entered) + 0.5 * entered.mean(dim=-1, keepdim=True)


class Beside(torch.nn.Module):
    """The same around a linear map."""

    def __init__(self, plain):
        super().__init__()
        self.plain, self.weight, self.bias = plain, plain.weight, plain.bias
        self.in_features, self.out_features = plain.in_features, plain.out_features

    def forward(self, entered):
        return self.plain(entered) + 0.5 * entered.mean(dim=-1, keepdim=True)


@pytest.mark.parametrize("kind", [Lowrank, Beside])
def test_an_adapter_beside_a_linear_map_is_not_overlooked(kind):
    def adapted(plain):
        if kind is Beside:
            return Beside(plain)
        made = Lowrank(plain.in_features, plain.out_features)
        made.load_state_dict(plain.state_dict())
        return made

    model = build("ViT")
    model.blocks[0].attn.qkv = adapted(model.blocks[0].attn.qkv)
    model.blocks[1].attn.proj = adapted(model.blocks[1].attn.proj)
    model.blocks[1].mlp.fc2 = adapted(model.blocks[1].mlp.fc2)
    space = ClassSpace(model)
    trace = space.trace(pixels(space), attention=True, heads=True)
    heads, bias = direct_by_head(trace, 1, 0)
    assert torch.allclose(heads.sum(dim=1) + bias, contributions(trace, 0).attention[:, 0], atol=1e-4)
    with pytest.raises(UnsupportedModelError, match="values are not a plain linear map"):
        direct_by_source(trace, 1, 0, [0])
    with pytest.raises(UnsupportedModelError, match="no output projection that is a plain linear map"):
        direct_by_head(trace, 2, 0)
    with pytest.raises(UnsupportedModelError, match="merge adapters"):
        value_vectors(space, 2)
    with pytest.raises(UnsupportedModelError, match="pass fallback='autograd'"):
        importance(space, 0, images=pixels(space))


def test_epsilon_of_a_norm_that_has_none_of_its_own():
    norm = torch.nn.RMSNorm(8)
    lens = ClassLens.fold(norm, torch.randn(3, 8), None)
    assert lens.eps == torch.finfo(torch.float32).eps
    tiny = torch.full((1, 8), 1e-4)
    assert torch.allclose(tiny / lens.sigma(tiny), norm(tiny).detach(), rtol=1e-5)


def test_readings_are_as_precise_under_autocast():
    space = ClassSpace(build("ViT"))
    images = pixels(space)
    trace = space.trace(images, heads=True)

    def readings():
        return [
            trace.logits("mid", 2),
            trace.readout(),
            *(contributions(trace, 3, r).values for r in ("direct", "step", "paper")),
            *direct_by_head(trace, 1, 3),
        ]

    exact = readings()
    with torch.autocast("cpu", torch.bfloat16):
        for a, b in zip(exact, readings(), strict=True):
            assert b.dtype == torch.float32
            assert torch.equal(a, b)
        made = ClassSpace(space.model)
    assert torch.equal(made.lens.offset, space.lens.offset)
    assert made.identities == space.identities


def test_a_default_device_changes_nothing():
    """What is made without saying where lands on the default device, as on CUDA after `with torch.device("cuda")`."""
    space, pooled = ClassSpace(build("ViT")), ClassSpace(build("SigLIP, GAP"))
    images = pixels(space)
    labels = np.array([[1], [2]])
    with torch.device("meta"):
        ClassSpace(space.model)
        space.random_twin()
        assert space.stream_readings(images, labels).ranks.device.type == "cpu"
        for one in (space, pooled):
            for method in ("gradient", "direct", "chefer", "rollout", "attention"):
                assert importance(one, 1, images=images, method=method).maps.device.type == "cpu"
        assert space.trace(images, attention=True, heads=True).snapshot().nbytes


@pytest.mark.parametrize("family", ["ViT", "SigLIP, GAP"])
def test_snapshots_of_float64_models(family):
    space = ClassSpace(build(family), dtype=torch.float64)
    single = ClassSpace(space.model, dtype=torch.float32)
    images = pixels(single)
    for payload in ("all", "increments"):
        a, b = (s.trace(images, attention=True, heads=True).snapshot(payload=payload) for s in (space, single))
        assert np.allclose(a.arrays["raw"], b.arrays["raw"], atol=1e-4)
        assert np.allclose(a.arrays["head_raw"], b.arrays["head_raw"], atol=1e-2)


def test_numbers_of_numpy_are_numbers():
    space = ClassSpace(build("ViT"))
    images = pixels(space)
    trace = space.trace(images)
    one = np.int64(1)
    assert torch.equal(trace.logits("mid", one, classes=one, tokens=one), trace.logits("mid", 1, classes=1, tokens=1))
    assert trace.logits("mid", np.array([1, 2])).shape[0] == 2
    assert space.stream_readings(images, one).classes.shape == (2, 1)
    assert space.stream_readings(images, np.array([[1], [2]])).classes.tolist() == [[1], [2]]
    assert importance(space, one, images=images).classes.tolist() == [[1], [1]]


def test_torch_norms_of_every_kind_pass_the_check():
    for norm in (torch.nn.RMSNorm, torch.nn.LayerNorm, torch.nn.Identity):
        model = VisionTransformer(
            img_size=32, patch_size=16, embed_dim=32, depth=2, num_heads=4, num_classes=5, norm_layer=norm
        )
        assert ClassSpace(perturbed(model)).identities["output"] < 1e-5
