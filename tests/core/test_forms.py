"""Models in forms that readings cannot be taken of as they are: the refusal names the cause, and its remedy works."""

from __future__ import annotations

import copy
import re
import warnings

import pytest
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch.utils.checkpoint import checkpoint

from classspace_widgets import ClassSpace, Explorer
from classspace_widgets.explain import importance
from classspace_widgets.interventions import Ablate, KnockOutAttention, PatchResidual, run_with, trace_with
from classspace_widgets.memories import recording_active
from classspace_widgets.models import UnsupportedModelError, adapt
from core.families import perturbed, pixels

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}


def vit(kind=VisionTransformer, **options):
    """The same weights every time."""
    torch.manual_seed(0)
    return perturbed(kind(**(SMALL | options)))


class OldBlock(torch.nn.Module):
    """As timm before 0.6, DINO, MAE, BEiT and ToMe wrote it: one module hands on what both sublayers add."""

    def __init__(self, new, drop_path):
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = new.norm1, new.attn, new.norm2, new.mlp
        self.drop_path = drop_path

    def forward(self, x):
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SideBySide(OldBlock):
    """Attention and MLP at once, handed on together."""

    def forward(self, x):
        return x + self.drop_path(self.attn(self.norm1(x)) + self.mlp(self.norm2(x)))


def shared(model, how):
    """The same model with blocks that share what hands on."""
    model = copy.deepcopy(model)
    one = torch.nn.Identity()
    for n, block in enumerate(model.blocks):
        if how == "drop_path":
            model.blocks[n] = OldBlock(block, torch.nn.Identity())
        elif how == "one drop_path of all blocks":
            model.blocks[n] = OldBlock(block, one)
        elif how == "drop_path1 is drop_path2":
            block.drop_path2 = block.drop_path1
        else:
            block.drop_path1 = block.drop_path2 = one
    return model


@pytest.mark.parametrize(
    "how", ["drop_path", "one drop_path of all blocks", "drop_path1 is drop_path2", "one for everything"]
)
def test_one_module_for_attention_and_mlp_is_two_increments(how):
    plain = vit(scale_attn_norm=True)
    one, other = ClassSpace(plain), ClassSpace(shared(plain, how))
    images = pixels(one)
    ours, theirs = (space.trace(images, attention=True, heads=True, keys=True) for space in (other, one))
    assert ours.layout == "sequential"
    assert ours.n_blocks == 2
    for a, b in zip(ours.increments, theirs.increments, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(other.stream_readings(images, 1).ranks, one.stream_readings(images, 1).ranks)
    donor = one.trace(images.flip(0))
    for change in (
        Ablate("attention", blocks=1),
        Ablate("mlp", blocks=2, mode="mean"),
        PatchResidual(1, 3, "donor"),
        KnockOutAttention("no_cls"),
    ):
        ours, theirs = (trace_with(space, images, change, sources={"donor": donor}) for space in (other, one))
        assert torch.equal(ours.output, theirs.output)
        assert all(torch.equal(a, b) for a, b in zip(ours.increments, theirs.increments, strict=True))
    maps = [importance(space, 1, images=images, fallback="autograd").maps for space in (other, one)]
    assert torch.allclose(*maps, atol=1e-6)
    Explorer(other.trace(images)).close()


def test_closed_form_of_old_blocks():
    plain = vit()
    images = pixels(ClassSpace(plain))
    maps = [importance(ClassSpace(m), 1, images=images).maps for m in (plain, shared(plain, "drop_path"))]
    assert torch.allclose(*maps, atol=1e-6)


def test_side_by_side_is_still_one_increment():
    model = vit()
    for n, block in enumerate(model.blocks):
        model.blocks[n] = SideBySide(block, torch.nn.Identity())
    space = ClassSpace(model.train())
    assert space.adapter.layout == "parallel"
    assert space.trace(pixels(space)).n_blocks == 2
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_blocks_that_share_modules_are_refused():
    tied = vit()
    tied.blocks = torch.nn.Sequential(tied.blocks[0], tied.blocks[0])
    part = vit()
    part.blocks[1].mlp.fc2 = part.blocks[0].mlp.fc2
    for model in (tied, part):
        with pytest.raises(UnsupportedModelError, match="blocks 1 and 2 share modules") as caught:
            ClassSpace(model)
        exec(str(caught.value).split("its own: ")[1], {"model": model, "torch": torch, "copy": copy})
        space = ClassSpace(model)
        with recording_active(space) as active:
            space.trace(pixels(space))
        assert len(active) == 4


@pytest.mark.parametrize("method", ["gradient", "chefer"])
def test_gradient_checkpointing_changes_nothing(method):
    model = vit(scale_attn_norm=True, qk_norm=True)
    space = ClassSpace(model)
    images = pixels(space)
    plain = importance(space, [0, 3], images=images, method=method, fallback="autograd").maps
    model.set_grad_checkpointing(True)
    assert torch.allclose(
        importance(space, [0, 3], images=images, method=method, fallback="autograd").maps, plain, atol=1e-6
    )
    assert model.grad_checkpointing, "the flag is as the caller left it"


class Recomputed(Block):
    """A block that is run again on the way back, whatever flags say."""

    reentrant = False

    def forward(self, x, attn_mask=None, is_causal=False):
        return checkpoint(super().forward, x, use_reentrant=self.reentrant)


class Hidden(Recomputed):
    reentrant = True


@pytest.mark.parametrize("method", ["gradient", "chefer"])
def test_blocks_that_checkpoint_themselves(method):
    options = {"scale_attn_norm": True}
    plain, again, hidden = (vit(**options, block_fn=kind) for kind in (Block, Recomputed, Hidden))
    images = pixels(ClassSpace(plain))

    def maps(model):
        return importance(ClassSpace(model), [0, 3], images=images, method=method, fallback="autograd").maps

    assert torch.allclose(maps(again), maps(plain), atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UnsupportedModelError, match="reentrant gradient checkpointing"):
            maps(hidden)


class InDict(VisionTransformer):
    def forward(self, x):
        return {"loss": None, "logits": super().forward(x)}


class InTuple(VisionTransformer):
    def forward(self, x):
        features = self.forward_features(x)
        return features, self.forward_head(features)


class FeaturesAlone(VisionTransformer):
    def forward(self, x):
        return [self.forward_features(x)]


@pytest.mark.parametrize("kind", [InDict, InTuple, FeaturesAlone])
def test_an_output_that_is_no_tensor(kind):
    plain = vit()
    model = vit(kind)
    images = pixels(ClassSpace(plain))
    for check in (True, False):
        with pytest.raises(
            UnsupportedModelError, match=r"returns a (dict|tuple|list), expected a tensor .*C\]=\[B, 5\]"
        ) as caught:
            ClassSpace(model, check=check).trace(images)
    remedy = re.search(r"only them: (.*)|output: (ClassSpace.*)", str(caught.value))
    made = eval(remedy[1] or remedy[2], {"model": model, "ClassSpace": ClassSpace})
    space = made if isinstance(made, ClassSpace) else ClassSpace(model)
    expected = ClassSpace(plain).trace(images).output
    assert torch.allclose(space.trace(images).output, expected, atol=1e-5)
    assert torch.allclose(run_with(space, images, []), expected, atol=1e-5)
    assert torch.allclose(space.stream_readings(images, 1).logits[-1, :, 0, 0], expected[:, 1], atol=1e-4)


class WithWeights(Block):
    def forward(self, x, attn_mask=None, is_causal=False):
        return super().forward(x[0] if isinstance(x, tuple) else x), None


class Merging(Block):
    def forward(self, x, attn_mask=None, is_causal=False):
        return super().forward(x)[:, :-2]


class MergingInside(Block):
    def forward(self, x, attn_mask=None, is_causal=False):
        x = (x + self.drop_path1(self.ls1(self.attn(self.norm1(x)))))[:, :-2]
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def test_blocks_that_return_something_else():
    model = VisionTransformer(**SMALL, block_fn=WithWeights)
    model.norm.register_forward_pre_hook(lambda _m, args: args[0][0] if isinstance(args[0], tuple) else None)
    with pytest.raises(
        UnsupportedModelError, match="type WithWeights returns a tuple of 2 instead of the residual stream"
    ):
        ClassSpace(model)


@pytest.mark.parametrize(
    ("kind", "where"),
    [(Merging, "17 tokens become 15 after block 1"), (MergingInside, "17 tokens become 15 inside block 1")],
)
@pytest.mark.parametrize("foreign", [False, True])
def test_blocks_that_lose_tokens(kind, where, foreign):
    model = vit(block_fn=kind)
    options = {"class_embedding": torch.ones(3, 24)} if foreign else {}
    with pytest.raises(UnsupportedModelError, match=where):
        ClassSpace(model, **options)


@pytest.mark.parametrize("name", ["head.weight", "head.bias", "norm.weight", "blocks.1.mlp.fc1.weight", "cls_token"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(name, value):
    model = vit()
    with torch.no_grad():
        dict(model.named_parameters())[name].view(-1)[-1] = value
    with pytest.raises(
        UnsupportedModelError, match=rf"its weights contain NaN or infinite numbers \({re.escape(name)}\)"
    ):
        ClassSpace(model)


def test_a_broken_norm_in_front_of_a_foreign_class_embedding():
    model = vit()
    with torch.no_grad():
        model.norm.bias[2] = float("nan")
    with pytest.raises(UnsupportedModelError, match=r"\(norm\.bias\)"):
        ClassSpace(model, class_embedding=torch.ones(3, 24))


class Wrapper(torch.nn.Module):
    """What PEFT leaves in the place of a head that was trained in full, or by low-rank matrices."""

    def __init__(self, head, inside):
        super().__init__()
        setattr(self, inside, head)
        self.head = head

    def forward(self, x):
        return self.head(x)


@pytest.mark.parametrize("inside", ["original_module", "base_layer"])
def test_a_head_inside_adapters_is_to_be_merged(inside):
    model = vit()
    model.head = Wrapper(model.head, inside)
    with pytest.raises(
        UnsupportedModelError, match=r"merge them first.*ClassSpace\(peft_model\.merge_and_unload\(\)\)"
    ):
        ClassSpace(model)


def test_a_model_inside_adapters_is_to_be_merged():
    outer = torch.nn.Module()
    outer.base_model = vit()
    outer.merge_and_unload = lambda: outer.base_model
    with pytest.raises(UnsupportedModelError, match=r"pass model\.merge_and_unload\(\)$") as caught:
        ClassSpace(outer)
    ClassSpace(eval(str(caught.value).rpartition("pass ")[2], {"model": outer}))


def nested(model):
    return {
        "model[1]": torch.nn.Sequential(torch.nn.Identity(), model, torch.nn.Softmax(dim=1)),
        "model.net[0]": torch.nn.ModuleDict({"net": torch.nn.Sequential(model)}),
        "model.get_submodule('1-a')": torch.nn.ModuleDict({"1-a": model}),
    }


@pytest.mark.parametrize(
    "path", list(nested(None)) if False else ["model[1]", "model.net[0]", "model.get_submodule('1-a')"]
)
def test_a_model_inside_another_is_named_in_python(path):
    inner = vit()
    model = nested(inner)[path]
    with pytest.raises(UnsupportedModelError, match=rf"it holds one: pass {re.escape(path)} \(.*give mean= and std="):
        ClassSpace(model)
    assert eval(path, {"model": model}) is inner


def test_several_models_inside_another_are_all_named():
    model = torch.nn.ModuleDict({"student": vit(), "teacher": vit()})
    with pytest.raises(UnsupportedModelError, match=r"it holds 2: pass model\.student or model\.teacher \("):
        ClassSpace(model)


class ThreeTimes(OldBlock):
    def forward(self, x):
        return self.drop_path(super().forward(x))


class NeedsMore(OldBlock):
    def forward(self, x, more):
        return super().forward(x)


@pytest.mark.parametrize(
    ("kind", "words"), [(ThreeTimes, "it is called 3 times"), (NeedsMore, "cannot be run by itself")]
)
def test_a_shared_module_that_leaves_open_what_it_hands_on(kind, words):
    model = vit()
    for n, block in enumerate(model.blocks):
        model.blocks[n] = kind(block, torch.nn.Identity())
    with pytest.raises(UnsupportedModelError, match=f"{words}; give each its own, drop_path1 and drop_path2"):
        ClassSpace(model)


def graphs(model):
    example = torch.randn(1, 3, 32, 32)
    yield torch.jit.trace(model, example), "compiled by torch.jit"
    yield torch.fx.symbolic_trace(model), "is a graph"
    yield torch.export.export(model, (example,)).module(), "is a graph"


@pytest.mark.filterwarnings("ignore")
def test_graphs_of_models_name_the_way_back():
    model = vit()
    for graph, words in graphs(model):
        with pytest.raises(UnsupportedModelError, match=words) as caught:
            ClassSpace(graph)
        assert "plain.load_state_dict(model.state_dict())" in str(caught.value)
        plain = VisionTransformer(**SMALL).eval()
        plain.load_state_dict(graph.state_dict())
        images = pixels(ClassSpace(plain))
        assert torch.allclose(ClassSpace(plain).trace(images).output, ClassSpace(model).trace(images).output, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_quantised_models_are_called_quantised():
    dynamic = torch.ao.quantization.quantize_dynamic(vit(), {torch.nn.Linear}, dtype=torch.qint8)
    integer = vit()
    integer.head.weight = torch.nn.Parameter(torch.ones(5, 24, dtype=torch.int8), requires_grad=False)
    for model in (dynamic, integer):
        with pytest.raises(UnsupportedModelError, match="is quantised"):
            ClassSpace(model)


def test_adapting_alone_refuses_what_only_a_pass_would_find():
    """Without the check, which `check=False` leaves out."""
    hidden = vit()
    hidden.head = torch.nn.Sequential(torch.nn.Linear(24, 24), torch.nn.GELU(), torch.nn.Linear(24, 5))
    with pytest.raises(UnsupportedModelError, match=r"no linear classifier \(found Sequential\)"):
        adapt(hidden)
    plain = vit()
    plain.head = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(24, 5))
    assert adapt(plain).classifier is plain.head[1]
    doubled = vit()
    doubled.fc_norm = torch.nn.LayerNorm(24)
    with pytest.raises(UnsupportedModelError, match="two final norms in a row"):
        adapt(doubled)
    mixed = vit()
    mixed.blocks[1] = OldBlock(mixed.blocks[1], torch.nn.Identity())
    with pytest.raises(UnsupportedModelError, match=r"mixes blocks of different kinds \(Block, OldBlock\)"):
        adapt(mixed)
