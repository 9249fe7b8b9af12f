"""Pages that carry their model, over file:// with the network cut: new pictures and interventions are computed in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_page import only_the_file

from classspace_widgets import ClassSpace
from classspace_widgets.export import export_html
from classspace_widgets.interventions import Ablate, trace_with
from classspace_widgets.scenes import gallery

WAIT = 60_000
"""Milliseconds for an answer, on a crowded machine too."""
CHIP = ".csw-predicted button >> nth=0"


@pytest.fixture(scope="module")
def space() -> ClassSpace:
    return ClassSpace.bundled()


@pytest.fixture(scope="module")
def live(space: ClassSpace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trace = space.trace(gallery()[0].picture, attention=True, heads=True)
    return export_html(trace, tmp_path_factory.mktemp("live") / "live.html", live=True, progress=False).path


def test_a_picture_is_uploaded_and_an_intervention_run_in_the_page(space, live, tmp_path, offline):
    watched = offline(live)
    page = watched.page
    page.wait_for_selector("text=runs in this page")
    scene = gallery()[4]
    scene.picture.save(tmp_path / "other.png")
    page.set_input_files("input[type=file]", tmp_path / "other.png")
    page.wait_for_selector(".csw-title p:has-text('other.png  ·')", timeout=WAIT)
    trace = space.trace(scene.picture)
    assert trace.predictions(k=1)["class_name"][0] in page.inner_text(CHIP)
    page.select_option("select[aria-label=Intervention]", "mlp")
    page.click("button:has-text('Apply')")
    page.wait_for_selector(".csw-steps li", timeout=WAIT)
    changed = trace_with(space, trace, Ablate("mlp")).predictions(k=1)["class_name"][0]
    assert changed in page.inner_text(CHIP)
    watched.shot("live_page")
    assert only_the_file(watched), watched.requests
    assert watched.errors == []


def test_a_file_that_is_no_picture_is_refused_in_words(live, tmp_path, offline):
    watched = offline(live)
    (tmp_path / "no.png").write_bytes(b"not a picture")
    watched.page.wait_for_selector("text=runs in this page")
    watched.page.set_input_files("input[type=file]", tmp_path / "no.png")
    watched.page.wait_for_selector("text=cannot be read as a picture", timeout=WAIT)
    assert watched.errors == []


def test_a_page_with_damaged_weights_stays_a_static_one(live, tmp_path, offline):
    text = live.read_text()
    name = re.search(r'data-engine="([^"]+)"', text).group(1)
    start = text.index(f'id="{name}"') + 100_000
    damaged = tmp_path / "damaged.html"
    damaged.write_text(text[:start] + ("A" if text[start] != "A" else "B") * 40 + text[start + 40 :])
    page = offline(damaged).page
    page.wait_for_selector("text=The model cannot run in this page", timeout=WAIT)
    assert page.locator("button:has-text('New picture')").is_hidden()
    page.focus(".csw-slider input.csw-range")
    page.keyboard.press("Home")
    page.wait_for_selector(".csw-slider input[aria-valuetext^=embedding]")


def test_the_page_works_on_a_phone(live, tmp_path, offline):
    watched = offline(live, width=390, height=844)
    page = watched.page
    page.wait_for_selector("text=runs in this page")
    assert page.locator("button:has-text('New picture')").is_visible()
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    watched.shot("live_page_phone")
