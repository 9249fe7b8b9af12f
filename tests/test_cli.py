"""The command line."""

from __future__ import annotations

import importlib
import io
import re
import subprocess
import sys

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from classspace_widgets import ClassSpace, __version__
from classspace_widgets.cli import demo, doctor, main
from classspace_widgets.models import variants
from classspace_widgets.scenes import gallery


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"classspace-widgets {__version__}"


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert "classspace export photo.jpg --out page.html" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    assert "data:" not in capsys.readouterr().out  # what a study reads is no matter of a report's


def test_export_writes_a_page_and_says_its_size(tmp_path, capsys):
    picture = tmp_path / "<fish>.png"
    gallery()[0].picture.save(picture)
    assert main(["export", str(picture), "--out", str(tmp_path / "page.html"), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"the page will be about [\d.]+ MB", said)
    page = (tmp_path / "page.html").read_text()
    assert page.count('class="csw-mount"') == 1
    assert "<fish>" not in page


@pytest.mark.parametrize("command", ["export", "study"])
def test_help_lists_the_bundled_models(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for name in variants():
        assert ("bundled (scenes" if name == "default" else f"bundled/{name} (") in said
    assert said.count(", the default)") == 1
    default = {"export": "bundled/photos (photographs", "study": "bundled (scenes"}[command]
    assert f"{default}, the default)" in said


def test_export_takes_masks_that_are_cut_and_scaled_as_the_pictures_are(tmp_path, monkeypatch, capsys):
    written = []
    monkeypatch.setattr(
        "classspace_widgets.export.html.export_html", lambda items, *_a, **_o: written.extend(items[1:]) or ""
    )
    scene = gallery(size=192)[1]
    wide = np.pad(scene.image, ((0, 0), (60, 0), (0, 0)))  # the model's centre crop takes 30 columns away on each side
    mask = np.pad(scene.mask, ((0, 0), (60, 0)))
    Image.fromarray(wide).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "a_mask.png")
    Image.fromarray(scene.image).save(tmp_path / "b.png")
    Image.fromarray(np.uint8(scene.mask == 1) * 255).save(tmp_path / "b_mask.png")
    pictures, masks = ([str(tmp_path / f"{n}{end}.png") for n in "ab"] for end in ("", "_mask"))
    assert (
        main(
            [
                "export",
                *pictures,
                "--model",
                "bundled",
                "--mask",
                *masks,
                "--out",
                str(tmp_path / "page.html"),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    first, second = (s.arrays["mask"] for s in written)
    assert first.shape == second.shape == (96, 96)
    exact = scene.redraw(96).mask
    assert set(np.unique(first)) == set(np.unique(exact)) == {0, 1, 2}
    assert (second == (exact == 1)).mean() > 0.98
    # 252 columns scaled by half, of which the middle 96 are seen.
    assert (first[:, 15:] == exact[:, :-15]).mean() > 0.98
    assert not first[:, :15].any()
    assert [len(s.meta["objects"]) for s in written] == [2, 1]
    cut_off = np.where(np.arange(252) < 20, 1, 2 * (mask > 0))
    Image.fromarray(cut_off.astype(np.uint8)).save(tmp_path / "a_mask.png")
    assert (
        main(
            [
                "export",
                pictures[0],
                "--model",
                "bundled",
                "--mask",
                masks[0],
                "--out",
                str(tmp_path / "page.html"),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert set(np.unique(written[-1].arrays["mask"])) == {0, 2}
    assert len(written[-1].meta["objects"]) == 2


def test_a_picture_with_a_mask_stays_as_it_is_stored(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        "classspace_widgets.export.html.export_html", lambda items, *_a, **_o: written.extend(items[1:]) or ""
    )
    stored = np.zeros((96, 192, 3), np.uint8)
    stored[:, 96:] = 200
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by a quarter
    Image.fromarray(stored).save(tmp_path / "a.png", exif=turned)
    Image.fromarray(stored[..., 0]).point(lambda v: v > 0 and 255).save(tmp_path / "mask.png")
    given = [str(tmp_path / "a.png"), "--mask", str(tmp_path / "mask.png"), "--out", str(tmp_path / "page.html")]
    assert main(["export", *given, "--model", "bundled", "--device", "cpu"]) == 0
    (snapshot,) = written
    assert not snapshot.arrays["mask"][:, :47].any()
    assert snapshot.arrays["mask"][:, 49:].all()
    shown = np.asarray(Image.open(io.BytesIO(snapshot.arrays["image"].tobytes())).convert("L"))
    assert shown[:, :40].max() < 20 < 180 < shown[:, 56:].min()


def test_a_mask_of_the_pictures_own_size_is_placed_as_the_picture_is():
    space = ClassSpace.bundled(device="cpu")
    wide = np.zeros((200, 300), np.uint8)
    wide[50:150, 100:250] = 2
    wide[:50, :50] = 1
    trace = space.trace(Image.fromarray(np.repeat(wide[..., None] * 100, 3, axis=2)))
    placed = space.place_mask(wide)
    assert placed.shape == trace.pictures.shape[1:3]
    # The picture shows its own mask: 0, 100 and 200, but for the interpolation of its edges.
    assert (np.round(trace.pictures[0, ..., 0] / 100) == placed).mean() > 0.98
    assert set(np.unique(placed)) == {0, 2}, "the first object was cut off"
    assert trace.snapshot(mask=placed, objects=[None] * 2).meta["objects"] == [{"class": None, "name": "object"}] * 2
    with pytest.raises(ValueError, match=r"shape \[height, width\], got \[2, 3, 4\]"):
        space.place_mask(np.zeros((2, 3, 4)))


def test_masks_that_do_not_fit_are_refused(tmp_path, capsys):
    scene = gallery()[0]
    scene.picture.save(tmp_path / "a.png")
    Image.new("L", (50, 96)).save(tmp_path / "small.png")
    Image.new("RGB", (96, 96), "red").save(tmp_path / "red.png")
    (tmp_path / "text.png").write_text("no picture")

    def refused(*masks: str) -> str:
        given = [str(tmp_path / m) for m in masks]
        assert (
            main(
                [
                    "export",
                    str(tmp_path / "a.png"),
                    "--model",
                    "bundled",
                    "--mask",
                    *given,
                    "--out",
                    str(tmp_path / "page.html"),
                ]
            )
            == 1
        )
        return capsys.readouterr().err

    assert "one mask for every picture, got 2 for 1 pictures" in refused("small.png", "small.png")
    assert "size [height, width]=[96, 96], got [96, 50]" in refused("small.png")
    assert "must have one channel" in refused("red.png")
    assert "text.png is not an image" in refused("text.png")
    assert "no such file" in refused("gone.png")


def test_export_of_some_classes_carries_no_others(tmp_path, capsys):
    picture = tmp_path / "fish.png"
    gallery(size=64)[0].picture.save(picture)
    sizes = []
    for more in (
        [],
        ["--classes", "fish", "boat"],
        ["--classes", "fish", "boat", "--streams", "residual", "--ranks-only"],
    ):
        out = tmp_path / "page.html"
        assert main(["export", "--model", "bundled", str(picture), "--out", str(out), *more]) == 0
        said = capsys.readouterr().out
        assert ("2 of 24 classes travel with this page" in said) == bool(more)
        assert ("Ranks and top classes alone" in said) == ("--ranks-only" in more)
        sizes.append(out.stat().st_size)
    assert sizes[2] < sizes[1] < sizes[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "missing.png", "--out", "x.html"], "no such file: missing.png"),
        (["export", "{picture}", "--out", "x.html", "--model", "bundled", "--classes", "fihs"], "close matches: fish"),
        (["export", "{picture}", "--out", "x.html", "--model", "bundled/none"], "none"),
        (["export", "{text}", "--out", "x.html"], "note.txt"),
        (["export", "{picture}", "--out", "{picture}"], "--out must be an HTML file, such as picture.html"),
        (["export", "{picture}", "--out", "none/x.html"], "the folder none does not exist"),
        (["export", "{picture}", "--out", "x.html", "--device", "gpu"], "device must be"),
        (["report", "{text}", "--out", "{text}"], "--out must be an HTML file, such as note.html"),
        (["study", "--data", "scenes:4", "--out", "x.html", "--class-map", "{text}"], "note.txt is not JSON"),
        (["study", "--data", "scenes:4", "--out", "x.html", "--class-map", "map.json"], "there is no file at map.json"),
        (["study", "--data", "scenes:4", "--out", "x.html", "--studies", "acuracy"], "no study named"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    gallery()[0].picture.save("picture.png")
    (tmp_path / "note.txt").write_text("not a picture")
    places = {"{picture}": "picture.png", "{text}": "note.txt"}
    assert main([places.get(a, a) for a in arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()
    assert (tmp_path / "note.txt").read_text() == "not a picture"
    with Image.open("picture.png") as still:
        assert still.size == (96, 96)


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 2
    assert "classspace export photo.jpg" in capsys.readouterr().out


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "classspace_widgets", "--version"]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == f"classspace-widgets {__version__}"


def test_export_says_what_a_bundled_model_knows_and_how_sure_it_is(tmp_path, capsys):
    picture = tmp_path / "fish.png"
    gallery(size=64)[0].picture.save(picture)
    export = ["export", str(picture), "--out", str(tmp_path / "page.html")]
    assert main(export) == 0
    said = capsys.readouterr().out
    assert "The bundled photo model is small: it knows 82 everyday classes, sees 64 x 64 pixels" in said
    assert "--model vit_base_patch16_224; drawn scenes: --model bundled" in said
    assert re.search(r"fish\.png: (Unsure: )?[\w -]+ \d+%, \d+ points ahead of [\w -]+;", said)
    assert main([*export, "--model", "bundled", "--classes", "fish"]) == 0
    said = capsys.readouterr().out
    assert "was trained on drawn scenes of 24 classes and knows nothing else" in said
    assert "fish.png: fish 100%, " in said


def test_demo_copies_the_notebook_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))  # Where copies are signed.
    folder = tmp_path / "new"
    assert main(["demo", "--folder", str(folder), "--no-open"]) == 0
    copy = folder / "classspace_demo.ipynb"
    copy.write_text("mine")
    assert main(["demo", "--folder", str(folder), "--no-open"]) == 0
    assert copy.read_text() == "mine"
    assert "is there already" in capsys.readouterr().out


def test_the_copy_of_the_demo_is_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    import nbformat
    from nbformat.sign import NotebookNotary

    assert main(["demo", "--folder", str(tmp_path), "--no-open"]) == 0
    copy = nbformat.read(tmp_path / "classspace_demo.ipynb", as_version=4)
    assert NotebookNotary().check_signature(copy)
    copy.cells[0].source = "another"
    assert not NotebookNotary().check_signature(copy)


def test_demo_opens_this_environments_lab_and_leaves_ctrl_c_to_it(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    started = []

    class Lab:
        def __init__(self, command):
            started.append(command)
            self.waits = iter([KeyboardInterrupt, 0])

        def wait(self):
            told = next(self.waits)
            if told:
                raise told
            return told

    monkeypatch.setattr(demo.subprocess, "Popen", Lab)
    assert main(["demo", "--folder", str(tmp_path)]) == 0
    assert started == [[sys.executable, "-m", "jupyterlab", str(tmp_path / "classspace_demo.ipynb")]]


def line_of(what: str) -> tuple[str, bool]:
    lines, healthy = doctor.report()
    return next(line for line in lines if line.split()[: len(what.split())] == what.split()), healthy


def test_doctor_says_what_is_missing_and_what_to_do(monkeypatch):
    line, healthy = line_of("torch")
    assert "MISSING" not in line
    assert healthy
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "timm" else real(name))
    line, healthy = line_of("timm")
    assert not healthy
    assert "MISSING: pip install timm" in line
    assert "cannot be built" in line_of("models")[0]


def test_doctor_knows_what_is_too_old(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_lowest", lambda: {"timm": Requirement("timm>=1.0.24")})
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0.9" if name == "timm" else real(name))
    line, healthy = line_of("timm")
    assert not healthy
    assert 'TOO OLD: pip install "timm>=1.0.24"' in line


def test_doctor_names_a_torchvision_that_does_not_fit(monkeypatch):
    real = importlib.import_module

    def broken(name: str):
        if name == "timm":
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    line, healthy = line_of("models")
    assert not healthy
    assert "torchvision::nms" in line
    assert "pip install --upgrade torch torchvision timm" in line


def test_doctor_looks_for_the_widgets_in_jupyterlab(monkeypatch, tmp_path):
    paths = pytest.importorskip("jupyter_core.paths")
    pytest.importorskip("jupyterlab")
    (tmp_path / "@jupyter-widgets" / "jupyterlab-manager").mkdir(parents=True)
    monkeypatch.setattr(paths, "jupyter_path", lambda *_parts: [str(tmp_path)])
    line, healthy = line_of("widgets")
    assert not healthy
    assert line.endswith("pip install --force-reinstall anywidget")
    (tmp_path / "anywidget").mkdir()
    assert line_of("widgets")[0].endswith("ready")


def test_doctor_counts_the_weights_at_hand(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "models--timm--vit_base_patch16_224").mkdir()
    assert f"1 pretrained model in {tmp_path}, HF_HUB_OFFLINE is set" in line_of("weights")[0]
