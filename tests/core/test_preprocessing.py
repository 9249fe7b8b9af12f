"""How pictures become input: what the caller says, what the model's configuration says, and what is only assumed."""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torchvision.transforms.functional import center_crop

from classspace_widgets import ClassSpace
from classspace_widgets.cli.model import add_model, space_of
from classspace_widgets.memories import most_activating
from classspace_widgets.studies import run_study
from core.families import pixels

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 5}
IMAGENET = r"mean=\(0\.485, 0\.456, 0\.406\), std=\(0\.229, 0\.224, 0\.225\), crop=0\.875"


def bare(**options):
    return VisionTransformer(**(SMALL | options)).eval()


def picture(height=32, width=32):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_mean_and_std_are_used_as_said():
    space = ClassSpace(bare(), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop=1.0)
    found, shown, _ = space.preprocess(picture())
    expected = (picture().transpose(2, 0, 1) / 255 - np.array([0.1, 0.2, 0.3])[:, None, None]) / np.array(
        [0.4, 0.5, 0.6]
    )[:, None, None]
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)
    assert np.array_equal(shown[0], picture())
    assert ClassSpace(bare(), mean=0.5, std=0.25, crop=1).preprocessing.std == (0.25,) * 3


def test_crop_is_the_share_that_is_kept():
    """With a crop of a half, a picture of twice the size is cut and not resized."""
    space = ClassSpace(bare(), mean=0.0, std=1.0, crop=0.5)
    large = picture(64, 64)
    found = space.preprocess(large)[0][0]
    expected = center_crop(torch.from_numpy(large.transpose(2, 0, 1)), [32, 32]) / 255
    torch.testing.assert_close(found, expected)


def test_a_configuration_is_kept_where_nothing_is_said():
    model = timm.create_model("vit_base_patch16_224", **SMALL)
    how = ClassSpace(model, std=0.25).preprocessing
    assert how.mean == tuple(model.pretrained_cfg["mean"])
    assert how.std == (0.25,) * 3
    assert how.crop == model.pretrained_cfg["crop_pct"]
    assert how.assumed == ()


def reads_pictures():
    """Every way by which a picture reaches a model."""
    data = [(picture(), 0), (picture(40, 50), 1)]
    return {
        "trace": lambda space: space.trace(picture()),
        "trace of a uint8 tensor": lambda space: space.trace(torch.zeros(3, 32, 32, dtype=torch.uint8)),
        "stream_readings": lambda space: space.stream_readings(picture(), 0),
        "study": lambda space: run_study(space, data, ["accuracy"], progress=False),
        "memories": lambda space: most_activating(space, data, 1, "mlp", [0], progress=False),
    }


@pytest.mark.parametrize("way", reads_pictures())
def test_what_is_assumed_is_said_once(way):
    read = reads_pictures()[way]
    space = ClassSpace(bare())
    assert space.preprocessing.assumed == ("mean", "std", "crop")
    assert "(mean, std, crop assumed)" in space._repr_html_()
    space.trace(pixels(space))  # ready input needs none of it
    with pytest.warns(UserWarning, match=f"ImageNet's is assumed: {IMAGENET}; say .*ClassSpace") as said:
        read(space)
    read(space)
    assert len(said) == 1
    # What the warning says can be typed in, and then nothing is assumed.
    told = str(said[0].message).rpartition("ClassSpace")[2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        confirmed = eval(f"ClassSpace{told}", {"ClassSpace": ClassSpace, "model": space.model})
        read(confirmed)
    assert confirmed.preprocessing.mean == (0.485, 0.456, 0.406)


def test_only_what_is_missing_is_assumed():
    model = bare()
    model.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    space = ClassSpace(model)
    with pytest.warns(UserWarning, match=r"assumed: crop=0\.875; "):
        space.trace(picture())
    with pytest.warns(UserWarning, match=r"assumed: std=\(0\.229, 0\.224, 0\.225\), crop=0\.875; "):
        ClassSpace(bare(), mean=0.5).trace(picture())


@pytest.mark.filterwarnings("ignore:.*is assumed")
def test_twins_and_copies_take_pictures_alike():
    from classspace_widgets.space.like import on_device

    space = ClassSpace(bare(), mean=0.3, std=0.2, crop=0.6)
    for other in (space.random_twin(), on_device(space, "cpu")):
        assert torch.equal(other.preprocess(picture())[0], space.preprocess(picture())[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": (0.5, 0.5)}, "mean must be one number, or one for each of the 3 channels, got 2"),
        ({"mean": (123.7, 116.3, 103.5)}, r"mean must lie in 0\.\.1, .*divide by 255"),
        ({"std": 0.0}, r"std must lie in \(0, 1\]"),
        ({"std": (0.2, float("nan"), 0.2)}, r"std must lie in"),
        ({"crop": 87.5}, r"crop must be a share .*try 0\.875"),
        ({"crop": 0}, "crop must be a share"),
        ({"image_size": 64}, r"built for pictures of 32 x 32 and takes no others, got image_size=\(64, 64\)"),
        ({"image_size": (32, 32, 3)}, r"image_size must be a number of pixels, or \(height, width\)"),
    ],
)
def test_nonsense_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ClassSpace(bare(), **options)


def test_image_size():
    flexible = bare(dynamic_img_size=True)
    space = ClassSpace(flexible, image_size=(48, 64), mean=0.5, std=0.5, crop=1.0)
    assert space.trace(picture()).grid == (6, 8)
    strict = bare(dynamic_img_size=True)
    with pytest.raises(ValueError, match=r"image_size must be a multiple of \(8, 8\), got \(50, 64\)"):
        ClassSpace(strict, image_size=(50, 64))
    built = ClassSpace.from_timm(
        "vit_base_patch16_224",
        pretrained=False,
        image_size=48,
        device="cpu",
        **{k: v for k, v in SMALL.items() if k != "img_size"},
    )
    assert built.adapter.grid == (6, 6)
    with pytest.raises(ValueError, match="image_size=48 and img_size=32 say two things"):
        ClassSpace.from_timm("vit_base_patch16_224", pretrained=False, image_size=48, **SMALL)


def test_from_a_checkpoint_and_from_the_command_line(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    torch.save(timm.create_model("vit_base_patch16_224", **SMALL).state_dict(), path)
    small = {k: v for k, v in SMALL.items() if k != "num_classes"}
    space = ClassSpace.from_timm(
        "vit_base_patch16_224", checkpoint=path, mean=0.4, std=0.3, crop=0.7, device="cpu", **small
    )
    assert (space.preprocessing.mean, space.preprocessing.std, space.preprocessing.crop) == (
        (0.4,) * 3,
        (0.3,) * 3,
        0.7,
    )
    parser = argparse.ArgumentParser()
    add_model(parser)
    line = (
        f"--model vit_base_patch16_224 --checkpoint {path} --mean .1 .2 .3 --std .5 --crop .9 --image-size 48".split()
    )
    asked = {}
    monkeypatch.setattr(ClassSpace, "from_timm", lambda name, **options: asked.update(options))
    space_of(parser.parse_args(line))
    assert {k: asked[k] for k in ("mean", "std", "crop", "image_size")} == {
        "mean": [0.1, 0.2, 0.3],
        "std": 0.5,
        "crop": 0.9,
        "image_size": 48,
    }
    with pytest.raises(ValueError, match="--image-size needs --model with a timm model name"):
        space_of(parser.parse_args(["--image-size", "32", "48"]))


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_of_one_logit_is_told_to_say_nothing_and_how_to_make_it_say_something(bias):
    model = bare(num_classes=1)
    if not bias:
        model.head = torch.nn.Linear(24, 1, bias=False)
    with pytest.warns(UserWarning, match="has one class: its rank is always 0") as said:
        space = ClassSpace(model)
    remedy = "ClassSpace(" + str(said[0].message).partition("ClassSpace(")[2]
    two = eval(remedy, {"ClassSpace": ClassSpace, "torch": torch, "model": model})
    images = pixels(two)
    yes = torch.sigmoid(space.trace(images).output[:, 0])
    torch.testing.assert_close(two.trace(images).output.softmax(dim=1)[:, 1], yes)
    assert set(two.trace(images).ranks(classes="yes").unique().tolist()) <= {0, 1}
    with pytest.warns(UserWarning, match="has one class.*two rows or more"):
        ClassSpace(bare(), class_embedding=torch.ones(1, 24))
