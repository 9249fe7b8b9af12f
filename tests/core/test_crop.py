"""Parts of pictures: which part a model sees, which part it is asked to look at, and photographs kept as given."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from timm.models.vision_transformer import VisionTransformer

from classspace_widgets import ClassSpace
from classspace_widgets.images.crop import bounded, cut, seen
from classspace_widgets.images.preprocessing import Preprocessing


def model(**options):
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 5}
    return VisionTransformer(**(small | options)).eval()


def how(mode="center", crop=1.0, size=32):
    made = model(img_size=size)
    made.pretrained_cfg = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "crop_pct": crop, "crop_mode": mode}
    return Preprocessing.of(made)


def ramps(width, height):
    """A picture whose red grows from left to right and whose green grows from top to bottom."""
    pixels = np.zeros((height, width, 3), np.float32)
    pixels[..., 0] = (np.arange(width) + 0.5) / width
    pixels[..., 1] = ((np.arange(height) + 0.5) / height)[:, None]
    return Image.fromarray((255 * pixels).round().astype(np.uint8))


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop", [1.0, 0.875])
@pytest.mark.parametrize("size", [32, (32, 48)])
@pytest.mark.parametrize(("width", "height"), [(320, 200), (200, 320), (96, 96)])
def test_the_part_that_is_seen_is_the_one_that_timm_cuts(mode, crop, size, width, height):
    """Ramps give away where every pixel of the input comes from."""
    ready = how(mode, crop, size)
    found = ready.transform(ramps(width, height)).numpy()
    left, top, right, bottom = seen(ready, width, height)
    rows, columns = found.shape[1:]
    across = left + (right - left) * (np.arange(columns) + 0.5) / columns
    down = top + (bottom - top) * (np.arange(rows) + 0.5) / rows
    # At the picture's edges resampling flattens a ramp; what is padded is 0.
    inside_x, inside_y = (across > 0.06) & (across < 0.94), (down > 0.06) & (down < 0.94)
    np.testing.assert_allclose(found[0, rows // 2, inside_x], across[inside_x], atol=0.02)
    np.testing.assert_allclose(found[1, inside_y, columns // 2], down[inside_y], atol=0.02)
    assert (found[0, rows // 2, (across < -0.03) | (across > 1.03)] == 0).all()


def test_a_part_is_read_as_the_same_part_cut_out_by_hand():
    space = ClassSpace(model(), mean=0.5, std=0.25, crop=0.875)
    photo = ramps(200, 120)
    trace = space.trace(photo, crop=(0.25, 0.5, 0.75, 1.0))
    # 100 x 60 pixels, of which the model sees 60 x 60 in the middle: nothing is cut from the shorter side.
    by_hand = create_transform((3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, crop_pct=1.0, interpolation="bicubic")
    expected = space.trace(by_hand(photo.crop((50, 60, 150, 120)))[None])
    assert torch.equal(trace.output, expected.output)
    (photograph,) = trace.photographs
    assert photograph.picture.size == (200, 120)
    np.testing.assert_allclose(photograph.crop, (70 / 200, 0.5, 130 / 200, 1.0), atol=0.01)
    assert expected.photographs == (None,)


@pytest.mark.parametrize(
    "crop",
    [(0.5, 0, 0.5, 1), (0, 0, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.1), "left", (0, 0, "a", 1), (0, float("nan"), 1, 1), 3],
)
def test_what_is_no_part_is_refused_with_a_line_that_works(crop):
    space = ClassSpace(model(), mean=0.5, std=0.25, crop=1.0)
    with pytest.raises(ValueError, match=r"crop must be \(left, top, right, bottom\).*crop=\(0\.25, 0, 0\.75, 1\)"):
        space.trace(ramps(64, 64), crop=crop)
    space.trace(ramps(64, 64), crop=(0.25, 0, 0.75, 1))


def test_ready_input_cannot_be_cropped():
    space = ClassSpace(model(), mean=0.5, std=0.25, crop=1.0)
    with pytest.raises(ValueError, match="ready input cannot be cropped"):
        space.trace(torch.zeros(1, 3, 32, 32), crop=(0, 0, 0.5, 0.5))


def test_a_part_has_at_least_one_pixel():
    part, place = cut(ramps(3, 2), (0.99, 0.99, 1.0, 1.0))
    assert part.size == (1, 1)
    assert place == (2 / 3, 1 / 2, 1.0, 1.0)


def test_large_batches_keep_smaller_photographs(monkeypatch):
    monkeypatch.setattr("classspace_widgets.images.crop.KEPT_PIXELS", 2_000)
    space = ClassSpace(model(), mean=0.5, std=0.25, crop=1.0)
    photo = space.trace(ramps(50, 40)).photographs[0]
    assert photo.picture.size == (50, 40)
    first, second = space.trace([ramps(50, 40), ramps(20, 20)]).photographs
    assert first.picture.size == (35, 28)
    assert second.picture.size == (20, 20)
    assert bounded([None]) == (None,)


def test_the_photograph_travels_without_its_metadata():
    space = ClassSpace(model(), mean=0.5, std=0.25, crop=1.0)
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x9286] = "SECRET COMMENT"
    exif.get_ifd(0x8825)[1] = "N"
    ramps(300, 200).save(file, "JPEG", exif=exif, comment=b"SECRET COMMENT")
    assert b"SECRET" in file.getvalue()
    trace = space.trace(file.getvalue())
    assert trace.photographs[0].picture.info == {}
    given = Image.open(io.BytesIO(file.getvalue()))
    space.trace(given)
    assert "exif" in given.info  # the caller's own is left as it was
    snapshot = trace.snapshot(title="holiday.jpg")
    photo = snapshot.meta["image"]["photo"]
    assert photo["crop"] == pytest.approx([1 / 6, 0, 5 / 6, 1], abs=0.02)
    data = snapshot.arrays["photo"].tobytes()
    shown = Image.open(io.BytesIO(data))
    assert shown.size == (photo["width"], photo["height"]) == (300, 200)
    assert b"SECRET" not in data
    assert not shown.getexif()
    assert snapshot.meta["image"]["name"] == "holiday.jpg"


def test_a_picture_of_the_models_own_size_travels_once():
    space = ClassSpace(model(), mean=0.5, std=0.25, crop=1.0)
    assert "photo" not in space.trace(ramps(32, 32)).snapshot().arrays
    assert "photo" not in space.trace(torch.zeros(1, 3, 32, 32)).snapshot().arrays


def finish(steps):
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def test_a_view_asks_for_another_part_of_the_photograph():
    space = ClassSpace(model(), mean=0.5, std=0.25, crop=1.0)
    trace = space.trace(ramps(300, 200))
    source = trace.snapshot().source
    answer = finish(source.answer("image", {"name": "mine", "crop": [0.0, 0.0, 0.5, 0.75]}))
    assert torch.equal(source.trace.output, space.trace(ramps(300, 200), crop=(0, 0, 0.5, 0.75)).output)
    assert answer.snapshot.meta["image"]["photo"]["crop"] == [0.0, 0.0, 0.5, 0.75]
    assert answer.snapshot.meta["image"]["name"] == "mine"
    with pytest.raises(ValueError, match="crop must be"):
        finish(source.answer("image", {"name": "mine", "crop": [0.0, 0.0, 2.0, 0.75]}))
    ready = space.trace(torch.zeros(1, 3, 32, 32)).snapshot().source
    with pytest.raises(ValueError, match="trace the picture's file"):
        finish(ready.answer("image", {"name": "", "crop": [0.0, 0.0, 0.5, 0.75]}))
    with pytest.raises(ValueError, match="no picture came"):
        finish(ready.answer("image", {"name": ""}))


def test_a_pass_with_interventions_does_not_carry_the_photograph_again():
    from classspace_widgets.interventions import RemoveTokens

    space = ClassSpace(model(), mean=0.5, std=0.25, crop=1.0)
    source = space.trace(ramps(300, 200)).snapshot().source
    assert "photo" not in source.intervened(RemoveTokens(tokens=[3])).arrays
