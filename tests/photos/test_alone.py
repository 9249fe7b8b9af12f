"""A photograph alone is enough: it is traced with the bundled photo model, which the views name."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from classspace_widgets import Explorer
from classspace_widgets.cli import main
from classspace_widgets.images import sample_photo
from classspace_widgets.widgets import PatchHeatmap, Session

RAMP = np.add.outer(np.arange(90), np.arange(120))


def odd_pictures() -> dict[str, Image.Image]:
    """By file name: one pixel, panoramas, and every mode that a camera or a scanner writes."""
    colours = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], -1).astype(np.uint8)
    return {
        "one_pixel.png": Image.new("RGB", (1, 1), "orange"),
        "wide.png": Image.fromarray(np.tile(colours, (1, 30, 1))),
        "tall.jpg": Image.fromarray(np.tile(colours, (20, 1, 1))),
        "grey.jpg": Image.fromarray(RAMP.astype(np.uint8)),
        "ink.jpg": Image.fromarray(colours).convert("CMYK"),
        "deep.png": Image.fromarray((RAMP * 313).astype(np.uint16)),
        "palette.gif": Image.fromarray(colours).quantize(16),
        "glass.png": Image.fromarray(np.dstack([colours, RAMP.astype(np.uint8)])),
    }


@pytest.mark.parametrize("name", odd_pictures())
def test_odd_pictures_are_explored_by_their_path(tmp_path, name):
    odd_pictures()[name].save(tmp_path / name)
    explorer = Explorer(tmp_path / name)
    meta = explorer.snapshot.meta
    assert (meta["model"]["name"], meta["image"]["name"]) == ("bundled/photos", name)
    assert (meta["image"]["width"], meta["image"]["height"]) == (64, 64)
    assert np.isfinite(explorer.snapshot.arrays["output_logits"]).all()
    assert re.search(r"\d+%, \d+ points ahead of", explorer.snapshot.answer)
    explorer.close()


def test_odd_pictures_are_exported(tmp_path, capsys):
    names = []
    for name, picture in odd_pictures().items():
        picture.save(tmp_path / name)
        names.append(str(tmp_path / name))
    assert main(["export", *names, "--out", str(tmp_path / "page.html"), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    for name in odd_pictures():
        assert f"\n{name}: " in said
    assert (tmp_path / "page.html").read_text().count('class="csw-mount"') == len(names)


def test_a_path_a_picture_bytes_a_file_and_an_array_are_the_same_photograph(tmp_path):
    path = sample_photo()
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    forms = [path, str(path), picture, path.read_bytes(), io.BytesIO(path.read_bytes()), np.asarray(picture)]
    answers = [Session(form).snapshot.arrays["output_logits"] for form in forms]
    for logits in answers[1:]:
        np.testing.assert_allclose(logits, answers[0], atol=1e-4)


def test_the_view_says_which_model_it_is_and_how_another_is_named():
    view = PatchHeatmap(sample_photo(), block=3)
    assert view.session.block == 3
    about = view.snapshot.meta["model"]["description"]
    assert "bundled photo model is small: it knows 82 everyday classes" in about
    assert 'ClassSpace.from_timm("vit_base_patch16_224").trace(picture)' in about
    assert view.snapshot.meta["attention"], "heads are there"
    view.image = sample_photo("cat")
    assert view.snapshot.meta["model"]["description"] == about
    assert view.snapshot.meta["image"]["name"] == "cat.jpg"


def test_what_is_captured_of_a_trace_can_be_said_of_a_picture():
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 1
    session = Session(sample_photo(), mask=mask, label="espresso", title="coffee")
    assert session.snapshot.meta["image"]["label"] == session.class_names.index("espresso")
    assert (session.image, session.snapshot.arrays["mask"].sum()) == ("coffee", 32 * 32)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("no/such.jpg", FileNotFoundError, "there is no image file at no/such.jpg"),
        (b"%PDF-1.7", ValueError, "is not an image"),
        (
            "page.csnap",
            TypeError,
            r"page\.csnap is a snapshot file, no picture; open it with Explorer\.from_file\('page\.csnap'\)",
        ),
        (np.zeros((3, 4, 5, 6), np.uint8), ValueError, "an image array must have shape|images"),
        ({"image": 1}, TypeError, "expected a picture .*, got dict"),
        (None, TypeError, "expected a picture .*, got NoneType"),
    ],
)
def test_what_is_no_picture_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        Explorer(given)
