"""Guided tours in a page that carries its model, over file:// with the network cut: one by mouse, one by keyboard."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_accessible import complaints
from test_page import only_the_file

from classspace_widgets import ClassSpace
from classspace_widgets.export import export_html
from classspace_widgets.scenes import gallery
from classspace_widgets.tours import BUNDLED, read_tour
from classspace_widgets.tours.text import plain

WAIT = 60_000
"""Milliseconds for an answer, on a crowded machine too."""
CARD, DONE = ".csw-tour", ".csw-tour.csw-met .csw-tour-outcome"
NEXT = ".csw-tour .csw-bar-row button >> nth=1"
PICTURE, SLIDER = ".csw-picture:not([hidden])", ".csw-slider .csw-range"
APPLY, ACTION = ".csw-whatif .csw-primary", "select[aria-label=Intervention]"


@pytest.fixture(scope="module")
def fish(tmp_path_factory) -> Path:
    """A live page of the fish, with both tours."""
    scene = gallery()[0]
    trace = ClassSpace.bundled().trace(scene.picture, attention=True, heads=True)
    path = tmp_path_factory.mktemp("tour") / "fish.html"
    return export_html(trace.snapshot(**scene.annotations), path, live=True, tour=BUNDLED, progress=False).path


def started(watched, name: str):
    """The page with a tour at its first step."""
    page = watched.page
    page.wait_for_selector("text=runs in this page", timeout=WAIT)
    page.click(f".csw-tour-offer button:has-text('{read_tour(name).title}')")
    return page


def center(page, row: int, column: int, grid: int = 12) -> tuple[float, float]:
    """The middle of a patch on the screen, by its row and column from 1."""
    box = page.locator(PICTURE).bounding_box()
    return box["x"] + box["width"] * (column - 0.5) / grid, box["y"] + box["height"] * (row - 0.5) / grid


def drag(page, first: tuple[int, int], last: tuple[int, int]) -> None:
    page.locator(PICTURE).scroll_into_view_if_needed()
    page.mouse.move(*center(page, *first))
    page.mouse.down()
    page.mouse.move(*center(page, *last), steps=6)
    page.mouse.up()


def click_patch(page, row: int, column: int) -> None:
    page.locator(PICTURE).scroll_into_view_if_needed()
    page.mouse.click(*center(page, row, column))


def slide(page, position: int) -> None:
    """Click the slider at a position of 0..16, as a hand would."""
    page.locator(SLIDER).scroll_into_view_if_needed()
    box = page.locator(SLIDER).bounding_box()
    page.mouse.click(box["x"] + 8 + (box["width"] - 16) * position / 16, box["y"] + box["height"] / 2)


SMALL = """() => [...document.querySelectorAll(".csw-tour button, .csw-tour-offer button")]
  .filter((e) => e.checkVisibility()).map((e) => e.getBoundingClientRect())
  .filter(({ width, height }) => Math.min(width, height) < 23.9).length"""
"""How many buttons of a tour are smaller than 24 pixels."""

BY_MOUSE = {
    "A picture in patches": lambda page: click_patch(page, 7, 6),
    "Before the first block": lambda page: slide(page, 0),
    "Where the fish appears": lambda page: slide(page, 9),
    "What every patch knows": lambda page: slide(page, 16),
    "What the others say": lambda page: page.select_option(".csw-heatmap [aria-label=Reading]", "top1"),
    "Which head brings it?": lambda page: page.click("[role=gridcell][aria-label^='block 8 head 0']"),
    "Mark the fish": lambda page: drag(page, (6, 2), (10, 8)),
    "Take it away": lambda page: page.click(APPLY),
    "Before and after": lambda page: page.check("[aria-label=Pass] input[value=difference]"),
}
"""What a hand does at each step of the first tour."""


def test_the_first_tour_is_finished_with_the_mouse(fish, offline):
    watched = offline(fish)
    page = started(watched, "makes-up-its-mind")
    tour = read_tour("makes-up-its-mind")
    for number, step in enumerate(tour.steps, 1):
        page.wait_for_selector(f"{CARD} h3:text-is({step.title!r})".replace("'", '"'))
        assert page.inner_text(f"{CARD} h3 + p") == plain(step.text)
        if step.until:
            page.wait_for_timeout(150)
            assert page.locator(DONE).count() == 0, f"{step.title} was done before it began"
            assert page.inner_text(NEXT) == "Skip"
            BY_MOUSE[step.title](page)
            page.wait_for_selector(DONE, timeout=WAIT)
            assert page.inner_text(DONE) == f"✓ {plain(step.done)}"
        # The control that the step is about is there, framed, and described by its words.
        described = page.get_attribute(".csw-tour-target", "aria-describedby") or ""
        assert page.get_attribute(f"{CARD} h3 + p", "id") in described.split()
        if number in (1, 8):
            watched.shot(f"tour_{number}")
        assert page.inner_text(NEXT) == ("Finish" if step is tour.steps[-1] else "Next")
        page.click(NEXT)
    assert page.locator(CARD).count() == 0
    assert page.locator(".csw-tour-target").count() == 0
    page.wait_for_selector(".csw-tour-offer button:focus")
    assert only_the_file(watched), watched.requests
    assert watched.errors == []


def tab_to(page, selector: str, most: int = 60) -> None:
    """Press Tab until the focus is there."""
    for _ in range(most):
        if page.evaluate("(s) => document.activeElement?.matches(s)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{most} times Tab do not lead to {selector}")


def press(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def choose(page, value: str, of: str = ACTION) -> None:
    """Choose of a select with the arrow keys."""
    tab_to(page, of)
    page.keyboard.press("Home")
    for _ in range(30):
        if page.input_value(of) == value:
            return
        page.keyboard.press("ArrowDown")
    raise AssertionError(f"the arrow keys do not lead to {value}")


def apply(page) -> None:
    page.wait_for_selector(f"{APPLY}:not(:disabled)", timeout=WAIT)
    tab_to(page, APPLY)
    page.keyboard.press("Enter")


def patch_7_6(page) -> None:
    tab_to(page, PICTURE)
    press(page, "Control+Home", *["ArrowDown"] * 6, *["ArrowRight"] * 5, "Enter")


def head_7_0(page) -> None:
    tab_to(page, "[role=gridcell]")
    press(page, "Control+Home", *["ArrowRight"] * 6, "Enter")


def intervene(action: str):
    def act(page) -> None:
        choose(page, action)
        apply(page)

    return act


BY_KEYBOARD = {
    "Ask the patch": patch_7_6,
    "Ask what it sends": head_7_0,
    "Ask where the answer looks": lambda page: choose(page, "attention", ".csw-heatmap [aria-label=Reading]"),
    "Take it away": apply,
    "Take the head away": intervene("head"),
    "Take all of it away": intervene("remove"),
    "Keep nothing else": intervene("keep"),
}


def test_the_second_tour_is_finished_with_the_keyboard(fish, offline):
    watched = offline(fish)
    page = watched.page
    page.wait_for_selector("text=runs in this page", timeout=WAIT)
    tour = read_tour("four-ways")
    tab_to(page, f".csw-tour-offer button:nth-of-type({BUNDLED.index(tour.name) + 1})")
    page.keyboard.press("Enter")
    for step in tour.steps:
        # The focus goes along to the title of the card, from which Tab leads to the control; the outcome is said.
        page.wait_for_selector(f'{CARD} h3:focus:text-is("{step.title}")')
        if step.until:
            BY_KEYBOARD[step.title](page)
            page.wait_for_selector(DONE, timeout=WAIT)
            assert page.get_attribute(DONE, "role") == "status"
            assert page.inner_text(DONE) == f"✓ {plain(step.done)}"
        page.focus(NEXT)
        page.keyboard.press("Enter")
    assert page.locator(CARD).count() == 0
    page.wait_for_selector(".csw-tour-offer button:focus")
    assert only_the_file(watched), watched.requests
    assert watched.errors == []


def test_the_step_stands_in_the_address(fish, offline):
    watched = offline(fish)
    page = started(watched, "four-ways")
    page.click(NEXT)
    page.wait_for_function("() => location.hash.includes('tour=four-ways&step=2')")
    page.reload()
    page.wait_for_selector(f"{CARD} >> text=Step 2 of 8")
    # A link to a step alone begins it as it would begin after the one before it.
    page.goto(f"{fish.resolve().as_uri()}#tour=four-ways&step=6")
    page.reload()
    page.wait_for_selector(f"{CARD} >> text=Step 6 of 8")
    page.wait_for_selector("text=24 patches")
    # Escape ends it, wherever in the card the focus is.
    page.focus(NEXT)
    page.keyboard.press("Escape")
    page.wait_for_selector(".csw-tour-offer:not([hidden])")
    page.wait_for_function("() => !location.hash.includes('tour')")
    assert watched.errors == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_in_a_tour(fish, dark, width, offline):
    watched = offline(fish, dark=dark, width=width, height=844)
    page = started(watched, "makes-up-its-mind")
    for step in (1, 2, 8, 10):
        page.evaluate("(step) => { location.hash = `#tour=makes-up-its-mind&step=${step}`; }", step)
        page.wait_for_selector(f"{CARD} >> text=/Step {step} of/")
        if step == 2:
            slide(page, 0)
            page.wait_for_selector(DONE)
        page.wait_for_timeout(300)
        assert complaints(page, "html") == []
        assert page.evaluate(SMALL) == 0
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
        # Card and control fit a phone's screen together.
        shown = [page.locator(s).bounding_box() for s in (CARD, ".csw-tour-target")]
        assert max(box["y"] + box["height"] for box in shown) - min(box["y"] for box in shown) < 844
        watched.shot(f"tour_{width}_{'dark' if dark else 'light'}_{step}")


def test_a_tour_in_jupyterlab(notebook):
    nb = notebook(
        [
            "from classspace_widgets import ClassSpace, Explorer\n"
            "from classspace_widgets.scenes import gallery\n"
            "scene = gallery()[0]\n"
            "trace = ClassSpace.bundled(device='cpu').trace(scene.picture, attention=True, heads=True)\n"
            "explorer = Explorer(trace.snapshot(**scene.annotations), tour='makes-up-its-mind')\n"
            "explorer",
            "print('at step', explorer.session.tour_step, explorer.session.open_tour)",
        ],
        height=1500,
    )
    nb.run_all()
    page = nb.page
    page.click(".csw-tour-offer button", timeout=30_000)
    page.wait_for_selector(f"{CARD} h3:focus")
    click_patch(page, 7, 6)
    page.wait_for_selector(DONE)
    page.click(NEXT)
    page.wait_for_selector(f"{CARD} >> text=/Step 2 of/")
    page.focus(SLIDER)
    page.keyboard.press("Home")
    page.wait_for_selector(DONE)
    for _ in range(6):
        page.click(NEXT)
    page.click(APPLY)
    page.wait_for_selector(DONE, timeout=WAIT)
    assert "key" in page.inner_text(DONE)
    nb.watched.shot("tour_lab")
    # The kernel knows where the reader is.
    page.click(".jp-CodeCell >> nth=1")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("text=at step 8 makes-up-its-mind", timeout=30_000)
    assert not [error for error in nb.watched.errors if re.search("csw|classspace|tour", error)]
