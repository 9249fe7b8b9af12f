"""Where tours are offered: in an explorer, in a page, and on the command line."""

from __future__ import annotations

import html
import json
import re

import numpy as np
import pytest
from make_fixtures import synthetic
from PIL import Image

from classspace_widgets import ClassSpace, Explorer, export_html
from classspace_widgets.cli import main
from classspace_widgets.scenes import gallery
from classspace_widgets.tours import read_tour

STATIC = """# Look

## Once
Look at **this**.
- target: layer slider
- until: block = 0
"""


@pytest.fixture(scope="module")
def fish():
    scene = gallery()[0]
    trace = ClassSpace.bundled(device="cpu").trace(scene.picture, attention=True, heads=True)
    return trace.snapshot(**scene.annotations)


def options_of(path) -> list[dict]:
    found = re.findall(r'data-options="([^"]*)"', path.read_text(encoding="utf-8"))
    return [json.loads(html.unescape(text)) for text in found]


def test_an_explorer_takes_tours_and_a_page_takes_them_over(fish, tmp_path):
    explorer = Explorer(fish, tour=["four-ways", STATIC], open_tour="look", tour_step=1)
    assert [tour["name"] for tour in explorer.options["tours"]] == ["four-ways", "look"]
    page = export_html(explorer, tmp_path / "live.html", live=True)
    (options,) = options_of(page.path)
    assert options["tours"] == json.loads(json.dumps(explorer.options["tours"]))
    assert '"open_tour": "look"' in html.unescape(page.path.read_text(encoding="utf-8"))
    # A page without the model leaves out what needs it, and says so.
    page = export_html(explorer, tmp_path / "still.html")
    assert [tour["name"] for tour in options_of(page.path)[0]["tours"]] == ["look"]
    (note,) = [note for note in page.notes if "left out" in note]
    assert "'Does this patch matter? Four ways to ask'" in note
    assert "live=True" in note
    explorer.close()


def test_a_tour_that_was_asked_for_and_cannot_be_told_is_an_error(fish, tmp_path):
    with pytest.raises(
        ValueError, match=r"four-ways\.md, line \d+: step 4 \(Take it away\) needs the model.*live=True"
    ):
        export_html(fish, tmp_path / "no.html", tour="four-ways")
    with pytest.raises(ValueError, match="needs an explorer"):
        export_html("# Words alone", tmp_path / "no.html", tour="four-ways")
    with pytest.raises(ValueError, match="no class is called"):
        Explorer(synthetic("all"), tour=STATIC.replace("block = 0", "class = unicorn"))
    assert not (tmp_path / "no.html").exists()


def test_the_script_is_only_where_a_tour_is(fish, tmp_path):
    names = {}
    for name, tour in (("without", None), ("with", STATIC)):
        text = export_html([fish, fish], tmp_path / f"{name}.html", tour=tour).path.read_text(encoding="utf-8")
        names[name] = re.findall(r'data-name="(\w+)"', text)
    assert names == {"without": ["page"], "with": ["page", "tour"]}
    assert ["tours" in options for options in options_of(tmp_path / "with.html")] == [True, False]


def test_the_command_line_offers_them(tmp_path, capsys):
    scene = gallery()[0]
    scene.picture.save(tmp_path / "fish.png")
    Image.fromarray((np.asarray(scene.annotations["mask"]) > 0).astype(np.uint8)).save(tmp_path / "mask.png")
    given = ["export", str(tmp_path / "fish.png"), "--model", "bundled", "--mask", str(tmp_path / "mask.png")]
    given += ["--out", str(tmp_path / "p.html")]
    assert main([*given, "--live", "--tour", "makes-up-its-mind", "four-ways"]) == 0
    assert [tour["name"] for tour in options_of(tmp_path / "p.html")[0]["tours"]] == ["makes-up-its-mind", "four-ways"]
    assert main([*given, "--tour", "four-way"]) == 1
    assert "close matches: four-ways" in capsys.readouterr().err
    assert main([*given, "--tour", "four-ways"]) == 1
    assert "classspace export --live" in capsys.readouterr().err


def test_tours_say_what_they_are():
    tour = read_tour("four-ways")
    assert repr(tour) == "Tour('Does this patch matter? Four ways to ask', 8 steps)"
    assert str(tour).splitlines()[1].startswith("1. Ask the patch: First way")
