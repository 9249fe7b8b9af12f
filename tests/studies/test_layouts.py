"""Folders as people have them: masks found beside pictures by their names, and the layouts of Pascal VOC and COCO."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from classspace_widgets.data import DatasetError, box_folder, coco, image_folder, voc
from classspace_widgets.data.coco import inside
from classspace_widgets.data.sets import as_dataset


def picture(path, size=(24, 16), colour=(200, 30, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def mask(path, size=(24, 16), box=(2, 3, 10, 12), value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = Image.new("L", size)
    ImageDraw.Draw(drawn).rectangle(box, fill=value)
    drawn.save(path)
    return path


LAYOUTS = {
    "beside": ("data/cat/1.jpg", "data/cat/1_mask.png", "data"),
    "in the class": ("data/cat/1.jpg", "data/cat/masks/1.png", "data"),
    "in the class, marked": ("data/cat/1.jpg", "data/cat/masks/1_mask.png", "data"),
    "in the root": ("data/cat/1.jpg", "data/masks/cat/1.png", "data"),
    "beside the root": ("data/cat/1.jpg", "data_masks/cat/1.png", "data"),
    "masks and splits": ("all/val/cat/1.jpg", "all/masks/val/cat/1.png", "all/val"),
    "images and masks": ("data/images/cat/1.jpg", "data/masks/cat/1.png", "data"),
    "images and masks, from the images": ("data/images/cat/1.jpg", "data/masks/cat/1.png", "data/images"),
    "deeper": ("data/cat/zoo/1.jpg", "data/masks/cat/zoo/1.png", "data"),
    "a name with brackets": ("data/cat/1 [a].jpg", "data/cat/1 [a]_mask.png", "data"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_are_found_by_their_names(layout, tmp_path):
    photo, masked, root = LAYOUTS[layout]
    picture(tmp_path / photo)
    other = picture(tmp_path / photo.replace("cat/", "dog/").replace("1", "2"))
    mask(tmp_path / masked)
    data = as_dataset(str(tmp_path / root))
    assert data.class_names == ("cat", "dog")
    assert list(data.paths) == [tmp_path / photo, other]
    found = data[0][2]
    assert found.shape == (16, 24)
    assert found[5, 5] == 255
    assert found[0, 0] == 0
    assert data[1][2] is None
    assert "with masks" in repr(data)


def test_what_only_looks_like_a_mask_is_a_picture(tmp_path):
    names = ["gas_mask/1.jpg", "masks/carnival/1.jpg", "masks/2.jpg", "cat/halloween_mask.jpg", "cat/1.jpg"]
    for name in names:
        picture(tmp_path / name)
    data = image_folder(tmp_path)
    # A class that is called masks stays one, where its folders are not those of the classes.
    assert data.class_names == ("cat", "gas_mask", "masks")
    assert {path.relative_to(tmp_path).as_posix() for path in data.paths} >= {
        "cat/halloween_mask.jpg",
        "gas_mask/1.jpg",
    }
    assert data.masks is None


def test_a_mask_saved_as_colours_and_a_palette(tmp_path):
    picture(tmp_path / "cat/1.jpg")
    Image.open(mask(tmp_path / "cat/1_mask.png")).convert("RGB").save(tmp_path / "cat/1_mask.png")
    assert image_folder(tmp_path)[0][2].shape == (16, 24)
    indexed = Image.new("P", (24, 16))
    indexed.putpalette([0, 0, 0, 128, 0, 0])
    indexed.putpixel((3, 2), 1)
    indexed.save(tmp_path / "cat/1_mask.png")
    assert np.argwhere(image_folder(tmp_path)[0][2] == 1).tolist() == [[2, 3]]


# -- Pascal VOC --------------------------------------------------------------------------------------------------------


@pytest.fixture
def devkit(tmp_path):
    """Two pictures of several categories, one without an object, and a list."""
    for name, boxes in {"a": {8: (0, 0, 11, 7), 15: (12, 0, 23, 15)}, "b": {8: (0, 0, 20, 12)}, "c": {}}.items():
        picture(tmp_path / f"JPEGImages/{name}.jpg")
        values = np.zeros((16, 24), np.uint8)
        for number, (left, top, right, bottom) in boxes.items():
            values[top : bottom + 1, left : right + 1] = number
        values[:, 0] = 255
        stored = Image.fromarray(values, "L").convert("P")
        stored.putdata(values.ravel().tolist())
        (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
        stored.save(tmp_path / f"SegmentationClass/{name}.png")
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("b\nc\n", encoding="utf-8")
    return tmp_path


def test_voc_takes_the_largest_category_of_each_picture(devkit):
    data = as_dataset(devkit)
    assert data.class_names == ("cat", "person")
    assert [data[i][1] for i in range(len(data))] == [1, 0]
    found = data[0][2]
    assert (found == 1).sum() == 12 * 16
    assert (found[:, 0] == 255).all()
    assert set(np.unique(found)) == {0, 1, 255}
    assert len(voc(devkit, split="val")) == 1


def test_voc_says_what_is_missing(devkit):
    with pytest.raises(DatasetError, match=r"there is no list .*train\.txt; there are: val"):
        voc(devkit, split="train")
    with pytest.raises(DatasetError, match="contains category 15, but there are 3 names"):
        voc(devkit, categories=("a", "b", "c") + ("d",) * 0)


# -- COCO --------------------------------------------------------------------------------------------------------------


def annotations(**changes):
    found = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}, {"id": 11, "file_name": "c.jpg"}],
        "categories": [{"id": 3, "name": "car"}, {"id": 18, "name": "dog"}, {"id": 90, "name": "brush"}],
        "annotations": [
            {"image_id": 7, "category_id": 18, "area": 80, "segmentation": [[2, 2, 9, 2, 9, 11, 2, 11]], "iscrowd": 0},
            {"image_id": 7, "category_id": 3, "area": 40, "segmentation": [[12, 2, 20, 2, 20, 6]], "iscrowd": 0},
            {"image_id": 7, "category_id": 3, "area": 50, "segmentation": [[12, 8, 20, 8, 20, 14]], "iscrowd": 0},
            {"image_id": 9, "category_id": 18, "area": 20, "segmentation": [[1, 1, 5, 1, 5, 5]], "iscrowd": 0},
            {
                "image_id": 9,
                "category_id": 18,
                "area": 300,
                "segmentation": {"counts": [160, 32, 192], "size": [16, 24]},
                "iscrowd": 1,
            },
        ],
    }
    return found | changes


@pytest.fixture
def coco_root(tmp_path):
    for name in "abc":
        picture(tmp_path / f"val2017/{name}.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(annotations()), encoding="utf-8")
    return tmp_path


def test_coco_takes_the_category_with_most_area(coco_root):
    data = as_dataset(coco_root)
    assert data.class_names == ("car", "dog")
    assert [data[i][1] for i in range(2)] == [0, 1]
    assert len(data) == 2
    car = data[0][2]
    assert car[4, 19] == car[10, 19] == 1
    assert car[5, 5] == 0
    dog = data[1][2]
    assert dog[2, 3] == 1
    # 160 pixels of 16 rows: the crowd is the eleventh and twelfth column.
    assert np.argwhere(dog == 255)[:, 1].tolist() == [10, 11] * 16


def test_a_polygon_covers_the_pixels_inside():
    found = inside([[2, 2, 9, 2, 9, 11, 2, 11]], 16, 24)
    assert found[3:11, 3:9].all()
    assert not found[12:].any()
    assert not found[:, 11:].any()


def packed(runs):
    """Run lengths as text, the other way round, by the description of the format."""
    out = ""
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            out += chr(48 + bits + (32 if more else 0))
            if not more:
                break
    return out


@pytest.mark.parametrize("seed", range(5))
def test_packed_run_lengths_are_the_plain_ones(seed):
    rng = np.random.default_rng(seed)
    runs = [int(run) for run in rng.integers(0, [3, 40, 900][seed % 3], 11)]
    runs.append(-sum(runs) % 8 + 8)
    size = [8, sum(runs) // 8]
    text = {"counts": packed(runs), "size": size}
    assert np.array_equal(inside(text, *size), inside({"counts": runs, "size": size}, *size))
    assert inside(text, *size).sum() == sum(runs[1::2])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": [{"id": 7}]}, "does not hold annotations as COCO writes them"),
        ({"annotations": []}, "has no picture with an object"),
        ({"categories": []}, "has no category 3, but annotations of it"),
        ({"images": [{"id": 7, "file_name": "../a.jpg"}]}, "names a picture outside|are in none of"),
        ({"images": [{"id": 7, "file_name": "z.jpg"}]}, r"\(z\.jpg, \.\.\.\) are in none of .*pass pictures="),
    ],
)
def test_annotations_that_are_no_coco(changes, words, coco_root):
    file = coco_root / "annotations/instances_val2017.json"
    file.write_text(json.dumps(annotations(**changes)), encoding="utf-8")
    with pytest.raises(DatasetError, match=words):
        coco(coco_root)


def test_outlines_of_another_size():
    with pytest.raises(DatasetError, match=r"of a picture of \[2, 3\]"):
        inside({"counts": [6], "size": [2, 3]}, 3, 2)
    with pytest.raises(DatasetError, match="run lengths of an outline are of 5 pixels"):
        inside({"counts": [5], "size": [2, 3]}, 2, 3)
    with pytest.raises(DatasetError, match="no annotations of COCO"):
        coco("/tmp", annotations="/no/file.json")


def boxes(root, *rows, header="file,wnid,left,top,right,bottom"):
    (root / "boxes.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def test_boxes_are_masks(tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        picture(tmp_path / name, size=(6, 4))
    boxes(tmp_path, "cat/1.png,n1,1,0,3,2", "dog/1.png,n2,0,0,0,0", "dog/1.png,n2,5,3,5,3")
    data = as_dataset(tmp_path)
    assert data.class_names == ("cat", "dog")
    expected = np.zeros((4, 6), np.uint8)
    expected[0:3, 1:4] = 1
    np.testing.assert_array_equal(data[0][2], expected)
    assert data[1][2] is None, "not in the table"
    assert np.argwhere(data[2][2]).tolist() == [[0, 0], [3, 5]], "two boxes"
    some = box_folder(tmp_path, classes=["dog"])
    assert (len(some), some.class_names, list(some.labels)) == (1, ("dog",), [0])


@pytest.mark.parametrize(
    ("row", "header", "message"),
    [
        (
            "cat/1.png,3,0,1,2",
            "file,left,top,right,bottom",
            "line 2: a box needs whole numbers.*left=3, top=0, right=1",
        ),
        ("cat/1.png,a,0,1,2", "file,left,top,right,bottom", "left=a"),
        ("cat/1.png,3,0", "file,left,top", "must have the columns file, left, top, right, bottom; got file, left, top"),
    ],
)
def test_tables_that_hold_no_boxes_are_refused(row, header, message, tmp_path):
    picture(tmp_path / "cat/1.png")
    with pytest.raises(DatasetError, match=message):
        as_dataset(boxes(tmp_path, row, header=header))


def test_boxes_of_other_classes_or_files_are_refused(tmp_path):
    picture(tmp_path / "cat/1.png")
    with pytest.raises(DatasetError, match=r"there is no table of boxes .*boxes\.csv; pass boxes="):
        box_folder(tmp_path)
    with pytest.raises(DatasetError, match="no folder with pictures called 'cow'"):
        box_folder(boxes(tmp_path), classes=["cow"])
    with pytest.raises(DatasetError, match="classes is empty"):
        box_folder(tmp_path, classes=())
