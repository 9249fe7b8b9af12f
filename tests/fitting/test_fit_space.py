"""A classifier fitted for a backbone: put in where the architecture has its head, saved, loaded, refused."""

from __future__ import annotations

import copy
import json
import re
import shutil

import numpy as np
import pytest
import timm
import torch
from convert.originals import BACKBONES, CLASSIFIERS
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import perturb, tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.data import ArrayDataset, DatasetError
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.models.fingerprint import model_fingerprint

NAMES = ("cat", "dog", "owl")
LOOK = {"mean": 0.5, "std": 0.5, "crop": 1.0}


def pictures(classes=3, each=4, size=32, seed=0):
    """Pictures of noise, of another colour for each class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    images = rng.integers(0, 120, (len(labels), size, size, 3))
    images[np.arange(len(labels)), :, :, labels % 3] += 100
    return ArrayDataset(images.astype(np.uint8), labels, NAMES[:classes])


def backbone(**options):
    return perturb(
        timm.create_model("vit_tiny_patch16_224", **{"img_size": 32, "depth": 3, "num_classes": 0, **options})
    )


def fit(model, data=None, **options):
    options = {**LOOK, "progress": False, "workers": 0, **options}
    return ClassSpace.fit(model, data or pictures(), **options)


FAMILIES = {
    "vit_tiny_patch16_224": {},
    "vit_base_patch14_reg4_dinov2": {"img_size": 28, "embed_dim": 48, "num_heads": 3, "depth": 2},
    "beit_base_patch16_224": {"embed_dim": 48, "num_heads": 3, "depth": 2},
    "eva02_tiny_patch14_224": {"img_size": 28, "depth": 2},
    "vit_base_patch16_siglip_224": {"embed_dim": 48, "num_heads": 3, "depth": 2},
    "vit_medium_patch16_gap_240": {"depth": 2},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_head_is_what_the_architecture_computes(name):
    model = perturb(timm.create_model(name, **{"img_size": 32, "num_classes": 0, **FAMILIES[name]}))
    space = fit(model)
    assert space.class_names == NAMES
    assert max(space.identities.values()) < 1e-4
    pixels = space.pixels([pictures()[i][0] for i in (0, 5, 10)])
    trace = space.trace_pixels(pixels)
    with torch.no_grad():
        # The features of timm's own model, and the classifier, by hand.
        plain = copy.deepcopy(model)
        if space.fitted.features != "pooled":
            plain.global_pool = {"token": "token", "mean": "avg"}[space.fitted.features]
        features = plain.forward_head(plain.forward_features(pixels), pre_logits=True)
        expected = features @ space.fitted.weight.T + space.fitted.bias
    assert torch.allclose(trace.output, expected, rtol=1e-4, atol=1e-4)
    assert trace.output.argmax(dim=1).tolist() == [0, 1, 2]
    assert trace.ranks(classes=["owl"]).shape[-1] == 1


@pytest.mark.parametrize(
    ("features", "pooling"), [("token", "token"), ("mean", "norm_mean"), ("both", "pool"), ("auto", None)]
)
def test_what_is_read_can_be_chosen(features, pooling):
    space = fit(backbone(), features=features)
    if pooling:
        assert space.adapter.pooling == pooling
        assert list(space.fitted.tried) == [features]
    else:
        assert list(space.fitted.tried) == ["token", "mean"]
        accuracies = {kind: found.accuracy[found.best] for kind, found in space.fitted.tried.items()}
        assert accuracies[space.fitted.features] == max(accuracies.values()) == space.fitted.accuracy
    with torch.no_grad():
        assert torch.allclose(
            space.model(space.pixels(pictures()[0][0])), space.trace(pictures()[0][0]).output, atol=1e-5
        )


def test_attention_pooling_can_be_left_out_for_readings_that_are_linear():
    model = perturb(
        timm.create_model("vit_base_patch16_siglip_224", img_size=32, **FAMILIES["vit_base_patch16_siglip_224"])
    )
    space = fit(model, features="mean")
    assert space.adapter.linear
    assert model.attn_pool is not None


def test_the_callers_model_is_not_changed_and_not_copied():
    model = backbone(num_classes=5).train()
    head, before = model.head, copy.deepcopy(model.state_dict())
    space = fit(model, features="mean")
    assert model.head is head
    assert model.global_pool == "token"
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert space.model.blocks[1].mlp.fc1.weight is model.blocks[1].mlp.fc1.weight
    assert space.model.blocks[1] is not model.blocks[1]


@pytest.mark.parametrize("family", ["DINOv2", "SigLIP, vision tower", "CLIP, tower and projection", "ViT"])
def test_models_of_other_libraries(family, tmp_path):
    model = {**BACKBONES, **CLASSIFIERS}[family]()
    space = fit(model)
    assert "of transformers" in space.origin
    assert space.trace(pictures()[11][0]).predictions(k=1)["class_name"].tolist() == ["owl"]
    space.save(tmp_path / "mine.safetensors")
    again = ClassSpace.load(tmp_path / "mine.safetensors", model)
    assert torch.equal(again.trace(pictures()[3][0]).output, space.trace(pictures()[3][0]).output)


def test_a_wrapped_model_and_its_normalisation():
    class Normalised(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.mean, self.std = model, 0.4, 0.3

        def forward(self, pixels):
            return self.model((pixels - self.mean) / self.std)

    space = fit(Normalised(backbone(num_classes=4)), mean=None, std=None)
    assert space.preprocessing.mean == (0.4, 0.4, 0.4)
    assert "of a Normalised" in space.origin


def test_accuracy_is_told_and_is_that_of_pictures_left_out():
    space = fit(backbone())
    found = space.fitted
    assert re.search(
        r"3 classes fitted on 12 pictures, reading .*: accuracy [01]\.\d+ in 4-fold cross-validation", repr(space)
    )
    assert "4-fold" in space._repr_html_()
    assert found.penalty in found.tried[found.features].penalties
    shuffled = pictures(each=10)
    shuffled = ArrayDataset(shuffled.images, np.random.default_rng(0).permutation(shuffled.labels), NAMES)
    # Labels that say nothing cannot be predicted, however well they are fitted.
    assert fit(backbone(), shuffled).fitted.accuracy < 0.65


def test_everything_works_on_a_fitted_space():
    space = fit(backbone())
    trace = space.trace(pictures()[0][0], attention=True, heads=True)
    assert tuple(trace.snapshot().class_names) == NAMES
    assert trace.logits("mlp", [1, 2], classes=["owl"]).shape == (2, 1, 5, 1)
    from classspace_widgets.studies import run_study

    results = run_study(space, pictures(seed=1), ["accuracy", "identifiability"], random_twin=1, progress=False)
    assert set(results["accuracy"].table["weights"]) == {"trained", "random"}


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(backbone(depth=4).state_dict(), path)
    return path


def test_saved_and_loaded_by_name_with_weights_from_a_file(weights, tmp_path):
    space = ClassSpace.fit(
        "vit_tiny_patch16_224", pictures(), checkpoint=weights, image_size=32, depth=4, progress=False, device="cpu"
    )
    space.save(tmp_path / "mine.safetensors")
    assert set(load_file(tmp_path / "mine.safetensors")) == {"embedding", "bias"}
    assert (tmp_path / "mine.safetensors").stat().st_size < 12_000
    with pytest.raises(
        ValueError, match=r"mine\.safetensors: it was made with .* weights from weights\.safetensors; say where"
    ):
        ClassSpace.load(tmp_path / "mine.safetensors")
    again = ClassSpace.load(tmp_path / "mine.safetensors", checkpoint=weights, device="cpu")
    picture = pictures(seed=2)[4][0]
    assert torch.equal(again.trace(picture).output, space.trace(picture).output)
    assert again.class_names == space.class_names
    assert again.name == space.name == "vit_tiny_patch16_224"
    assert again.fitted.accuracy == space.fitted.accuracy
    assert repr(again) == repr(space)
    for part in ("size", "mean", "std", "crop", "crop_mode", "interpolation"):
        assert getattr(again.preprocessing, part) == getattr(space.preprocessing, part)
    again.save(tmp_path / "again.safetensors")
    assert load_file(tmp_path / "again.safetensors")["bias"].equal(load_file(tmp_path / "mine.safetensors")["bias"])


def test_fewer_blocks_are_taken_from_the_same_file(weights):
    options = {"checkpoint": weights, "image_size": 32, "progress": False, "device": "cpu", "features": "token"}
    space = ClassSpace.fit("vit_tiny_patch16_224", pictures(), depth=2, **options)
    whole = backbone(depth=4)
    whole.load_state_dict(load_file(weights))
    whole.blocks = whole.blocks[:2]
    with torch.no_grad():
        expected = whole(space.pixels(pictures()[0][0])) @ space.fitted.weight.T + space.fitted.bias
    assert torch.allclose(space.trace(pictures()[0][0]).output, expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"12 missing|missing \(blocks\.4"):
        ClassSpace.fit("vit_tiny_patch16_224", pictures(), depth=5, **options)


def test_fewer_blocks_of_published_weights(monkeypatch):
    from classspace_widgets.models import build

    whole = backbone(depth=4)
    monkeypatch.setattr(build, "_created", lambda _name, _pretrained, options: backbone(depth=4, **options))
    made = build._pretrained("vit_tiny_patch16_224", {"depth": 2})
    assert len(made.blocks) == 2
    assert torch.equal(made.blocks[1].mlp.fc2.weight, whole.blocks[1].mlp.fc2.weight)
    with pytest.raises(ValueError, match=r"has 4 blocks, so depth must be in 1\.\.4, got 5"):
        build._pretrained("vit_tiny_patch16_224", {"depth": 5})


def test_another_backbone_is_refused(weights, tmp_path):
    model = backbone()
    fit(model).save(tmp_path / "mine.safetensors")
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.blocks[1].mlp.fc1.weight[3, 5] += 1e-3
    for other in (changed, backbone(depth=2)):
        with pytest.raises(ValueError, match=r"is of another backbone: .* hash [0-9a-f]{16}.*ClassSpace\.fit"):
            ClassSpace.load(tmp_path / "mine.safetensors", other)
    with pytest.raises(
        ValueError, match=r"made with a model that was given, .*ClassSpace\.load\(path, backbone=model\)"
    ):
        ClassSpace.load(tmp_path / "mine.safetensors")
    with pytest.raises(UnsupportedModelError, match="ResNet"):
        ClassSpace.load(tmp_path / "mine.safetensors", timm.create_model("resnet18"))
    # Another classifier is no other backbone.
    other = backbone(num_classes=7)
    other.load_state_dict({**other.state_dict(), **model.state_dict()})
    assert ClassSpace.load(tmp_path / "mine.safetensors", other).class_names == NAMES


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype, tmp_path):
    model = backbone()
    space = fit(model, dtype=dtype)
    space.save(tmp_path / "mine.safetensors")
    again = ClassSpace.load(tmp_path / "mine.safetensors", model)
    assert again.dtype == dtype
    picture = pictures()[0][0]
    assert torch.equal(again.trace(picture).output, space.trace(picture).output)


def test_spaces_that_were_not_fitted_are_saved_too(tmp_path):
    model = tiny_vit().model
    width = model.embed_dim
    foreign = ClassSpace(
        model, class_embedding=torch.randn(2, width), class_bias=torch.randn(2), class_names=["cat", "dog"]
    )
    for number, space in enumerate((foreign, ClassSpace(model), ClassSpace.bundled("contrast"))):
        space.save(tmp_path / f"{number}.safetensors")
        again = ClassSpace.load(tmp_path / f"{number}.safetensors", None if number == 2 else model)
        size = (1, 3, *space.preprocessing.size)
        pixels = torch.randn(size, generator=torch.Generator().manual_seed(0))
        assert torch.equal(again.trace(pixels).output, space.trace(pixels).output)
        assert again.class_names == space.class_names
        assert again.adapter.own_output == space.adapter.own_output
        assert again.fitted is None


def test_a_model_with_two_classifiers_cannot_be_saved_or_fitted(tmp_path):
    model = timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, depth=2)
    with pytest.raises(UnsupportedModelError, match="has two classifiers"):
        ClassSpace(model).save(tmp_path / "mine.safetensors")
    with pytest.raises(UnsupportedModelError, match="has two classifiers"):
        fit(model)


def _meta(path, **changes):
    """Write a file again with other meta data, or other tensors."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    meta = json.loads(header["space"])
    for name, value in changes.items():
        if name in tensors:
            tensors[name] = value
        elif name in header:
            header[name] = value
        else:
            meta[name] = value
    save_file(tensors, path, metadata=header | {"space": json.dumps(meta)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "classspace lens"}, "is not a class space; expected a file that space.save wrote"),
        ({"version": "2"}, "has space version 2, this package reads up to 1"),
        ({"class_names": ["cat"]}, "is a damaged class space .its embedding .* are not those of 1 classes"),
        ({"class_names": 3}, "class_names must be a list"),
        ({"features": "nose"}, "features must be one of token"),
        ({"dtype": "int8"}, "dtype must be one of float32"),
        ({"bias": torch.full((3,), torch.nan)}, "contains NaN or infinite"),
        ({"backbone": {"source": "web"}}, "backbone.image_size"),
    ],
)
def test_damaged_files(changes, words, tmp_path):
    path = tmp_path / "mine.safetensors"
    fit(backbone()).save(path)
    _meta(path, **changes)
    with pytest.raises(ValueError, match=words):
        ClassSpace.load(path, backbone())


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no class space at"):
        ClassSpace.load(tmp_path / "nothing.safetensors")
    path = tmp_path / "mine.safetensors"
    fit(backbone()).save(path)
    shutil.copy(path, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        ClassSpace.load(tmp_path / "cut.safetensors", backbone())


def test_the_hash_of_a_backbone_leaves_out_its_head():
    model = backbone(num_classes=3)
    before = model_fingerprint(model, leave_out="head.")
    with torch.no_grad():
        model.head.weight += 1
    assert model_fingerprint(model, leave_out="head.") == before
    with torch.no_grad():
        model.norm.bias += 1
    assert model_fingerprint(model, leave_out="head.") != before


# -- bad input ---------------------------------------------------------------------------------------------------------


def listed(labels):
    return [(np.full((32, 32, 3), 20 * i % 250, np.uint8), label) for i, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (listed([0, 0, 0]), {}, r"two classes or more, got 1 .*root/<class>/<picture>"),
        (listed([0, 0, 1]), {}, r"2 pictures or more .*'class 1' \(1\)"),
        (listed([0, 0, 1, 1, 3, 3]), {}, r"without gaps, got 0, 1, 3: 2 has no picture; .*class_names=\{0: 'name', 1"),
        (listed([1, 1, 2, 2]), {}, r"got 1, 2: 0 has no picture"),
        (listed([0, 0, 1, 1]), {"class_names": ["cat"]}, r"label 1 has no name"),
        (listed([0, 0, 1, 1]), {"class_names": ["cat", "cat"]}, r"'cat' twice"),
        (listed([0, 0, 1, 1]), {"class_names": ["cat", "dog", "owl"]}, r"too few: 'owl' \(0\)"),
        (pictures(), {"class_names": ["cat", "dog"]}, r"must name the data set's 3 classes, got 2"),
        (listed([0, 0, "a", 1]), {}, "its label must be one integer"),
        (listed([0, 0, 1, 1]), {"features": "nose"}, "features must be 'auto' or one of 'token'"),
        (listed([0, 0, 1, 1]), {"features": "pooled"}, "has no module that pools its tokens"),
        (listed([0, 0, 1, 1]), {"batch_size": 0}, "batch_size must be"),
    ],
)
def test_data_that_cannot_be_fitted(data, options, words):
    with pytest.raises(ValueError, match=words):
        fit(backbone(), data, **options)


def test_labels_with_gaps_are_fitted_with_the_line_that_the_error_has():
    space = fit(backbone(), listed([3, 3, 7, 7]), class_names={7: "dog", 3: "cat"})
    assert space.class_names == ("cat", "dog")


def test_pictures_that_cannot_be_read_are_left_out_and_told(tmp_path):
    for name, colour in (("cat", 40), ("dog", 200)):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (40, 32), (colour, 10 * number, 0)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "cat" / "3.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"1 of 7 pictures could not be read and are left out; the first is picture 3"):
        space = fit(backbone(), tmp_path)
    assert space.fitted.n_pictures == 6
    assert space.class_names == ("cat", "dog")


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "cait_xxs24_224"])
def test_backbones_that_are_no_plain_vision_transformer(name):
    with pytest.raises(UnsupportedModelError, match="is not supported"):
        fit(timm.create_model(name))


def test_refusals_name_the_line_that_works():
    with pytest.raises(UnsupportedModelError, match=r"ClassSpace\.fit\(model, 'pictures/'\)"):
        ClassSpace(backbone())
    with pytest.raises(UnsupportedModelError, match=r"ClassSpace\.fit\(model, 'pictures/'\)"):
        ClassSpace(BACKBONES["DINOv2"]())
    with pytest.raises(TypeError, match="depth= goes with the name of a model"):
        fit(backbone(), depth=2)
    with pytest.raises(TypeError, match="depth= goes with the name of a timm model; bundled is taken as it is"):
        fit("bundled", depth=2, mean=None, std=None, crop=None)
    with pytest.raises(TypeError, match="checkpoint= goes with the name of a timm model"):
        fit("bundled", checkpoint="weights.pth", mean=None, std=None, crop=None)
    with pytest.raises(ValueError, match="close matches: vit_tiny_patch16_224"):
        ClassSpace.fit("vit_tny_patch16_224", pictures())
    with pytest.raises(DatasetError, match="no such folder"):
        fit(backbone(), "/no/such/folder")


def test_no_network_says_what_to_do(monkeypatch):
    import huggingface_hub

    def cut_off(*_args, **_options):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub.file_download, "hf_hub_download", cut_off)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", cut_off)
    with pytest.raises(RuntimeError, match=r"could not be loaded .* pass checkpoint="):
        ClassSpace.fit("vit_small_patch14_dinov2.lvd142m", pictures(), image_size=28)
