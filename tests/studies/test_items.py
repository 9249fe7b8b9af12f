"""Masks, and what else becomes of a data set's items on their way to the model."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from tiny_models import tiny_vit
from torchvision.transforms import InterpolationMode

from classspace_widgets import ClassSpace
from classspace_widgets.causal import sweep_heads
from classspace_widgets.data import DatasetError, imagenet_s, token_mask
from classspace_widgets.data.prepare import Preparer, Unreadable
from classspace_widgets.data.sets import PictureFiles
from classspace_widgets.explain import perturbation
from classspace_widgets.images.placing import PixelTransform
from classspace_widgets.interventions import KnockOutAttention, run_with
from classspace_widgets.masks import binary_mask
from classspace_widgets.probing import fit_probes
from classspace_widgets.studies import Execution, ExplanationStudy, run_study
from classspace_widgets.studies.standard import all_studies

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def space():
    return tiny_vit()


def noise(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def of_one_row(*values, kind=np.int64):
    return np.array([values], kind)


UNDERSTOOD = [
    (of_one_row(0, 1, 1), [0, 1, 1]),
    (of_one_row(False, True, True, kind=bool), [0, 1, 1]),
    (of_one_row(False, False, kind=bool), [0, 0]),
    (of_one_row(0, 0), [0, 0]),
    (of_one_row(0.0, 1.0, 2.0, kind=np.float32), [0, 1, 0]),
    (of_one_row(0, 1, 2, 7), [0, 1, 0, 0]),
    (of_one_row(0, 1, 255), [0, 1, 255]),
    (of_one_row(0, 1, 15, 255, kind=np.uint8), [0, 1, 0, 255]),
    (of_one_row(1, 190, 255), [1, 0, 255]),
    (of_one_row(0, 255), [0, 1]),
    (of_one_row(0, 1, 26001, 300), [0, 1, 0, 0]),
    (of_one_row(*range(64)), [0, 1, *[0] * 62]),
]
REFUSED = [
    (of_one_row(0, 7), r"contains 0, 7 and no 1; pass mask == 7, or no mask"),
    (of_one_row(0, 7, kind=np.uint8), r"pass mask == 7"),
    (of_one_row(0, 2, 3), r"contains 0, 2, 3 and no 1; pass mask == <the object's number>"),
    (of_one_row(0, 7, 255), r"and no 1; pass mask == <"),
    (of_one_row(255, 255), r"contains 255 and no 1; pass mask == 255"),
    (of_one_row(0, 0.7, kind=np.float32), r"whole numbers, got 0.7; for probabilities pass mask > 0.5"),
    (of_one_row(0, 0.2, 0.9, 1, kind=float), r"whole numbers, got 0.2"),
    (of_one_row(0, 1, np.nan, kind=float), r"whole numbers, got nan"),
    (of_one_row(-1, 0, 1), r"must not contain -1; 255 marks pixels to ignore: np.where\(mask < 0, 255, mask\)"),
    (of_one_row(0, 1, 3, 252, 254, 255, kind=np.uint8), r"6 different values up to 255, as grey edges .* mask > 127"),
    (of_one_row(*range(65)), r"65 different values up to 64"),
    (np.array([["a"]]), "must contain numbers or be boolean, got <U1"),
    (of_one_row(1j, kind=complex), "must contain numbers"),
]


@pytest.mark.parametrize(("mask", "expected"), UNDERSTOOD)
def test_masks_that_are_understood(mask, expected):
    before = mask.copy()
    found = binary_mask(mask)
    assert found.tolist() == [expected]
    assert found.dtype == np.uint8
    assert np.array_equal(mask, before)
    assert token_mask(mask, (1, mask.shape[1])).tolist() == [-1 if value == 255 else value for value in expected]


@pytest.mark.parametrize(("mask", "words"), REFUSED)
def test_masks_that_are_refused(space, mask, words):
    with pytest.raises(DatasetError, match=words):
        token_mask(mask, (1, mask.shape[1]))
    items = [(noise(*mask.shape), 0, mask)]
    with pytest.raises(DatasetError, match=f"picture 0: a mask.*{words}"):
        Preparer(items, PixelTransform.of(space.preprocessing), (1, 1), 7)(0)


def test_the_remedies_for_masks_work():
    numbers, negative = np.array([[0, 7]]), np.array([[-1, 0, 1]])
    assert token_mask(numbers == 7, (1, 2)).tolist() == [0, 1]
    assert token_mask(np.where(negative < 0, 255, negative), (1, 3)).tolist() == [-1, 0, 1]
    assert token_mask(np.array([[0.2, 0.7]]) > 0.5, (1, 2)).tolist() == [0, 1]
    assert token_mask(np.array([[3, 255, 1]], np.uint8) > 127, (1, 3)).tolist() == [0, 1, 0]


@pytest.mark.parametrize("mode", ["center", "squash"])
def test_a_mask_keeps_its_values(mode):
    """Enlarged and made smaller: no value between those that there are, each where it was."""
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 20:30], mask[:, 30:40] = 1, 255
    for size in ((16, 24), (32, 48), (128, 192)):
        placed = PixelTransform(size, 1.0, mode, "bicubic", MEAN, STD).mask(mask)
        assert placed.shape == size
        assert set(np.unique(placed)) == {0, 1, 255}
        at = ((np.arange(size[1]) + 0.5) * 60 / size[1]).astype(int)
        assert np.array_equal(placed, np.tile(mask[0][at], (size[0], 1)))


def test_ignored_pixels_stay_ignored_where_the_object_is_cropped(space):
    """Of 0, 1 and 255 only 0 and 255 are left in the middle: 255 does not become the object."""
    mask = np.zeros((32, 96), np.uint8)
    mask[:, :8], mask[:, 32:64] = 1, 255
    transform = PixelTransform((32, 32), 1.0, "center", "bicubic", MEAN, STD)
    assert set(np.unique(transform.mask(mask))) == {255}
    found = Preparer([(noise(32, 96), 0, mask)], transform, (4, 4), 7)(0)
    assert found.mask.tolist() == [-1] * 16
    mask[:, 32:48] = 0
    assert Preparer([(noise(32, 96), 0, mask)], transform, (1, 2), 7)(0).mask.tolist() == [0, -1]


def test_imagenet_s_without_the_labels_own_category(tmp_path):
    """Pixels to leave out do not become the object where there is none."""
    (tmp_path / "ImageNetS_categories_im2.txt").write_text("n00000001\nn00000002\n")
    for part in ("validation", "validation-segmentation"):
        (tmp_path / part / "n00000001").mkdir(parents=True)
    noise(8, 8).save(tmp_path / "validation" / "n00000001" / "1.JPEG")
    drawn = np.zeros((8, 8, 3), np.uint8)
    drawn[:4, :, 0], drawn[:4, :, 1] = 1000 % 256, 1000 // 256
    Image.fromarray(drawn).save(tmp_path / "validation-segmentation" / "n00000001" / "1.png")
    assert imagenet_s(tmp_path)[0][1:] == (0, None)


def test_masks_of_files_are_opened_by_format(tmp_path):
    noise(8, 8).save(tmp_path / "a.png")
    (tmp_path / "mask.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    data = PictureFiles([tmp_path / "a.png"], [0], masks=[tmp_path / "mask.png"])
    with pytest.raises(ValueError, match=r"mask\.png is not an image of a known format"):
        data[0]


@pytest.mark.parametrize("size", [(50, 70), (71, 40), (32, 48), (300, 299), (20, 200), (40, 51), (51, 40)])
@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("crop", [0.9, 1.0])
@pytest.mark.parametrize("target", [(32, 48), (48, 32), (32, 32)])
def test_preprocessing_of_models_of_every_shape(size, mode, crop, target):
    image = noise(*size)
    ours = PixelTransform(target, crop, mode, "bicubic", MEAN, STD).pixels(image)
    theirs = create_transform((3, *target), interpolation="bicubic", mean=MEAN, std=STD, crop_pct=crop, crop_mode=mode)
    for step in theirs.transforms:
        if hasattr(step, "interpolation"):  # timm 1.0.24 forgets it where height and width differ
            step.interpolation = InterpolationMode.BICUBIC
    torch.testing.assert_close(ours, theirs(image), atol=1e-6, rtol=1e-5)
    assert ours.shape == (3, *target)


def test_squashed_by_hand():
    """Left half black, upper half red: both survive where height and width are squashed each by its own share."""
    array = np.zeros((40, 80, 3), np.uint8)
    array[:20, :, 0], array[:, 40:, 2] = 255, 255
    pixels = PixelTransform((4, 6), 1.0, "squash", "nearest", (0.0,) * 3, (1.0,) * 3).pixels(Image.fromarray(array))
    assert torch.equal(pixels[0], torch.tensor([[1.0] * 6] * 2 + [[0.0] * 6] * 2))
    assert torch.equal(pixels[2], torch.tensor([[0.0] * 3 + [1.0] * 3] * 4))


def unit(seed=0):
    return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_preprocessed_tensors_that_were_not_normalised_warn_once(space):
    items = [(unit(i), i % 7) for i in range(12)]
    for ask in (
        lambda: run_study(space, items, "accuracy", execution=Execution(batch_size=4), progress=False),
        lambda: run_study(space, items, "accuracy", execution=Execution(workers=0), progress=False),
        lambda: fit_probes(space, items, progress=False),
    ):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("default")
            ask()
        assert ["lie in 0..1 as in a picture that is not" in str(one.message) for one in said] == [True]


def test_ready_tensors_and_pictures_that_are_fine_are_not_warned_about(space):
    """Warnings are errors here."""
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (space.preprocessing.mean, space.preprocessing.std))
    bright = Image.new("RGB", (32, 32), (250, 250, 250))
    bright.putpixel((0, 0), (200, 200, 200))
    items = [((unit() - mean) / std, 0), (bright, 1)]
    run_study(space, items, "accuracy", progress=False)
    run_study(space, [(bright, 1)], "accuracy", progress=False)


def test_the_remedy_for_uint8_tensors_works(space):
    tensor = torch.from_numpy(np.array(noise(48, 64))).permute(2, 0, 1)
    with pytest.raises(DatasetError, match=r"floats of shape .*such as tensor.permute\(1, 2, 0\).numpy\(\) of uint8"):
        Preparer([(tensor, 0)], PixelTransform.of(space.preprocessing), (4, 4), 7)(0)
    prepare = Preparer([(tensor.permute(1, 2, 0).numpy(), 0)], PixelTransform.of(space.preprocessing), (4, 4), 7)
    torch.testing.assert_close(prepare(0).pixels, space.preprocess(tensor)[0][0], atol=1e-5, rtol=1e-5)


def test_tensors_with_nan_are_skipped_and_listed(space):
    good, bad = torch.randn(3, 32, 32), torch.full((3, 32, 32), torch.nan)
    result = run_study(space, [(good, 0), (bad, 1)], "accuracy", progress=False)
    assert result.skipped == ((1, "ValueError: its pixels contain NaN or infinite values"),)


def test_an_unreadable_picture_is_skipped_with_the_reason(space):
    items = [(array, 0) for array in (np.full((4, 4), np.nan), np.zeros((3, 8, 8)), b"", np.zeros((4, 4), np.int64))]
    prepare = Preparer(items, PixelTransform.of(space.preprocessing), (4, 4), 7)
    reasons = [prepare(i) for i in range(4)]
    assert all(isinstance(reason, Unreadable) for reason in reasons)
    words = ("NaN", r"transpose(1, 2, 0)", "not an image", "int64")
    assert [word in reason.reason for word, reason in zip(words, reasons, strict=True)] == [True] * 4


def test_token_masks_with_a_trace(space):
    from classspace_widgets.studies import Identifiability

    trace, labels = space.trace(torch.randn(2, 3, 32, 32)), torch.tensor([0, 1])
    numbers = torch.zeros(2, 16, dtype=torch.int64)
    numbers[:, :3] = 7
    with pytest.raises(ValueError, match=r"1 \(object\), 0 \(context\) and -1 \(neither\), got \[0, 7\]"):
        Identifiability().update(trace, labels, numbers)
    for masks in ((numbers == 7).int(), numbers == 7, torch.where(numbers == 7, -1, 1)):
        Identifiability().update(trace, labels, masks)


def test_pictures_for_display_are_made_only_on_demand(monkeypatch):
    """Nor are a study's own passes warned about: a bright picture is no tensor that was not normalised."""
    space = ClassSpace(tiny_vit().model, mean=0.5, std=0.5)

    def looked(*_):
        raise AssertionError("a picture was made that nobody looks at")

    monkeypatch.setattr(type(space.preprocessing), "pictures", looked)
    bright = Image.new("RGB", (32, 32), (250, 250, 250))
    bright.putpixel((0, 0), (200, 200, 200))
    explained = ExplanationStudy(methods=["gradient", "rollout"], steps=2)
    run_study(space, [(bright, 0), (bright, 1)], [*all_studies(), explained], progress=False)
    space.stream_readings(bright, 0)
    run_with(space, bright, KnockOutAttention("self_only"))
    sweep_heads(space, bright, 0, blocks=[1], progress=False)
    perturbation(space, bright, [0], torch.zeros(1, 16), kept=[4])
    with pytest.raises(AssertionError, match="nobody looks at"):
        space.trace(bright)


def test_labels_are_checked_once_a_batch(space, monkeypatch):
    """Picture by picture as they are prepared; again only where somebody else brings them."""
    from classspace_widgets.studies import Identifiability, readings

    checked = []
    monkeypatch.setattr(readings, "check_labels", lambda labels, n: checked.append(labels.tolist()))
    run_study(space, [(torch.randn(3, 32, 32), i) for i in range(3)], progress=False)
    assert checked == []
    Identifiability().update(space.trace(torch.randn(2, 3, 32, 32)), torch.tensor([0, 1]))
    assert checked == [[0, 1]]
