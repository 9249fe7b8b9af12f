"""What people do who use no mouse, see no map, or need large targets: axe-core, the keyboard, and what is said aloud."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser.conftest import unavailable
from browser.test_lab import SETUP
from browser.test_page import SLIDER, trace  # noqa: F401, a fixture

from classspace_widgets import Explorer
from classspace_widgets.export import export_html
from classspace_widgets.interventions import RemoveTokens

ROOT = Path(__file__).parents[2]
AXE = ROOT / "js/node_modules/axe-core/axe.min.js"
RUN, TARGETS = ((Path(__file__).parent / f"{name}.js").read_text().split("\n", 1)[1] for name in ("axe", "targets"))
PICTURE = ".csw-picture:not([hidden])"


def complaints(page, where: str) -> list[str]:
    """What axe-core finds."""
    if not AXE.is_file():
        unavailable("axe-core is not installed: npm --prefix js ci")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    return page.evaluate(RUN, where)


@pytest.fixture(scope="module")
def explored(trace, tmp_path_factory):  # noqa: F811
    """A page of an explorer with everything that it has: a mask, selected patches, a pinned intervention."""
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[8:40, 8:40] = 1
    view = Explorer(trace.snapshot(mask=mask), class_name="boat", tokens=[12, 14], block=2, sublayer="mlp")
    path = tmp_path_factory.mktemp("accessible") / "page.html"
    return export_html(["# A page", view], path, pins={"corner": RemoveTokens([1, 2])}).path


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 320])
def test_axe_finds_nothing_in_a_page(explored, dark, width, offline):
    page = offline(explored, dark=dark, width=width, height=1400).page
    page.wait_for_selector(SLIDER)
    page.wait_for_timeout(500)
    assert complaints(page, "html") == []
    assert page.evaluate(TARGETS, 24) == []
    # Both measures see what is wrong.
    page.evaluate(
        """() => {
          const slider = document.querySelector('.csw-slider input');
          slider.removeAttribute('aria-label');
          slider.style.height = '9px';
        }"""
    )
    assert any(line.startswith("label:") for line in complaints(page, "html"))
    assert len(page.evaluate(TARGETS, 24)) == 1


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_in_jupyterlab(dark, notebook):
    # A dark view in a light notebook would be illegible: the notebook says what it is.
    nb = notebook([SETUP, "Explorer(trace, class_name='boat', tokens=[3, 5])"], dark=dark, height=1500)
    nb.run_all()
    page = nb.page
    page.wait_for_selector(f".jp-OutputArea {SLIDER}", timeout=30_000)
    if dark:
        page.evaluate("document.body.dataset.jpThemeLight = 'false'")
        page.evaluate("document.body.style.setProperty('--jp-layout-color0', '#111')")
        page.wait_for_selector(".csw[data-csw-theme=dark]")
    for width in (1280, 640):  # of which the notebook's folders take half
        page.set_viewport_size({"width": width, "height": 1500})
        page.wait_for_timeout(500)
        assert complaints(page, ".csw") == []
        assert page.evaluate(TARGETS, 24) == []
        nb.watched.shot(f"axe_lab_{width}_{'dark' if dark else 'light'}")


def test_patches_are_selected_by_enter_and_the_map_is_said_on_demand(explored, offline):
    watched = offline(explored)
    page = watched.page
    page.wait_for_selector(SLIDER)
    page.locator(PICTURE).focus()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Home")
    page.keyboard.press("Enter")
    page.wait_for_selector(".csw-tokens :text('patch 1, 1')")
    page.keyboard.press("s")
    # Beside the region of what is dragged, which is silent.
    said = page.locator(".csw-heatmap [aria-live=polite]:text(': highest on row')")
    said.wait_for(state="attached")
    words = said.text_content()
    assert words.startswith("identifiability of boat: highest on row")
    # What is said of it is what can be heard of its help.
    help_id = page.locator(PICTURE).get_attribute("aria-describedby")
    assert "S says where the map is highest" in page.locator(f"#{help_id}").inner_text()
    assert watched.errors == []


def test_numbers_that_change_by_themselves_are_not_announced(explored, offline):
    page = offline(explored).page
    page.wait_for_selector(SLIDER)
    # An `output` would be: every share, of every class, at every step of the slider.
    assert page.locator(".csw output").count() == 0
    live = page.locator(".csw :is([aria-live], [role=status], [role=alert])")
    assert live.evaluate_all("all => all.filter((e) => /%/.test(e.textContent)).length") == 0


@pytest.mark.parametrize("forced", [False, True])
def test_what_has_the_keyboard_has_a_ring(explored, forced, browser):
    context = browser.new_context(viewport={"width": 1280, "height": 1400}, forced_colors="active" if forced else None)
    page = context.new_page()
    page.goto(explored.as_uri())
    page.wait_for_selector(SLIDER)
    page.wait_for_timeout(500)
    for part in (
        SLIDER,
        ".csw-options input[type=range]",
        ".csw-bars [tabindex='0']",
        ".csw-grid [tabindex='0']",
        PICTURE,
    ):
        target = page.locator(part).first
        target.scroll_into_view_if_needed()
        box = target.bounding_box()
        around = {"x": box["x"] - 8, "y": box["y"] - 8, "width": box["width"] + 16, "height": box["height"] + 16}
        page.mouse.move(1, 1)
        page.keyboard.press("Tab")  # so that the focus is one of the keyboard's
        page.evaluate("document.activeElement.blur()")
        page.wait_for_timeout(150)
        before = page.screenshot(clip=around)
        target.focus()
        page.wait_for_timeout(150)
        assert page.screenshot(clip=around) != before, part
        assert target.evaluate("e => e.matches(':focus-visible')"), part
    context.close()
