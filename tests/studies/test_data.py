"""Data layouts, preprocessing, masks and class names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from study_helpers import slow_token_mask
from tiny_models import tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.data import ArrayDataset, DatasetError, RowDataset, image_folder, imagenet_s, token_mask
from classspace_widgets.data.classes import ClassMismatchError, match_classes
from classspace_widgets.data.prepare import Preparer
from classspace_widgets.data.sets import PictureFiles, as_dataset
from classspace_widgets.images import read_picture
from classspace_widgets.images.placing import PixelTransform
from classspace_widgets.studies import run_study


def noise(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(50, 70), (71, 40), (32, 32), (300, 299)])
@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_preprocessing_equals_timms(size, mode, interpolation):
    from timm.data import create_transform

    image = noise(*size)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    ours = PixelTransform((32, 32), 0.9, mode, interpolation, mean, std).pixels(image)
    theirs = create_transform(
        (3, 32, 32), interpolation=interpolation, mean=mean, std=std, crop_pct=0.9, crop_mode=mode
    )(image)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_masks_go_where_the_picture_goes():
    array = np.zeros((60, 80, 3), np.uint8)
    array[10:40, 30:70] = 255
    mask = array[..., 0] == 255
    transform = PixelTransform((32, 32), 0.9, "center", "nearest", (0.0,) * 3, (1.0,) * 3)
    placed = transform.pixels(Image.fromarray(array))[0].numpy() == 1
    assert np.array_equal(transform.mask(mask.astype(np.uint8)) == 1, placed)


def test_token_masks():
    generator = np.random.default_rng(0)
    mask = generator.integers(0, 2, (32, 24))
    assert np.array_equal(token_mask(mask, (4, 4)), slow_token_mask(mask, (4, 4)))
    by_hand = np.array([[1, 1, 0, 255], [0, 1, 0, 255], [255, 0, 1, 0], [0, 0, 0, 255]])
    assert token_mask(by_hand, (2, 2)).tolist() == [1, 0, 0, 0]
    assert token_mask(by_hand, (2, 2), coverage=0.8).tolist() == [0, 0, 0, 0]
    ignored = np.array([[255, 255, 0, 1], [255, 0, 1, 1]])
    assert token_mask(ignored, (1, 2)).tolist() == [-1, 1]
    assert token_mask(np.array([[0, 255]]), (1, 2)).tolist() == [0, 1], "0 and 255 alone: an editor's mask"
    assert token_mask(np.array([[0, 2], [1, 3]]), (2, 2)).tolist() == [0, 0, 1, 0], "other objects are context"
    assert token_mask(np.array([[False, True]]), (1, 2)).tolist() == [0, 1]
    assert token_mask(np.ones((7, 5), bool), (3, 2)).tolist() == [1] * 6
    with pytest.raises(DatasetError, match="at least as fine"):
        token_mask(np.zeros((3, 3)), (4, 4))
    with pytest.raises(DatasetError, match=r"\[height, width\]"):
        token_mask(np.zeros((3, 3, 3)), (1, 1))


def test_image_folder(tmp_path):
    for name, count in (("b cat", 2), ("a dog", 1)):
        (tmp_path / name).mkdir()
        for i in range(count):
            noise(40, 50, i).save(tmp_path / name / f"{i}.png")
    (tmp_path / "b cat" / "notes.txt").write_text("not a picture")
    data = image_folder(tmp_path)
    assert data.class_names == ("a dog", "b cat")
    assert [data[i][1] for i in range(len(data))] == [0, 1, 1]
    assert data[0][2] is None
    (tmp_path / "b cat" / "1.png").write_bytes(b"broken")
    space = tiny_vit(num_classes=2)
    space.class_names = ("B_Cat", "A-Dog")
    results = run_study(space, tmp_path, "accuracy", progress=False)
    assert [i for i, _ in results.skipped] == [2]
    assert results["accuracy"].tables["by_class"]["class_name"].tolist().count("A-Dog") == 2
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="no subfolders"):
        image_folder(empty)
    (empty / "x").mkdir()
    with pytest.raises(ValueError, match="no picture"):
        image_folder(empty)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        as_dataset(tmp_path / "none")


def test_imagenet_s(tmp_path):
    wnids = [f"n{i:08d}" for i in range(300)]
    (tmp_path / "ImageNetS_categories_im300.txt").write_text("\n".join(wnids))
    for wnid in (wnids[2], wnids[299]):
        for part in ("validation", "validation-segmentation"):
            (tmp_path / part / wnid).mkdir(parents=True)
        noise(20, 30).save(tmp_path / "validation" / wnid / "ILSVRC2012_val_1.JPEG")
    ids = np.zeros((20, 30), np.int64)
    ids[:10], ids[10:15, :10], ids[19] = 300, 3, 1000
    drawn = np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=-1).astype(np.uint8)
    Image.fromarray(drawn).save(tmp_path / "validation-segmentation" / wnids[299] / "ILSVRC2012_val_1.png")
    data = as_dataset(tmp_path)
    assert data.class_names == tuple(wnids)
    assert len(data) == 2
    assert data[0][1:] == (2, None)
    _, label, mask = data[1]
    assert label == 299
    assert (mask[:10] == 1).all()
    assert (mask[10:19] == 0).all()
    assert (mask[19] == 255).all()
    (tmp_path / "validation" / "n99999999").mkdir()
    with pytest.raises(ValueError, match="not in the category list"):
        imagenet_s(tmp_path)


def test_arrays_and_rows():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(5)
    data = ArrayDataset(images, labels, masks=np.zeros((5, 32, 32), np.uint8))
    assert np.array_equal(np.asarray(data[2][0]), images[2].transpose(1, 2, 0))
    assert data[2][1] == 2
    assert data[2][2].shape == (32, 32)
    for wrong, message in [
        ((images[0], labels), "3072"),
        ((images / 2, labels), "uint8"),
        ((images, labels[1:]), "as many"),
    ]:
        with pytest.raises(ValueError, match=message):
            ArrayDataset(*wrong)
    rows = [{"img": noise(32, 32), "fine_label": i % 3} for i in range(4)]
    found = as_dataset(rows)
    assert isinstance(found, RowDataset)
    assert found[1][1] == 1
    with pytest.raises(ValueError, match="no column for the label"):
        RowDataset([{"image": 1, "text": 2}])
    with pytest.raises(ValueError, match="for the mask"):
        RowDataset(rows, mask="segmentation")
    space = tiny_vit()
    for source in (data, rows):
        assert run_study(space, source, "accuracy", progress=False).provenance["pictures"] == len(source)


class Features(dict):
    names = ("x", "y")


def test_hugging_face_class_names():
    class Rows(list):
        column_names = ("image", "label")
        features = {"image": None, "label": Features()}  # noqa: RUF012

    assert as_dataset(Rows([{"image": noise(8, 8), "label": 0}])).class_names == ("x", "y")


def test_class_names_are_matched():
    model = ["tench, Tinca tinca", "goldfish, Carassius auratus", "great_white shark", "hen"]
    assert match_classes(["Hen", "great white shark", "goldfish"], model).tolist() == [3, 2, 1]
    assert match_classes(["carassius auratus"], model).tolist() == [1]
    assert match_classes(["cock", "hen"], model, class_map={"cock": "tench"}).tolist() == [0, 3]
    assert match_classes(["cock", "hen"], model, class_map={0: 2}).tolist() == [2, 3]
    with pytest.raises(ClassMismatchError, match=r"1 of the data set's 2 .*'gold fish' \(close: 'goldfish"):
        match_classes(["gold fish", "hen"], model)
    with pytest.raises(ClassMismatchError, match="not a class of the model"):
        match_classes(["cock"], model, class_map={"cock": "rooster"})
    with pytest.raises(ClassMismatchError, match=r"0\.\.3"):
        match_classes(["cock"], model, class_map={"cock": 4})


def test_classes_that_share_a_name_are_not_mixed_up():
    model = ["crane", "hen", "crane (2)", "maillot", "maillot (2)"]
    both = ["crane", "hen", "crane", "maillot", "maillot, tank suit"]
    assert match_classes(both, model).tolist() == [0, 1, 2, 3, 4]
    assert match_classes(model, model).tolist() == [0, 1, 2, 3, 4]
    assert match_classes(["crane (2)", "hen"], model).tolist() == [2, 1]
    with pytest.raises(ClassMismatchError, match=r"2 classes called 'crane'.*class_map=\{'crane': 0 or 2\}"):
        match_classes(["hen", "crane"], model)
    assert match_classes(["hen", "crane"], model, class_map={"crane": 2}).tolist() == [1, 2]


def test_imagenet_folders_are_called_by_wordnet_ids(tmp_path):
    space = ClassSpace.from_timm("test_vit", pretrained=False)
    assert space.wordnet_ids[1] == "n01443537"
    assert match_classes(space.wordnet_ids, space.class_names, model_ids=space.wordnet_ids).tolist() == [*range(1000)]
    for wordnet in ("n03126707", "n01443537"):  # the machine called crane, and the goldfish
        (tmp_path / wordnet).mkdir()
        noise(40, 50).save(tmp_path / wordnet / "1.png")
    result = run_study(space, tmp_path, "accuracy", progress=False)
    assert sorted(result["accuracy"].tables["by_class"]["class"].unique()) == [1, 517]
    assert tiny_vit().wordnet_ids == ()
    own = ClassSpace(space.model, class_names=[f"kind {i}" for i in range(1000)])
    assert own.wordnet_ids == ()


def test_torchvision_gives_classes_as_tuples_of_names():
    space = tiny_vit(num_classes=2)
    space.class_names = ("goldfish", "tench")
    data = ArrayDataset(np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 1]))
    object.__setattr__(data, "class_names", (("tench", "Tinca tinca"), ("goldfish", "Carassius auratus")))
    result = run_study(space, data, "accuracy", progress=False)
    assert result["accuracy"].tables["by_class"]["class"].unique().tolist() == [0, 1]


def test_a_study_reads_pictures_as_a_trace_does(tmp_path):
    upright = noise(48, 64)
    exif = upright.getexif()
    exif[274] = 6  # to be turned by 90 degrees before it is shown
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    deep = Image.fromarray(np.asarray(upright.convert("L")).astype(np.uint16) * 257)
    deep.save(tmp_path / "deep.png")
    clear = upright.convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    space = tiny_vit(num_classes=2)
    for name in ("turned.png", "deep.png", "clear.png"):
        shown, _ = read_picture(tmp_path / name)
        prepared = Preparer(
            [(tmp_path / name, 0), (Image.open(tmp_path / name), 1)], PixelTransform.of(space.preprocessing), (4, 4), 2
        )
        expected = PixelTransform.of(space.preprocessing).pixels(shown)
        for i in range(2):
            assert torch.equal(prepared(i).pixels, expected), name
    stored = Preparer(
        [(tmp_path / "turned.png", 0, np.ones((64, 48)))], PixelTransform.of(space.preprocessing), (4, 4), 2
    )(0)
    assert stored.mask.all(), "a mask belongs to the picture as it is stored"


def test_mask_files_are_read_as_they_are_by_default(tmp_path):
    noise(8, 6).save(tmp_path / "a.png")
    mask = np.tri(8, 6, dtype=np.uint8)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    where = {"paths": [tmp_path / "a.png"] * 2, "labels": [0, 1], "masks": [tmp_path / "mask.png", None]}
    files = PictureFiles(**where)
    np.testing.assert_array_equal(files[0][2], mask)
    assert files[1][2] is None
    inverted = PictureFiles(**where, read_mask=lambda path, label: 1 - np.asarray(Image.open(path)))
    np.testing.assert_array_equal(inverted[0][2], 1 - mask)


def test_the_repr_of_data_sets_has_their_sizes(tmp_path):
    (tmp_path / "hen").mkdir()
    noise(40, 50).save(tmp_path / "hen" / "1.png")
    assert repr(image_folder(tmp_path)) == f"PictureFiles({tmp_path.name}: 1 picture, 1 class)"
    arrays = ArrayDataset(torch.zeros(3, 8, 8, 3, dtype=torch.uint8), [0, 1, 0], masks=np.ones((3, 8, 8)))
    assert repr(arrays) == "ArrayDataset(arrays: 3 pictures, with masks)"
    with pytest.raises(ValueError, match="labels must be integers"):
        ArrayDataset(np.zeros((2, 8, 8, 3), np.uint8), np.array([0.5, 1.0]))


def test_names_of_data_set_and_model_meet_in_a_run():
    images = np.zeros((4, 32, 32, 3), np.uint8)
    space = tiny_vit(num_classes=3)
    named = ArrayDataset(images, np.array([0, 1, 1, 0]), ("hen", "cock"))
    with pytest.raises(ClassMismatchError, match="without names"):
        run_study(space, named, "accuracy", progress=False)
    result = run_study(space, named, "accuracy", class_map={"hen": 2, "cock": 0}, progress=False)
    assert result["accuracy"].tables["by_class"]["class"].unique().tolist() == [0, 2]
    space.class_names = ("cock", "duck", "hen")
    again = run_study(space, named, "accuracy", progress=False)
    assert again["accuracy"].tables["by_class"]["class"].unique().tolist() == [0, 2]
    bare = ArrayDataset(images, np.array([5, 6, 6, 5]))
    mapped = run_study(space, bare, "accuracy", class_map={5: 1, 6: 2}, progress=False)
    assert mapped["accuracy"].tables["by_class"]["class"].unique().tolist() == [1, 2]
    with pytest.raises(DatasetError, match="label 5 is not among"):
        run_study(space, bare, "accuracy", class_map={6: 2}, progress=False)
