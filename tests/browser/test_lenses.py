"""Fitted lenses, typed classes and nearest states, used as a person would."""

from __future__ import annotations

from pathlib import Path

import pytest

from classspace_widgets import ClassSpace, Explorer, export_html
from classspace_widgets.scenes import gallery

TESTS = Path(__file__).resolve().parents[1]
SLIDER = ".csw-slider input.csw-range"
PIXELS = "() => document.querySelector('.csw-picture:not([hidden]) canvas').toDataURL()"


@pytest.fixture(scope="module")
def shown():
    space = ClassSpace.bundled("contrast")
    trace = space.trace(gallery()[0].image, attention=True, heads=True)
    lenses = [space.bundled_lens(kind) for kind in ("jacobian", "translator")]
    return trace, lenses


def test_a_page_reads_through_its_lenses_without_a_network(shown, tmp_path, offline):
    trace, lenses = shown
    export_html(Explorer(trace, lenses=lenses, block=3, reading="logit", class_name="fish"), tmp_path / "page.html")
    watched = offline(tmp_path / "page.html")
    page = watched.page
    page.wait_for_selector(SLIDER)
    lens = page.get_by_label("Lens", exact=True)
    assert lens.locator("option").all_text_contents() == ["logit lens", "jacobian", "translator"]
    before = page.evaluate(PIXELS)
    lens.select_option("jacobian")
    page.wait_for_function(
        "b => document.querySelector('.csw-picture:not([hidden]) canvas').toDataURL() !== b", arg=before
    )
    page.wait_for_selector(".csw-note:has-text('jacobian lens: what of this token the answer goes on to use')")
    page.wait_for_selector(".csw-trust button:has-text('Trust: ')")
    # The address keeps it, also over a reload, and the keyboard changes it.
    page.wait_for_function("() => location.hash.includes('lens=jacobian')")
    page.reload()
    page.wait_for_selector(".csw-trajectories h3:has-text('jacobian')")
    page.focus(SLIDER)
    page.keyboard.press("l")
    page.wait_for_selector(".csw-trajectories h3:has-text('translator')")
    page.keyboard.press("l")
    page.keyboard.press("l")
    page.wait_for_selector(".csw-trajectories h3:has-text('jacobian')")
    # Nothing reads the patches of the last block: the map says so, and shows no value.
    page.keyboard.press("End")
    page.wait_for_selector(".csw-curtain:has-text('nothing in the model reads them from here on')")
    watched.shot("lens_undefined")
    assert watched.errors == []


@pytest.mark.parametrize(("width", "dark"), [(320, False), (320, True), (1280, True)])
def test_lenses_fit_every_width(shown, tmp_path, offline, width, dark):
    trace, lenses = shown
    view = Explorer(trace, lenses=lenses, lens="jacobian", block=3, reading="logit", class_name="fish")
    export_html(view, tmp_path / "page.html")
    watched = offline(tmp_path / "page.html", width=width, dark=dark)
    watched.page.wait_for_selector(".csw-trust svg")
    watched.page.wait_for_timeout(300)
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
    watched.shot(f"lens_{width}_{'dark' if dark else 'light'}")
    assert watched.errors == []


def test_a_typed_class_appears_in_every_view(notebook):
    pytest.importorskip("open_clip")
    nb = notebook(
        [
            f"""
import sys; sys.path.insert(0, {str(TESTS)!r})
import logging; logging.disable()
from classspace_widgets import ClassSpace, Explorer
from convert.originals import open_clip_pair, pixels
from convert.test_words import NAMES, OpenClipTokenizer
space = ClassSpace.from_words(open_clip_pair(), NAMES, tokenizer=OpenClipTokenizer())
""",
            "explorer = Explorer(space.trace(pixels(1), attention=True)); explorer",
        ]
    )
    nb.run_all()
    page = nb.page
    field = page.locator(".csw-picker input[aria-label=Class]")
    field.scroll_into_view_if_needed()
    field.click()
    page.keyboard.press("Control+a")
    page.keyboard.type("striped horse")
    page.wait_for_selector("[role=option]:has-text('striped horse'):has-text('add')")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.csw-picker input').value === 'striped horse'")
    for view in (".csw-slider-value", ".csw-bars h3", ".csw-trajectories h3", ".csw-map-title", ".csw-top"):
        page.wait_for_selector(f"{view}:has-text('striped horse')", timeout=30_000)
    page.wait_for_selector(".csw-explorer :text('4 classes')")
    nb.watched.shot("typed_class")
    # Words that the text tower does not know are refused in words, and all else stays.
    field.click()
    page.keyboard.press("Control+a")
    page.keyboard.type("xylophone")
    page.keyboard.press("Enter")
    page.wait_for_selector(".csw-explorer .csw-doing:has-text('xylophone')")
    assert page.input_value(".csw-picker input[aria-label=Class]") == "striped horse"


def test_nearest_states_of_a_clicked_patch(notebook):
    nb = notebook(
        [
            """
import logging; logging.disable()
from classspace_widgets import ClassSpace, Explorer
from classspace_widgets.nearest import state_bank
from classspace_widgets.scenes import gallery
space = ClassSpace.bundled("contrast")
scenes = gallery()
bank = state_bank(space, [scene.image for scene in scenes[1:7]], progress=False)
""",
            "explorer = Explorer(space.trace(scenes[0].image), bank=bank, block=4); explorer",
        ]
    )
    nb.run_all()
    page = nb.page
    page.wait_for_selector(".csw-nearest:has-text('Select one patch')")
    canvas = page.locator(".csw-picture:not([hidden]) canvas")
    canvas.scroll_into_view_if_needed()
    area = canvas.bounding_box()
    page.mouse.click(area["x"] + area["width"] * 0.4, area["y"] + area["height"] * 0.6)
    page.wait_for_function("() => document.querySelectorAll('.csw-nearest img').length === 6")
    page.wait_for_function("() => [...document.querySelectorAll('.csw-nearest img')].every(i => i.naturalWidth > 0)")
    page.locator(".csw-nearest").scroll_into_view_if_needed()
    nb.watched.shot("nearest_states")
