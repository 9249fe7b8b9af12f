"""Fitting as a person does it: inputs, interruptions, files, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from PIL import Image
from tiny_models import images_for, tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.fitting import LensSums, fit_lens
from classspace_widgets.lens import FittedLens, LensMismatchError
from classspace_widgets.points import Point
from classspace_widgets.scenes import ScenesDataset


def equal(a: FittedLens, b: FittedLens) -> bool:
    return all(
        torch.allclose(getattr(a, name), getattr(b, name), atol=1e-6, equal_nan=True)
        for name in ("weights", "offsets", "error")
    )


def test_pictures_come_as_lists_data_sets_rows_or_tensors():
    space = tiny_vit()
    data = ScenesDataset(8, seed=3, size=32)
    pictures = [data[i][0] for i in range(8)]
    rows = [{"image": picture, "label": 0} for picture in pictures]
    first = fit_lens(space, "translator", pictures)
    assert equal(first, fit_lens(space, "translator", data))
    assert equal(first, fit_lens(space, "translator", rows))
    assert equal(first, fit_lens(space, "translator", space.pixels(pictures)))


def test_few_pictures_are_warned_about_and_none_are_refused():
    space = tiny_vit()
    images = images_for(space, 3)
    with pytest.warns(UserWarning, match="fitted on 3 pictures.*at least 8"):
        fit_lens(space, "jacobian", images)
    with pytest.raises(ValueError, match="needs pictures to be fitted on, got none"):
        fit_lens(space, "jacobian", images[:0])


def test_what_is_no_sequence_of_pictures_is_refused_with_a_remedy(tmp_path):
    space = tiny_vit()
    for pictures in ("photo.jpg", tmp_path, (image for image in images_for(space, 8))):
        with pytest.raises(TypeError, match=r"must be a sequence of pictures.*image_folder\(path\)"):
            fit_lens(space, "jacobian", pictures)
    with pytest.raises(ValueError, match=r"rows must have a picture in one of the columns .*got \['photo'\]"):
        fit_lens(space, "jacobian", [{"photo": 1}])
    file = tmp_path / "unfinished.safetensors"
    begun = LensSums.start(space, "jacobian")
    begun.update(images_for(space, 5))
    begun.save(file)
    with pytest.raises(ValueError, match="begun with 5 pictures or more, now there are 3"):
        fit_lens(space, "jacobian", images_for(space, 3), unfinished=file)


def test_unknown_kinds_and_classes_are_refused_in_words():
    space = tiny_vit()
    images = images_for(space, 8)
    with pytest.raises(ValueError, match=r"kind must be one of .*'jacobian'.*space\.lens is the logit lens"):
        fit_lens(space, "logit", images)
    with pytest.raises(ValueError, match="class"):
        fit_lens(space, "jacobian", images, classes=[99])
    with pytest.raises(ValueError, match="the same classes are read of all images"):
        fit_lens(space, "jacobian", images, classes=[[0, 1]] * 8)


def test_a_subset_of_classes_is_the_same_as_their_rows():
    space = tiny_vit()
    images = images_for(space, 8)
    whole = fit_lens(space, "jacobian", images)
    some = fit_lens(space, "jacobian", images, classes=[4, 1])
    assert some.classes == (4, 1)
    assert not some.complete
    assert whole.complete
    assert torch.allclose(some.weights, whole.weights[:, :, [4, 1]], atol=1e-6)
    vectors, tokens = torch.randn(2, 17, 24), list(range(17))
    point = Point(1, "mid")
    assert torch.allclose(
        some.logits(vectors, point, tokens, [1]), whole.logits(vectors, point, tokens)[..., [1]], atol=1e-5
    )
    with pytest.raises(ValueError, match=r"fitted for 2 of 7 classes.*fit_lens\('jacobian', pictures\)"):
        some.logits(vectors, point, tokens, [0])


@pytest.mark.parametrize("kind", ["jacobian", "translator"])
def test_an_interrupted_fit_goes_on_where_it_was(tmp_path, monkeypatch, kind):
    space = tiny_vit()
    images = images_for(space, 12)
    file = tmp_path / "unfinished.safetensors"
    begun = LensSums.start(space, kind)
    begun.update(images[:5])
    begun.save(file)
    seen = []
    update = LensSums.update
    monkeypatch.setattr(
        LensSums, "update", lambda self, batch, labels: (seen.append(len(batch)), update(self, batch, labels))[1]
    )
    lens = fit_lens(space, kind, images, batch_size=4, unfinished=file)
    assert sum(seen) == 7
    assert not file.exists()
    assert equal(lens, fit_lens(space, kind, images))


@pytest.mark.parametrize("kind", ["jacobian", "translator"])
def test_unfinished_sums_of_something_else_are_refused(tmp_path, kind):
    space = tiny_vit()
    file = tmp_path / "unfinished.safetensors"
    begun = LensSums.start(space, kind)
    begun.update(images_for(space, 2))
    begun.save(file)
    other = "translator" if kind == "jacobian" else "jacobian"
    with pytest.raises(ValueError, match=r"no unfinished lens|another kind"):
        LensSums.load(file, space, other)
    with pytest.raises(LensMismatchError, match="another classes"):
        LensSums.load(file, space, kind, classes=[0, 1])
    changed = copy.deepcopy(space.model)
    with torch.no_grad():
        changed.head.bias.add_(1)
    with pytest.raises(LensMismatchError, match="another model"):
        LensSums.load(file, ClassSpace(changed, device="cpu"), kind)
    with pytest.raises(LensMismatchError, match="same model"):
        begun.merge(LensSums.start(ClassSpace(changed, device="cpu"), kind))
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match="damaged"):
        LensSums.load(file, space, kind)
    with pytest.raises(FileNotFoundError):
        LensSums.load(tmp_path / "none", space, kind)


def test_files_keep_a_lens(tmp_path):
    space = tiny_vit(reg_tokens=2)
    lens = fit_lens(space, "jacobian", images_for(space, 8), classes=[0, 3])
    lens.save(tmp_path / "lens.safetensors")
    back = FittedLens.load(tmp_path / "lens.safetensors")
    for name in ("kind", "classes", "class_names", "prefix", "layout", "n_pictures", "model_name", "fingerprint"):
        assert getattr(back, name) == getattr(lens, name), name
    for name in ("weights", "offsets", "defined", "classifier", "error"):
        assert torch.equal(getattr(back, name).nan_to_num(), getattr(lens, name).nan_to_num()), name
    vectors = torch.randn(1, 19, 24)
    for point in lens.points:
        read, again = (one.logits(vectors, point, list(range(19))) for one in (lens, back))
        assert torch.equal(read.nan_to_num(), again.nan_to_num())
    with pytest.raises(FileNotFoundError, match="there is no fitted lens at"):
        FittedLens.load(tmp_path / "none.safetensors")
    (tmp_path / "cut").write_bytes((tmp_path / "lens.safetensors").read_bytes()[:-9])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        FittedLens.load(tmp_path / "cut")
    space.trace(Image.new("RGB", (32, 32))).save(tmp_path / "trace.safetensors")
    with pytest.raises(ValueError, match="not a fitted lens"):
        FittedLens.load(tmp_path / "trace.safetensors")


def test_lenses_of_other_models_are_refused_with_the_difference():
    space = tiny_vit()
    lens = fit_lens(space, "jacobian", images_for(space, 8))
    points, names = lens.points, space.class_names
    lens.check(names, ("[CLS]",), points, lens.fingerprint)
    with pytest.raises(LensMismatchError, match="3 sequential blocks, this model has 4"):
        lens.check(names, ("[CLS]",), type(points)(4), "")
    with pytest.raises(LensMismatchError, match="prefix tokens"):
        lens.check(names, (), points, "")
    with pytest.raises(LensMismatchError, match="7 classes"):
        lens.check(names[:-1], ("[CLS]",), points, "")
    with pytest.raises(LensMismatchError, match="other weights"):
        lens.check(names, ("[CLS]",), points, "0" * 16)
