"""Names and numbers of classes: found wherever data sets keep them, never taken for others."""

from __future__ import annotations

import os
import sys
import unicodedata

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_models import tiny_vit
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset, random_split

from classspace_widgets.data import ArrayDataset, DatasetError, RowDataset, image_folder, imagenet_s
from classspace_widgets.data.classes import ClassMismatchError, class_table, label_names, match_classes
from classspace_widgets.data.named import named_dataset
from classspace_widgets.data.prepare import Preparer
from classspace_widgets.data.sets import PictureFiles, as_dataset
from classspace_widgets.images.placing import PixelTransform
from classspace_widgets.lookup import class_index, close_matches
from classspace_widgets.memories import memory_atlas
from classspace_widgets.studies import run_study
from classspace_widgets.studies.checkpoint import CheckpointError, dataset_fingerprint

MODEL = ("bear", "cat", "dog", "owl")
NAMES = ("dog", "cat")
"""The data set's: its class 0 is the model's 2, its class 1 the model's 1."""


@pytest.fixture(scope="module")
def space():
    space = tiny_vit(num_classes=4)
    space.class_names = MODEL
    return space


class Named(Dataset):
    """Six pictures of two classes, that are called as a data set likes."""

    def __init__(self, attribute="classes", names=NAMES):
        if attribute:
            setattr(self, attribute, names)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return Image.new("RGB", (8, 8), (40 * index, 0, 0)), index % 2


class Wrapped(Dataset):
    """A data set around another, as people write them."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return self.dataset[index]


class Features(dict):
    names = NAMES


class HuggingFace(list):
    """The parts of a Hugging Face data set that are looked at."""

    column_names = ("img", "fine_label")
    features = {"img": None, "fine_label": Features()}  # noqa: RUF012


def halves(data):
    return random_split(data, [3, 3], torch.Generator().manual_seed(0))


NESTS = {
    "as it is": lambda data: data,
    "Subset": lambda data: Subset(data, [5, 0, 3]),
    "random_split": lambda data: halves(data)[1],
    "ConcatDataset": lambda data: ConcatDataset([data, data]),
    "Subset of a Subset": lambda data: Subset(Subset(data, [0, 1, 2, 3]), [3, 1]),
    "ConcatDataset of Subsets": lambda data: ConcatDataset(halves(data)),
    "Subset of a ConcatDataset": lambda data: Subset(ConcatDataset([data, data]), [11, 2]),
    "split of a nest": lambda data: halves(Subset(ConcatDataset([data, *halves(data)]), range(6)))[0],
    "one's own wrapper": lambda data: Wrapped(Subset(data, [4, 1])),
}


@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize("kind", ["classes", "class_names", "class_to_idx"])
def test_names_are_found_in_nests(space, nest, kind):
    names = {name: i for i, name in enumerate(NAMES)} if kind == "class_to_idx" else list(NAMES)
    data = NESTS[nest](Named(kind, names))
    assert label_names(data) == {0: "dog", 1: "cat"}
    table = class_table(as_dataset(data), MODEL, None)
    prepare = Preparer(as_dataset(data), PixelTransform.of(space.preprocessing), (4, 4), 4, table)
    for i in range(len(data)):
        assert prepare(i).label == {0: 2, 1: 1}[data[i][1]]


def test_a_part_of_a_folder_is_measured_as_the_whole(space, tmp_path):
    for name in NAMES:
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (32, 32), (80 * i, 9, 200)).save(tmp_path / name / f"{i}.png")
    whole = image_folder(tmp_path)

    def counted(data):
        table = run_study(space, data, "accuracy", progress=False)["accuracy"].tables["by_class"]
        return table[["class", "value", "count"]].to_numpy().tolist()

    assert counted(Subset(whole, range(6))) == counted(ConcatDataset(halves(whole))) == counted(whole)


def test_rows_of_a_subset_keep_their_names_and_columns(space):
    rows = HuggingFace({"img": Image.new("RGB", (8, 8)), "fine_label": i % 2} for i in range(4))
    data = Subset(rows, [1, 0])
    assert label_names(data) == label_names(as_dataset(rows)) == {0: "dog", 1: "cat"}
    prepare = Preparer(data, PixelTransform.of(space.preprocessing), (4, 4), 4, class_table(data, MODEL, None))
    assert [prepare(i).label for i in range(2)] == [1, 2]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_timms_own_data_sets_know_their_names(space, tmp_path):
    from timm.data import ImageDataset  # which leaves its files open

    for name in NAMES:
        (tmp_path / name).mkdir()
        Image.new("RGB", (32, 32), (9, 9, 200)).save(tmp_path / name / "1.png")
    data = ImageDataset(str(tmp_path))
    assert label_names(data) == label_names(Subset(data, [1])) == {0: "cat", 1: "dog"}
    result = run_study(space, data, "accuracy", progress=False)
    assert sorted(result["accuracy"].tables["by_class"]["class"].unique()) == [1, 2]


def test_joined_data_sets_must_agree():
    one, other, unnamed = Named(), Named("classes", ("cat", "dog")), Named("")
    assert label_names(ConcatDataset([unnamed, unnamed])) == {}
    for parts in ([one, other], [one, unnamed], [unnamed, one], [one, Subset(other, [0])]):
        with pytest.raises(DatasetError, match=r"not call their labels by the same names: .*measure them one by one"):
            label_names(ConcatDataset(parts))
    assert label_names(TensorDataset(torch.zeros(2))) == {}
    joined = ConcatDataset([one, other])
    joined.classes = NAMES  # which says what its labels mean
    assert label_names(joined) == {0: "dog", 1: "cat"}


@pytest.mark.parametrize(
    "names",
    [
        list(NAMES),
        np.array(NAMES),
        np.array(NAMES, dtype=object),
        pd.Index(NAMES),
        pd.Series(NAMES),
        dict(enumerate(NAMES)),
        {"1": "cat", "0": "dog"},
        {np.int64(1): "cat", np.int64(0): "dog"},
        {"dog": 0, "cat": 1},
        dict(enumerate(NAMES)).values(),
        [["dog", "Canis lupus"], ("cat", "Felis catus")],
    ],
    ids=lambda names: type(names).__name__,
)
def test_names_in_any_form(names):
    data = Named("classes", names)
    assert class_table(data, MODEL, None).tolist() == [2, 1]
    as_array = ArrayDataset(np.zeros((2, 8, 8, 3), np.uint8), [0, 1], names)
    assert class_table(as_array, MODEL, None).tolist() == [2, 1]
    assert "2 classes" in repr(as_array)


@pytest.mark.parametrize("nothing", [None, (), [], np.array([]), {}, 2, lambda: NAMES])
def test_no_names(nothing):
    assert class_table(Named("classes", nothing), MODEL, None) is None


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("dog cat", "got str"),
        ({"dog", "cat"}, "got set, which has no order"),
        (0.5, "got float"),
        ({"dog": "hund"}, "one number and one name"),
        ({"dog": 0, "cat": 0}, "one number and one name"),
    ],
)
def test_names_without_meaning(names, words):
    with pytest.raises(DatasetError, match=words):
        class_table(Named("classes", names), MODEL, None)


def test_labels_that_are_not_numbered_from_0():
    data = Named("classes", {7: "cat", 3: "dog"})
    assert class_table(data, MODEL, None) == {3: 2, 7: 1}
    assert class_table(data, MODEL, {7: "owl", "dog": 0}) == {3: 0, 7: 3}
    unnamed = [f"class {i}" for i in range(2)]
    with pytest.raises(ClassMismatchError, match="without names"):
        class_table(data, unnamed, None)  # two classes each, but 3 and 7 are no classes of the model


def test_class_map_without_names():
    bare = Named("")
    assert class_table(bare, MODEL, {5: "owl", "1": 2}) == {5: 3, 1: 2}
    with pytest.raises(ClassMismatchError, match=r"the data set names no classes, .*must be its labels .*got 'hund'"):
        class_table(bare, MODEL, {"hund": "dog"})
    with pytest.raises(ClassMismatchError, match=r"class 9, but the model has classes 0\.\.3"):
        class_table(bare, MODEL, {0: 9})
    with pytest.raises(ClassMismatchError, match="'hund', which is not a class of the model"):
        class_table(bare, MODEL, {0: "hund"})


NFC, NFD = (unicodedata.normalize(form, "Jalapeño café") for form in ("NFC", "NFD"))


def test_accents_are_compared_composed():
    assert NFC != NFD
    for one, other in ((NFC, NFD), (NFD, NFC)):
        assert match_classes([one], ["tea", other]).tolist() == [1]
        assert match_classes([one.upper()], ["tea", f"pepper, {other}"]).tolist() == [1]
        assert match_classes([one], ["tea", "dog"], class_map={other: "tea"}).tolist() == [0]
        assert match_classes(["x"], ["tea", other], class_map={"x": one}).tolist() == [1]
        assert class_index(["tea", other], one) == 1
        assert close_matches(one[:-1], [other]) == f"; close matches: {other}"
    assert class_index([NFD, NFC], NFC) == 1, "an exact name comes first"


def test_names_that_differ_only_by_case():
    model = ["polish", "Polish", "hen"]
    assert match_classes(["Polish", "polish"], model).tolist() == [1, 0]
    assert match_classes(["HEN"], model).tolist() == [2]
    with pytest.raises(ClassMismatchError, match="2 classes called 'POLISH'"):
        match_classes(["POLISH"], model)


ROWS = {
    "items": lambda label: [(Image.new("RGB", (8, 8)), label)],
    "rows": lambda label: as_dataset([{"image": Image.new("RGB", (8, 8)), "label": label}]),
    "files": lambda label: PictureFiles(["a.png"], [label]),
}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize(
    ("label", "words"),
    [
        (np.eye(24)[3], r"one integer.*got float64 of shape \(24,\); for one-hot .*: label.argmax\(\)"),
        (torch.eye(24)[3], r"one integer.*got torch.float32 of shape \(24,\); for one-hot .*: label.argmax\(\)"),
        (np.eye(24, dtype=int)[3], r"got int64 of shape \(24,\)"),
        (np.full(4, 0.25), r"for one-hot or soft labels give the most likely class"),
        (torch.zeros(2, 2), r"got torch.float32 of shape \(2, 2\)$"),
        (True, "got True"),
        (np.bool_(True), r"got np.True_|got True"),
        (torch.tensor(True), r"got tensor\(True\)"),
        (1.0, "got 1.0"),
        (np.float32(1), r"got (np.float32\()?1\.0\)?"),
        (torch.tensor(1.5), r"got tensor\(1.5"),
        ("cat", r"got 'cat'; number the classes, and list their names in that order as the data set's `classes`"),
        (None, "got None"),
        ([0, 0, 1], r"got \[0, 0, 1\]; for one-hot .*: np.array\(label\).argmax\(\)"),
    ],
)
def test_labels_that_are_not_numbers(space, tmp_path, monkeypatch, kind, label, words):
    """Whatever the data set: the run stops at the first, with its number and a remedy."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    prepare = Preparer(ROWS[kind](label), PixelTransform.of(space.preprocessing), (4, 4), 4)
    with pytest.raises(DatasetError, match=rf"picture 0: its label must be {words}|picture 0: .*{words}"):
        prepare(0)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("label", [3, np.int64(3), np.uint8(3), torch.tensor(3), np.array([3]), torch.tensor([3])])
def test_labels_that_are(space, tmp_path, monkeypatch, kind, label):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    assert Preparer(ROWS[kind](label), PixelTransform.of(space.preprocessing), (4, 4), 4)(0).label == 3


@pytest.mark.parametrize("label", [4, -1])
def test_labels_beyond_the_model(space, label):
    with pytest.raises(DatasetError, match=rf"picture 0: its label must be in 0\.\.3 .*got {label}; .*class_map="):
        Preparer(ROWS["items"](label), PixelTransform.of(space.preprocessing), (4, 4), 4)(0)
    named = Preparer(ROWS["items"](label), PixelTransform.of(space.preprocessing), (4, 4), 4, np.array([2, 1]))
    with pytest.raises(DatasetError, match=f"label {label} is not among the data set's 2 classes"):
        named(0)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.eye(3), r"\[N\]=\(3,\), got \(3, 3\); for one-hot .*: labels.argmax\(axis=1\)"),
        (np.eye(3, dtype=int), r"labels.argmax\(axis=1\)"),
        (np.zeros((3, 1), int), r"got \(3, 1\); try labels.squeeze\(1\)"),
        (np.int64(3), "as many labels as images"),
        (np.array([0.5, 1, 2]), "labels must be integers, got float64"),
        (np.array(["a", "b", "c"]), "labels must be integers"),
    ],
)
def test_labels_of_arrays(labels, words):
    with pytest.raises(DatasetError, match=words):
        ArrayDataset(np.zeros((3, 8, 8, 3), np.uint8), labels)


def test_remedies_for_one_hot_labels_work(space):
    hot = torch.eye(4)[[2, 0]]
    items = [(Image.new("RGB", (8, 8)), label.argmax()) for label in hot]
    prepare = Preparer(items, PixelTransform.of(space.preprocessing), (4, 4), 4)
    assert [prepare(i).label for i in range(2)] == [2, 0]
    assert ArrayDataset(np.zeros((2, 8, 8, 3), np.uint8), hot.numpy().argmax(axis=1))[0][1] == 2


def test_one_hot_labels_with_a_trace(space):
    from classspace_widgets.studies import Identifiability

    trace = space.trace(torch.randn(2, 3, 32, 32))
    with pytest.raises(ValueError, match=r"\[B\]=\(2,\), got \(2, 4\); .*labels.argmax\(dim=1\)"):
        Identifiability().update(trace, torch.eye(4)[[2, 0]])
    Identifiability().update(trace, torch.eye(4)[[2, 0]].argmax(dim=1))


def test_data_sets_that_cannot_be_used_are_dataset_errors(tmp_path):
    """One error to catch, as the docs say; a folder that is not there is a FileNotFoundError as well."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "classes" / "cat").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    pictures = np.zeros((2, 8, 8, 3), np.uint8)
    for make in (
        lambda: image_folder(tmp_path / "none"),
        lambda: image_folder(tmp_path / "file"),
        lambda: image_folder(tmp_path / "empty"),
        lambda: image_folder(tmp_path / "classes"),
        lambda: imagenet_s(tmp_path / "empty"),
        lambda: as_dataset([]),
        lambda: as_dataset(str(tmp_path / "none")),
        lambda: RowDataset([{"image": 1}]),
        lambda: RowDataset([{"image": 1, "label": 1}], mask="mask"),
        lambda: ArrayDataset(pictures[0], [0, 1]),
        lambda: ArrayDataset(pictures[..., 0], [0, 1]),
        lambda: ArrayDataset(pictures / 255, [0, 1]),
        lambda: ArrayDataset(pictures, [0]),
        lambda: PictureFiles(["a.png"], [0, 1]),
        lambda: PictureFiles(["a.png"], [0], masks=[]),
        lambda: match_classes(["hund"], MODEL),
    ):
        with pytest.raises(DatasetError):
            make()
    with pytest.raises(FileNotFoundError, match="no such folder"):
        image_folder(tmp_path / "none")
    with pytest.raises(TypeError, match=r"pass its data set: loader\.dataset"):
        as_dataset(torch.utils.data.DataLoader(Named()))


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_folders_with_names_that_are_not_unicode(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    Image.new("RGB", (8, 8)).save(os.fsdecode(folder + b"/\xfc.png"), "PNG")
    with open(folder + b"/\xe4.png", "wb") as file:
        file.write(b"broken")
    name = "caf\N{REPLACEMENT CHARACTER}"
    data = image_folder(tmp_path)
    assert data.class_names == (name,)
    space = tiny_vit(num_classes=2)
    space.class_names = (name, "tea")
    results = run_study(space, data, "accuracy", checkpoint=tmp_path / "run", progress=False)
    assert len(results.skipped) == 1
    results.save(tmp_path / "results.json.gz")
    assert results.skipped[0][1].encode()


def test_hidden_copies_are_skipped(tmp_path):
    for name in ("boat", "fish"):
        (tmp_path / name / "more").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
        Image.new("RGB", (8, 8)).save(tmp_path / name / "more" / "2.JPG")
    for hidden in (
        "fish/.ipynb_checkpoints",
        "fish/more/.cache",
        "boat/@eaDir",
        "boat/__MACOSX",
        ".ipynb_checkpoints",
        "__MACOSX",
    ):
        (tmp_path / hidden).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / hidden / "1.png")
    (tmp_path / "boat" / "._1.png").write_bytes(b"\x00\x05\x16\x07" + bytes(60))
    (tmp_path / "boat" / "folder.png").mkdir()
    data = image_folder(tmp_path)
    assert data.class_names == ("boat", "fish")
    assert [p.relative_to(tmp_path).as_posix() for p in data.paths] == [
        "boat/1.png", "boat/more/2.JPG", "fish/1.png", "fish/more/2.JPG",
    ]  # fmt: skip
    assert list(data.labels) == [0, 0, 1, 1]


def test_hidden_copies_in_imagenet_s(tmp_path):
    for part in ("validation", "validation-segmentation"):
        for folder in ("n00000001", ".ipynb_checkpoints"):
            (tmp_path / part / folder).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / part / folder / "1.png")
        (tmp_path / part / "n00000001" / "._1.png").write_bytes(bytes(70))
    data = imagenet_s(tmp_path)
    assert data.class_names == ("n00000001",)
    assert [p.name for p in data.paths] == ["1.png"]


def test_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "set" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "set" / "cat" / "1.png")
    assert len(image_folder("~/set")) == len(as_dataset("~/set")) == len(named_dataset("~/set")) == 1


def test_arrays_of_objects_are_refused_in_words(tmp_path):
    whole = {"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": [0, 1], "class_names": np.array(NAMES)}
    ragged = np.array([np.zeros((3, 3, 3)), np.zeros((4, 4, 3))], dtype=object)
    for part, value in (
        ("images", ragged),
        ("labels", np.array([0, "1"], object)),
        ("class_names", np.array(NAMES, object)),
    ):
        np.savez(tmp_path / "a.npz", **whole | {part: value})
        with pytest.raises(DatasetError, match=rf"a\.npz: {part} is an array of objects, .*would run code; save"):
            named_dataset(str(tmp_path / "a.npz"))
    np.savez(tmp_path / "a.npz", **whole)
    assert len(named_dataset(str(tmp_path / "a.npz"))) == 2
    data = (tmp_path / "a.npz").read_bytes()
    for damaged in (b"", b"text", data[:100], data[: len(data) // 2]):
        (tmp_path / "b.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"b\.npz is not a complete \.npz file of arrays"):
            named_dataset(str(tmp_path / "b.npz"))


def fingerprint(data):
    return dataset_fingerprint(data)["data_fingerprint"]


@pytest.mark.parametrize("nest", NESTS)
def test_a_checkpoint_knows_parts_apart(tmp_path, nest):
    """Other pictures of the same number are another data set, also inside a nest."""
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    data = PictureFiles(paths, [0, 1] * 3, NAMES)
    others = [
        PictureFiles([*paths[:5], tmp_path / "other.png"], [0, 1] * 3, NAMES),
        PictureFiles(paths, [0, 1, 0, 1, 1, 0], NAMES),
        PictureFiles(paths, [0, 1] * 3, NAMES[::-1]),
    ]
    made = NESTS[nest]
    assert fingerprint(made(data)) == fingerprint(made(PictureFiles(paths, [0, 1] * 3, NAMES)))
    assert all(fingerprint(made(data)) != fingerprint(made(other)) for other in others)


def test_a_run_is_not_resumed_on_another_part(space, tmp_path):
    whole = Named()
    run_study(space, Subset(whole, [0, 1]), "accuracy", checkpoint=tmp_path / "run", progress=False)
    with pytest.raises(CheckpointError, match="data_fingerprint"):
        run_study(space, Subset(whole, [0, 3]), "accuracy", checkpoint=tmp_path / "run", resume=True, progress=False)
    run_study(space, Subset(whole, [0, 1]), "accuracy", checkpoint=tmp_path / "run", resume=True, progress=False)


def test_the_atlas_names_pictures_as_the_model_does(space):
    def labels(data):
        return memory_atlas(space, data, classes=2, neurons=2, patches=2, progress=False).meta["pictures"]["labels"]

    assert labels(Subset(Named(), [0, 1])) == [2, 1]
    assert labels(Named("classes", ("bear", "cat", "dog", "owl")))[:2] == [0, 1]
    assert labels(Named("classes", MODEL[::-1]))[:2] == [3, 2]
    assert labels(Named(""))[:2] == [0, 1]
    assert labels(Named("classes", ("hund", "katze"))) == [], "no wrong name is shown"
