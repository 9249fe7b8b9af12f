"""The command line."""

from __future__ import annotations

import re

import pytest

from classspace_widgets import __version__, doctor
from classspace_widgets.cli import main
from classspace_widgets.scenes import gallery


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"classspace-widgets {__version__}"


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert "classspace export fish.png --out fish.html" in capsys.readouterr().out


def test_export_writes_a_page_and_says_its_size(tmp_path, capsys):
    picture = tmp_path / "<fish>.png"
    gallery()[0].picture.save(picture)
    assert main(["export", str(picture), "--out", str(tmp_path / "page.html"), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"the page will be about [\d.]+ MB", said)
    page = (tmp_path / "page.html").read_text()
    assert page.count('class="csw-mount"') == 1
    assert "<fish>" not in page


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
        assert main(["export", str(picture), "--out", str(out), *more]) == 0
        said = capsys.readouterr().out
        assert ("2 of 24 classes travel with this page" in said) == bool(more)
        assert ("Ranks and top classes alone" in said) == ("--ranks-only" in more)
        sizes.append(out.stat().st_size)
    assert sizes[2] < sizes[1] < sizes[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "missing.png", "--out", "x.html"], "no such file: missing.png"),
        (["export", "{picture}", "--out", "x.html", "--classes", "fihs"], "close matches: fish"),
        (["export", "{picture}", "--out", "x.html", "--model", "bundled/none"], "none"),
        (["export", "{text}", "--out", "x.html"], "note.txt"),
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


def test_demo_copies_the_notebook_once(tmp_path, capsys):
    assert main(["demo", "--folder", str(tmp_path), "--no-open"]) == 0
    copy = tmp_path / "classspace_demo.ipynb"
    copy.write_text("mine")
    assert main(["demo", "--folder", str(tmp_path), "--no-open"]) == 0
    assert copy.read_text() == "mine"
    assert "is there already" in capsys.readouterr().out


def test_doctor_says_what_is_missing_and_what_to_do(monkeypatch):
    lines, _ = doctor.report()
    assert any(line.split()[:1] == ["torch"] for line in lines)
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "timm" else "1.0")
    lines, healthy = doctor.report()
    assert not healthy
    assert any("MISSING: pip install timm" in line for line in lines)
