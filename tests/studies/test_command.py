"""``classspace study`` and ``classspace report``, and the data sets that their command line names."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from classspace_widgets import ClassSpace
from classspace_widgets.cli import main
from classspace_widgets.data.named import named_dataset
from classspace_widgets.scenes import ScenesDataset
from classspace_widgets.studies import StudyResults, run_study

STUDY = ["study", "--device", "cpu", "--studies", "accuracy", "identifiability"]


def test_study_then_report(tmp_path, capsys):
    out = tmp_path / "results"
    assert main([*STUDY, "--data", "scenes:24:7", "--twin", "--out", str(out)]) == 0
    assert "24 pictures, 0 skipped" in capsys.readouterr().out
    found = StudyResults.load(out / "results.json.gz")
    expected = run_study(
        ClassSpace.bundled(device="cpu"), ScenesDataset(24, seed=7), ["accuracy", "identifiability"],
        random_twin=5, progress=False,
    )  # fmt: skip
    for name in ("accuracy", "identifiability"):
        pd.testing.assert_frame_equal(found[name].table, expected[name].table)
        assert set(found[name].tables["twins"]["twin"]) == {1, 2, 3, 4, 5}
    assert set(found["accuracy"].table.weights) == {"trained", "random"}
    assert [p.name for p in out.iterdir()] == ["results.json.gz"]

    page = tmp_path / "report.html"
    assert main(["report", str(out), "--out", str(page), "--title", "<b>One</b> & two"]) == 0
    text = page.read_text()
    assert "<title>&lt;b&gt;One&lt;/b&gt; &amp; two</title>" in text
    assert all(found[name].title in text for name in found)
    assert not re.search(r'<(script|link|img)[^>]*(src|href)="https?:', text)


def test_an_interrupted_study_goes_on(tmp_path, capsys):
    """The console script is interrupted as Ctrl-C does it; the resumed run equals an uninterrupted one.

    Tests that run in a shell's background are started with Ctrl-C ignored, and so is what they start: the script is told
    to heed it.
    """
    out, whole = tmp_path / "results", tmp_path / "whole"
    data = ["--data", "scenes:160:3", "--batch-size", "4"]
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{heed}; from classspace_widgets.cli import main; raise SystemExit(main())"]
    process = subprocess.Popen([*command, *STUDY, *data, "--out", str(out)], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not (out / "checkpoint").exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert "--resume" in said
    assert not (out / "results.json.gz").exists()

    assert main(["report", str(out), "--out", str(tmp_path / "report.html")]) == 1
    assert "not finished" in capsys.readouterr().err
    assert main([*STUDY, *data, "--out", str(out)]) == 1
    assert "--resume" in capsys.readouterr().err
    assert main([*STUDY, *data, "--out", str(out), "--resume"]) == 0
    assert main([*STUDY, *data, "--out", str(whole)]) == 0
    halves, one = (StudyResults.load(folder / "results.json.gz") for folder in (out, whole))
    for name in one:
        pd.testing.assert_frame_equal(halves[name].table, one[name].table)
    assert main([*STUDY, *data, "--out", str(out)]) == 1
    assert "is there already" in capsys.readouterr().err


def test_a_folder_with_a_class_map(tmp_path):
    scenes = ScenesDataset(4, seed=1)
    for i in range(4):
        scene = scenes.scene(i)
        folder = tmp_path / "data" / f"my {scene.class_name}"
        folder.mkdir(parents=True, exist_ok=True)
        scene.picture.save(folder / f"{i}.png")
    (tmp_path / "data" / next((tmp_path / "data").iterdir()).name / "broken.png").write_bytes(b"not a picture")
    names = {f"my {scenes.scene(i).class_name}": scenes.scene(i).class_name for i in range(4)}
    (tmp_path / "map.json").write_text(json.dumps(names))
    arguments = [*STUDY, "--data", str(tmp_path / "data"), "--class-map", str(tmp_path / "map.json")]
    assert main([*arguments, "--out", str(tmp_path / "results")]) == 0
    found = StudyResults.load(tmp_path / "results" / "results.json.gz")
    assert found.provenance["pictures"] == 4
    assert len(found.skipped) == 1


def test_arrays_by_name(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8), np.array([0, 1, 1])
    np.savez(tmp_path / "a.npz", images=images, labels=labels, class_names=np.array(["cat", "dog"]))
    data = named_dataset(str(tmp_path / "a.npz"))
    assert len(data) == 3
    assert data.class_names == ("cat", "dog")
    picture, label, mask = data[2]
    assert np.array_equal(np.asarray(picture), images[2])
    assert (label, mask) == (1, None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("scenes:many", "expected scenes, scenes:N"),
        ("scenes:0", "N at least 1"),
        ("nowhere", "expected a folder"),
        ("hf:", "hf:NAME"),
        ("{folder}/x.npz", "has no array labels"),
        ("{folder}/x.png", "expected an .npz file"),
        ("{folder}", "no subfolders"),
    ],
)
def test_unreadable_data_is_named_and_nothing_is_written(tmp_path, capsys, data, message):
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez(folder / "x.npz", images=np.zeros((1, 4, 4, 3), np.uint8))
    Image.new("RGB", (4, 4)).save(folder / "x.png")
    assert main([*STUDY, "--data", data.format(folder=folder), "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_mistakes(tmp_path, capsys):
    assert main([*STUDY[:3], "--data", "scenes:4", "--studies", "acuracy", "--out", str(tmp_path / "out")]) == 1
    assert "no study named 'acuracy'" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 1
    assert "run `classspace study` first" in capsys.readouterr().err
    (tmp_path / "bad").write_bytes(b"not results")
    assert main(["report", str(tmp_path / "bad"), "--out", str(tmp_path / "r.html")]) == 1
    assert "not a file of study results" in capsys.readouterr().err
