"""Local folders of Hugging Face, both namings of its weights, and its preprocessing against its own processors."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from classspace_widgets import ClassSpace
from classspace_widgets.models.convert import hf_beit, hf_clip, hf_dinov2, hf_dinov3, hf_vit
from classspace_widgets.models.convert.preprocessor import preprocessing
from convert.originals import BACKBONES, CLASSES, CLASSIFIERS, answer, older_names, perturbed, pixels

FAMILIES = {**CLASSIFIERS, **BACKBONES}

OLDER = {
    "layers": (
        (r"(^|\.)layers\.(\d+)\.", r"\1encoder.layer.\2."),
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
    ),
    "attention": (
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
    ),
    "mlp": (
        (r"(\.layer\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
        (r"(\.layer\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    ),
    "bias": (
        (r"\.layer\.(\d+)\.relative_position_bias\.", r".layer.\1.attention.attention.relative_position_bias."),
        (r"shared_position_bias\.", "encoder.relative_position_bias."),
    ),
    "tower": ((r"^(?!text_|visual_|text_projection|logit)", "vision_model."),),
    "dinov3": ((r"^model\.layer\.", "layer."),),
}
"""From the names of transformers 5 to those of version 4, written by hand."""

GENERATIONS = [
    ("ViT", hf_vit, ("layers", "mlp")),
    ("ViT, backbone", hf_vit, ("layers", "mlp")),
    ("DeiT, distilled", hf_vit, ("layers", "mlp")),
    ("BEiT", hf_beit, ("layers", "mlp", "bias")),
    ("BEiT, shared positions, [CLS]", hf_beit, ("layers", "mlp", "bias")),
    ("DINOv2", hf_dinov2, ("attention",)),
    ("DINOv2, registers", hf_dinov2, ("attention",)),
    ("DINOv3", hf_dinov3, ("dinov3",)),
    ("CLIP, vision tower", hf_clip, ("tower",)),
    ("CLIP, tower and projection", hf_clip, ()),
    ("SigLIP, vision tower", hf_clip, ("tower",)),
]


@pytest.mark.parametrize(("family", "module", "steps"), GENERATIONS, ids=[f"{g[0]}" for g in GENERATIONS])
def test_both_namings_of_transformers_are_the_same_weights(family, module, steps):
    weights = FAMILIES[family]().state_dict()
    if older_names():
        pytest.skip("this transformers has the older names itself, of which the other tests are")
    older = {}
    for key, value in weights.items():
        for step in steps:
            for pattern, new in OLDER[step]:
                key = re.sub(pattern, new, key)
        older[key] = value
    assert not steps or set(older) != set(weights)
    found, expected = module.timm_weights(older), module.timm_weights(weights)
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_packed_swiglu_of_version_4_is_that_of_version_5():
    weights = BACKBONES["DINOv2, SwiGLU"]().state_dict()
    if older_names():
        pytest.skip("this transformers has the older names itself, of which the other tests are")
    packed = {}
    for key, value in weights.items():
        if ".gate_proj." in key:
            packed[key.replace("gate_proj", "weights_in")] = torch.cat([value, weights[key.replace("gate", "up")]])
        elif ".up_proj." not in key:
            packed[key.replace("down_proj", "weights_out")] = value
    found = hf_dinov2.timm_weights(packed)
    assert {"blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight"} <= set(found)
    from timm.layers.mlp import GluMlp, SwiGLU

    one = GluMlp(32, len(found["blocks.0.mlp.fc1.bias"]), act_layer=torch.nn.SiLU, gate_last=False)
    one.load_state_dict({key.removeprefix("blocks.0.mlp."): v for key, v in found.items() if "blocks.0.mlp." in key})
    two = SwiGLU(32, len(found["blocks.0.mlp.fc1.bias"]) // 2)
    apart = hf_dinov2.timm_weights(weights)
    two.load_state_dict({key.removeprefix("blocks.0.mlp."): v for key, v in apart.items() if "blocks.0.mlp." in key})
    x = torch.randn(3, 32)
    assert torch.allclose(one(x), two(x), atol=1e-5)


@pytest.fixture
def folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    CLASSIFIERS["ViT"]().save_pretrained(tmp_path)
    how = {"size": {"height": 32, "width": 32}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    transformers.ViTImageProcessor(**how, resample=2).save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_gives_classes_preprocessing_and_answer(folder):
    space = ClassSpace.from_pretrained(folder, device="cpu")
    assert space.class_names == CLASSES
    how = space.preprocessing
    assert (how.mean, how.std, how.size) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (32, 32))
    assert (how.crop, how.crop_mode, how.interpolation, how.assumed) == (1.0, "squash", "bilinear", ())
    assert space.name == folder.name
    expected = answer(CLASSIFIERS["ViT"](), pixels())
    assert torch.allclose(space.trace(pixels()).output, expected, atol=1e-4)


def test_a_model_that_was_loaded_from_a_folder_knows_its_preprocessing(folder):
    transformers = pytest.importorskip("transformers")
    model = transformers.ViTForImageClassification.from_pretrained(folder)
    assert ClassSpace(model).preprocessing.mean == (0.1, 0.2, 0.3)


def test_a_backbone_in_a_folder_is_read_through_an_embedding(tmp_path):
    pytest.importorskip("transformers")
    BACKBONES["DINOv2"]().save_pretrained(tmp_path)
    space = ClassSpace.from_pretrained(tmp_path, class_embedding=torch.randn(4, 32), class_names=list("abcd"))
    assert space.n_classes == 4
    expected = answer(BACKBONES["DINOv2"](), pixels())
    assert torch.allclose(space.trace(pixels()).readout(), expected @ space.adapter.embedding.T, atol=1e-4)


def test_the_preprocessing_decides_the_size(tmp_path):
    """As with DINOv2, which is built for pictures of 518 pixels and fed such of 224."""
    transformers = pytest.importorskip("transformers")
    original = BACKBONES["DINOv2"]()
    original.save_pretrained(tmp_path)
    sizes = {"size": {"shortest_edge": 64}, "crop_size": {"height": 48, "width": 48}}
    transformers.BitImageProcessor(**sizes).save_pretrained(tmp_path)
    embedding = torch.randn(4, 32)
    space = ClassSpace.from_pretrained(tmp_path, class_embedding=embedding)
    assert (space.preprocessing.size, space.adapter.grid) == ((48, 48), (6, 6))
    expected = answer(original, pixels(size=48)) @ embedding.T
    assert torch.allclose(space.trace(pixels(size=48)).output, expected, atol=1e-4)
    assert ClassSpace.from_pretrained(tmp_path, class_embedding=embedding, image_size=32).adapter.grid == (4, 4)


def test_timms_own_folder(tmp_path):
    import timm

    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 3}
    model = perturbed(timm.create_model("vit_tiny_patch16_224", **sizes))
    from timm.models import save_for_hf

    save_for_hf(model, tmp_path, model_config={"num_classes": 3, "model_args": sizes}, safe_serialization=True)
    space = ClassSpace.from_pretrained(tmp_path)
    assert torch.allclose(space.trace(pixels()).output, model(pixels()), atol=1e-5)
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match="holds no weights; save the model"):
        ClassSpace.from_pretrained(tmp_path)


def changed(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_hidden_layers": 4}, "missing .*transformers would put random numbers there"),
        ({"num_hidden_layers": 2}, "hold more blocks than the ViTForImageClassification"),
        ({"id2label": {"0": "a", "1": "b"}}, "could not be loaded|of another shape"),
        ({"intermediate_size": 128}, "could not be loaded|of another shape"),
    ],
)
def test_weights_and_configuration_that_do_not_agree(folder, values, words):
    changed(folder, **values)
    with pytest.raises((ValueError, RuntimeError), match=words):
        ClassSpace.from_pretrained(folder)


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder or file at"):
        ClassSpace.from_pretrained(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json; save the model with model\.save_pretrained"):
        ClassSpace.from_pretrained(tmp_path)


def test_a_name_of_the_hub_without_a_network(monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RuntimeError, match=r"'nobody/none' could not be loaded .* give a local folder"):
        ClassSpace.from_pretrained("nobody/none")


def test_without_transformers(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install transformers"):
        ClassSpace.from_pretrained(tmp_path)


PROCESSORS = {
    "ViT": ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
    "ViT, bicubic, 0..255": (
        "ViTImageProcessor",
        {"size": {"height": 32, "width": 32}, "resample": 3, "rescale_factor": 1 / 128},
    ),
    "DeiT": ("DeiTImageProcessor", {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}}),
    "CLIP": ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
    "DINOv2": ("BitImageProcessor", {"size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 32}}),
    "SigLIP": ("SiglipImageProcessor", {"size": {"height": 32, "width": 32}}),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_the_processor(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    kind, options = PROCESSORS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        processor = getattr(transformers, kind)(**options)
        processor.save_pretrained(tmp_path)
        rng = np.random.default_rng(0)
        picture = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).resize((120, 90), 3)
        expected = torch.as_tensor(np.asarray(processor(images=picture, return_tensors="np")["pixel_values"]))[0]
    CLASSIFIERS["ViT"]().save_pretrained(tmp_path)
    space = ClassSpace.from_pretrained(tmp_path)
    found = space.pixels(picture)[0].cpu()
    assert found.shape == expected.shape
    # Pillow and torchvision round otherwise when they resize; another crop or filter differs by far more.
    assert float((found - expected).abs().mean()) < 0.02 * float(expected.std())


def test_preprocessing_by_hand():
    assert preprocessing({}) == {}
    older = {"size": 224, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    assert preprocessing(older) == {
        "input_size": (3, 224, 224),
        "crop_mode": "squash",
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
    }
    scaled = preprocessing(older | {"rescale_factor": 2 / 255})
    assert scaled["mean"] == pytest.approx((0.25,) * 3)
    assert scaled["std"] == pytest.approx((0.125,) * 3)
    assert preprocessing(older | {"do_normalize": False})["std"] == (1.0,) * 3
    # (224 / 248) of the resized picture, in a share from which timm gets 248 back.
    odd = preprocessing(
        {"size": {"shortest_edge": 248}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True}
    )
    assert int(224 / odd["crop_pct"]) == 248
