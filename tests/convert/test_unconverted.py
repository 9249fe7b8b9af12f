"""Models that are not what they seem: refused, with the block that differs first or the weights that do not fit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from classspace_widgets import ClassSpace
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.models.convert import convert, hf_vit, torchvision_vit
from convert.originals import (
    BACKBONES,
    CLASSIFIERS,
    VIT,
    blocks_of,
    open_clip,
    perturbed,
    pixels,
    torchvision,
    transformers,
)

LIBRARIES = {"ViT": hf_vit, "torchvision": torchvision_vit}


@pytest.mark.parametrize("family", LIBRARIES)
@pytest.mark.parametrize("block", [1, 3])
def test_a_wrong_weight_is_found_in_its_block(family, block, monkeypatch):
    original = CLASSIFIERS[family]()
    right = LIBRARIES[family].timm_weights

    def swapped(weights):
        found = right(weights)
        one, two = (f"blocks.{block - 1}.norm{n}.weight" for n in (1, 2))
        found[one], found[two] = found[two], found[one]
        return found

    monkeypatch.setattr(LIBRARIES[family], "timm_weights", swapped)
    with pytest.raises(UnsupportedModelError, match=f"after block {block} the residual stream is the first .* differs"):
        ClassSpace(original)


@pytest.mark.parametrize(
    ("name", "place"), [("pos_embed", "the embedding"), ("norm.weight", "the answer"), ("head.bias", "the answer")]
)
def test_a_wrong_weight_outside_the_blocks_is_placed(name, place, monkeypatch):
    right = torchvision_vit.timm_weights
    monkeypatch.setattr(
        torchvision_vit, "timm_weights", lambda weights: (found := right(weights)) | {name: found[name] + 0.01}
    )
    with pytest.raises(UnsupportedModelError, match=place):
        convert(torchvision())


def test_a_slight_difference_is_enough(monkeypatch):
    right = torchvision_vit.timm_weights
    for size, refused in ((1e-6, False), (1e-3, True)):
        monkeypatch.setattr(
            torchvision_vit,
            "timm_weights",
            lambda w, by=size: (f := right(w)) | {"head.bias": f["head.bias"] * (1 + by)},
        )
        if refused:
            with pytest.raises(UnsupportedModelError, match="the answer after the last block differs"):
                convert(torchvision())
        else:
            convert(torchvision())


@pytest.mark.parametrize("family", LIBRARIES)
def test_another_activation_in_one_block_is_found_in_it(family):
    original = CLASSIFIERS[family]()
    for path, module in blocks_of(original)[1].named_modules():
        if "GELU" in type(module).__name__:
            blocks_of(original)[1].set_submodule(path, nn.ReLU())
    with pytest.raises(UnsupportedModelError, match="after block 2 the residual stream is the first"):
        ClassSpace(original)


def test_a_block_more_is_converted_with_the_rest():
    original = CLASSIFIERS["torchvision"]()
    original.encoder.layers.add_module("encoder_layer_3", copy.deepcopy(original.encoder.layers[0]))
    space = ClassSpace(original)
    assert len(space.adapter.blocks) == 4
    with torch.no_grad():
        assert torch.allclose(space.trace(pixels()).output, original(pixels()), atol=1e-5)


def test_weights_that_have_no_place_are_named():
    original = CLASSIFIERS["torchvision"]()
    original.encoder.layers[1].adapter = nn.Linear(32, 32)
    with pytest.raises(UnsupportedModelError, match=r"Unexpected key.*blocks\.1\.adapter\.weight"):
        ClassSpace(original)


def test_a_head_of_another_width_is_named():
    original = CLASSIFIERS["torchvision"]()
    original.heads.head = nn.Linear(16, 3)
    with pytest.raises(UnsupportedModelError, match=r"size mismatch for head\.weight.*\[3, 16\].*\[3, 32\]"):
        ClassSpace(original)


def test_a_hidden_layer_before_the_classifier_is_named():
    with pytest.raises(UnsupportedModelError, match=r"representation_size.*build it with representation_size=None"):
        ClassSpace(torchvision(representation_size=24))


def test_a_stem_of_several_convolutions_is_named():
    vit = pytest.importorskip("torchvision.models.vision_transformer")
    stem = [vit.ConvStemConfig(8, 3, 2), vit.ConvStemConfig(16, 3, 2), vit.ConvStemConfig(16, 3, 2)]
    with pytest.raises(UnsupportedModelError, match="several convolutions"):
        ClassSpace(torchvision(conv_stem_configs=stem))


def test_models_that_are_no_vision_transformer():
    models = pytest.importorskip("torchvision.models")
    with pytest.raises(UnsupportedModelError, match="ResNet is not supported: expected a vision transformer"):
        ClassSpace(models.resnet18())


def test_other_models_of_transformers_are_named_with_those_that_work():
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}
    original = transformers("ResNetForImageClassification", "ResNetConfig", **sizes)
    with pytest.raises(
        UnsupportedModelError, match=r"ResNetForImageClassification of transformers is not supported.*DINOv2.*SigLIP"
    ):
        ClassSpace(original)


def test_a_model_without_classes_of_its_own_names_its_backbone():
    original = transformers("ViTForMaskedImageModeling", "ViTConfig", **VIT)
    with pytest.raises(UnsupportedModelError, match=r"pass its backbone: model\.vit$"):
        ClassSpace(original)
    assert convert(original.vit).num_classes == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 4, "output_dim": 32}, "CoCa"),
        ({"qk_norm": True}, "CustomResidualAttentionBlock"),
    ],
)
def test_other_towers_of_open_clip_are_refused(options, words):
    with pytest.raises(UnsupportedModelError, match=words):
        convert(open_clip(**options))


def test_timms_tower_in_open_clip_is_named():
    models = pytest.importorskip("open_clip.model")
    text = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 4, "layers": 1}
    tower = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 32}
    model = models.CustomTextCLIP(12, tower, text)
    with pytest.raises(UnsupportedModelError, match=r"is timm's own: pass model\.visual\.trunk") as caught:
        ClassSpace(model)
    assert "class_embedding" in str(caught.value)
    assert ClassSpace(model.visual.trunk, class_embedding=torch.randn(3, 192)).n_classes == 3


def test_another_size_of_pictures():
    space = ClassSpace(transformers("ViTForImageClassification", "ViTConfig", **VIT), image_size=(48, 32))
    assert space.adapter.grid == (6, 4)
    with torch.no_grad():
        batch = torch.randn(2, 3, 48, 32)
        original = transformers("ViTForImageClassification", "ViTConfig", **VIT)
        expected = original(pixel_values=batch, interpolate_pos_encoding=True).logits
    assert torch.allclose(space_output(original, batch, (48, 32)), expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"takes only pictures of 32 x 32 pixels, got image_size=\(48, 48\)"):
        ClassSpace(torchvision(), image_size=48)


def space_output(original, batch, size):
    return ClassSpace(original, image_size=size).trace(batch).output


@pytest.mark.parametrize(
    "family", ["DINOv2", "DINOv2, registers", "DINOv3", "CLIP, vision tower", "SigLIP, vision tower"]
)
def test_backbones_take_another_size_of_pictures(family):
    original = BACKBONES[family]()
    converted = convert(original, image_size=48)
    batch = pixels(size=48)
    options = {} if family.startswith("DINO") else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        output = original(pixel_values=batch, **options)
        expected = output.pooler_output if family[0] in "CS" else output.last_hidden_state[:, 0]
        assert torch.allclose(converted(batch), expected, atol=1e-4)


def test_the_tests_models_are_all_there():
    """A model that is perturbed differs from a fresh one in every parameter."""
    vit = pytest.importorskip("torchvision.models.vision_transformer")
    model = vit.VisionTransformer(32, 8, 1, 4, 32, 64, num_classes=3)
    before = copy.deepcopy(model)
    moved = perturbed(model)
    assert all(not torch.equal(a, b) for a, b in zip(before.parameters(), moved.parameters(), strict=True))
