"""One list of the state that views share: of the session, of exported pages, and of the front end."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from typing import Any

import pytest
from make_fixtures import synthetic

from classspace_widgets.export import export_html
from classspace_widgets.state import CHOICES, STATE
from classspace_widgets.widgets import Explorer, LayerSlider, PatchHeatmap, Session, link
from classspace_widgets.widgets.linking import DEFAULT, LINKABLE

# Of every value another one than where it starts, which the fixture can show.
OTHER: dict[str, Any] = {
    "class_index": 1, "compare_index": 4, "block": 1, "sublayer": "attention", "stream": "output", "tokens": [2, 3],
    "reading": "importance", "lens": "jacobian", "contribution": "paper", "head": [2, 1], "importance": "chefer", "importance_of": "head",
    "side_by_side": True, "map_name": "mine", "colormap": "magma", "opacity": 0.25, "smooth": True, "model_input": True, "outline": False,
    "source_block": 1, "target_block": 2, "shown": "difference", "open_tour": "mine", "tour_step": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def built_front_end(monkeypatch: pytest.MonkeyPatch):
    for module in ("session", "views"):
        monkeypatch.setattr(f"classspace_widgets.widgets.{module}.script", lambda name: "export default {}")
    monkeypatch.setattr("classspace_widgets.export.front_end.script_text", lambda name: f"/* {name} */")


def test_the_session_has_exactly_these_traits():
    own = {name for name in Session.class_own_traits(sync=True) if not name.startswith("_")}
    assert own - {"status"} == set(STATE) == set(OTHER)
    session = Session(synthetic("all"))
    at_start = {"class_index", "block", "sublayer"}  # from the snapshot
    for name, entry in STATE.items():
        assert name in at_start or getattr(session, name) == entry.default
        assert OTHER[name] != entry.default
        assert Session.class_traits()[name].help == entry.help != ""


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_taken_and_no_other(name):
    session = Session(synthetic("all"))
    for choice in CHOICES[name]:
        setattr(session, name, choice)
        assert getattr(session, name) == choice
    with pytest.raises(Exception, match="nonsense"):
        setattr(session, name, "nonsense")


def test_an_exported_page_opens_in_the_state_of_its_session(tmp_path):
    out = export_html(Explorer(synthetic("all", lenses=True), **OTHER), tmp_path / "page.html")
    text = out.path.read_text(encoding="utf-8")
    state = json.loads(html.unescape(text.partition('data-state="')[2].partition('"')[0]))
    assert state == OTHER


def test_a_lens_is_one_of_the_snapshots_and_stays_while_there_is_one():
    session = Session(synthetic("all", lenses=True), lens="jacobian")
    with pytest.raises(
        Exception, match="lens must be 'logit' or 'jacobian' or 'translator' or 'jacobian 2', got 'probe'"
    ):
        session.lens = "probe"
    session.snapshot = synthetic("classes", lenses=True)
    assert session.lens == "jacobian"
    session.snapshot = synthetic("all")
    assert session.lens == "logit"
    with pytest.raises(Exception, match=r"lens must be 'logit', got 'jacobian'; .*Explorer\(trace, lenses=\[lens\]\)"):
        session.lens = "jacobian"


def test_links_are_of_the_same_list():
    assert set(STATE) - set(LINKABLE) == {"map_name", "open_tour", "tour_step"}
    assert DEFAULT == ("class_index", "block", "sublayer", "stream", "reading", "lens", "contribution")
    first, second = Session(synthetic("all")), Session(synthetic("all"))
    assert link(first, second, *LINKABLE).names == LINKABLE


def test_the_list_is_read_without_a_notebook():
    code = "import sys; sys.modules['anywidget'] = None; from classspace_widgets.state import STATE; print(*STATE)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == list(STATE)


def places(path) -> list[dict[str, str]]:
    """The attributes of every view of a page."""
    tags = re.findall(r'<div class="csw-mount" ([^>]*)>', path.read_text(encoding="utf-8"))
    return [{k: html.unescape(v) for k, v in re.findall(r'data-([\w-]+)="([^"]*)"', tag)} for tag in tags]


def test_links_travel_with_the_page(tmp_path):
    first, second, elsewhere = Explorer(synthetic("all")), Explorer(synthetic("all", seed=1)), Session(synthetic("all"))
    link(second, first)
    link(first, second, "opacity")
    link(first, elsewhere)
    undone = link(first, second, "tokens")
    undone.close()
    export_html([first, second], tmp_path / "page.html")
    a, b = places(tmp_path / "page.html")
    assert json.loads(a["links"]) == {"links": [{"other": b["session"], "names": ["opacity"]}]}
    assert json.loads(b["links"]) == {"links": [{"other": a["session"], "names": list(DEFAULT)}]}
    assert a["snapshot"] != b["snapshot"]


def test_views_of_one_session_share_their_state_and_their_data(tmp_path):
    session = Session(synthetic("all"))
    others = [synthetic("all", seed=1), LayerSlider(synthetic("all", seed=2))]
    items = [LayerSlider(session), PatchHeatmap(session, options={"bare": True}), *others]
    out = export_html(items, tmp_path / "page.html")
    slider, heatmap, snapshot, alone = places(out.path)
    assert slider["session"] == heatmap["session"] != alone["session"]
    assert "session" not in snapshot
    assert slider["snapshot"] == heatmap["snapshot"]
    assert len({p["snapshot"] for p in (slider, snapshot, alone)}) == 3
    assert [p["view"] for p in (slider, heatmap, snapshot, alone)] == [
        "LayerSlider",
        "PatchHeatmap",
        "Explorer",
        "LayerSlider",
    ]
    assert json.loads(heatmap["options"]) == {"bare": True}
    assert out.path.read_text(encoding="utf-8").count('type="application/x-classspace"') == 3
