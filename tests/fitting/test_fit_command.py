"""`classspace fit`, and what it writes in `export` and `study`."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

from classspace_widgets import ClassSpace
from classspace_widgets.cli import main
from classspace_widgets.scenes import make_scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scenes of two classes, each with its mask beside it."""
    root = tmp_path_factory.mktemp("photos")
    for name in ("boat", "fish"):
        (root / name).mkdir()
        for seed in range(4):
            scene = make_scene(seed, label=name)
            scene.picture.save(root / name / f"{seed}.png")
            Image.fromarray((scene.mask == 1).astype(np.uint8) * 255).save(root / name / f"{seed}_mask.png")
    return root


@pytest.fixture(scope="module")
def fitted(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "mine.safetensors"
    assert main(["fit", str(folder), "--model", "bundled/gap", "--out", str(path), "--device", "cpu"]) == 0
    return path


def test_fit_writes_a_file_and_says_how_accurate_it_is(folder, tmp_path, capsys):
    out = tmp_path / "mine.safetensors"
    options = ["--model", "bundled", "--features", "mean", "--device", "cpu", "--workers", "0"]
    assert main(["fit", str(folder), "--out", str(out), *options]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"2 classes fitted on 8 pictures, reading the mean of the image tokens: accuracy [\d.]+ in 4-fold", said
    )
    assert f"classspace export PICTURE --space {out} --out page.html" in said
    space = ClassSpace.load(out)
    assert space.class_names == ("boat", "fish")
    assert space.fitted.features == "mean"


def test_a_page_of_a_fitted_space(folder, fitted, tmp_path):
    page = tmp_path / "page.html"
    picture = folder / "fish" / "0.png"
    assert main(["export", str(picture), "--space", str(fitted), "--out", str(page), "--device", "cpu"]) == 0
    assert page.stat().st_size > 100_000


def test_a_study_of_a_fitted_space_with_masks_found_beside_the_pictures(folder, fitted, tmp_path):
    out = tmp_path / "results"
    options = ["--studies", "accuracy", "place_difference", "--device", "cpu"]
    assert main(["study", "--space", str(fitted), "--data", str(folder), "--out", str(out), *options]) == 0
    from classspace_widgets.studies import StudyResults

    found = StudyResults.load(out / "results.json.gz")
    assert found.provenance["pictures"] == 8
    assert len(found["place_difference"].table) > 0


def test_a_timm_name_with_weights_from_a_file(folder, tmp_path, capsys):
    import timm
    from safetensors.torch import save_file

    weights = tmp_path / "weights.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, num_classes=0).state_dict(), weights)
    out = tmp_path / "mine.safetensors"
    model = ["--model", "vit_tiny_patch16_224", "--checkpoint", str(weights)]
    assert main(["fit", str(folder), *model, "--image-size", "32", "--depth", "2", "--out", str(out)]) == 0
    assert f"--checkpoint {weights}" in capsys.readouterr().out
    page = tmp_path / "page.html"
    picture = str(folder / "fish" / "0.png")
    assert main(["export", picture, "--space", str(out), "--out", str(page)]) == 1
    assert "say where they are" in capsys.readouterr().err
    assert main(["export", picture, "--space", str(out), "--checkpoint", str(weights), "--out", str(page)]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "{folder}", "--out", "{out}/m.safetensors"], "--model is needed"),
        (["fit", "{folder}", "--model", "bundled", "--out", "{out}"], "--out must be a file in a folder"),
        (["fit", "{folder}/fish", "--model", "bundled", "--out", "{out}/m.safetensors"], "has no subfolders; expected"),
        (["fit", "/no/folder", "--model", "bundled", "--out", "{out}/m.safetensors"], "no data set '/no/folder'"),
        (["export", "{folder}/fish/0.png", "--space", "/no/file", "--out", "{out}/p.html"], "there is no class space"),
        (
            ["export", "{folder}/fish/0.png", "--space", "{fitted}", "--crop", "1", "--out", "{out}/p.html"],
            "--crop does not go",
        ),
    ],
)
def test_what_cannot_be_done(arguments, words, folder, fitted, tmp_path, capsys):
    places = {"folder": folder, "fitted": fitted, "out": tmp_path}
    assert main([part.format(**places) for part in arguments]) == 1
    assert words in capsys.readouterr().err


def test_place_mask_puts_a_mask_where_the_picture_is(fitted):
    space = ClassSpace.load(fitted)
    drawn = Image.new("L", (300, 200))
    ImageDraw.Draw(drawn).rectangle((100, 50, 199, 149), fill=1)
    placed = space.place_mask(np.asarray(drawn))
    assert placed.shape == space.preprocessing.size
    # The same rectangle in white, through the picture's own way.
    shown = space.preprocess(Image.fromarray(np.asarray(drawn) * 255))
    pictures = getattr(shown, "pictures", None)
    pictures = shown[1] if pictures is None else pictures
    assert ((np.asarray(pictures)[0, :, :, 0] > 127) != (placed == 1)).mean() < 0.02
