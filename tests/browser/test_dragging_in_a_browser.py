"""A state dragged from one patch onto another, in a real JupyterLab: with the mouse, with a finger, and with the keyboard alone."""

from __future__ import annotations

import pytest
from browser.test_lab import SETUP, run_cell

TWO = (
    SETUP
    + """
second = space.trace(Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)), attention=True, heads=True)
explorer = Explorer(trace, other=second, class_name='boat', block=2, sublayer='mlp')
def state():
    from classspace_widgets.interventions import trace_with
    (step,) = explorer.interventions
    expected = trace_with(space, trace, step, sources={'other': second}, attention=True, heads=True).output[0]
    from classspace_widgets.snapshot import Snapshot
    shown = Snapshot.unpack(explorer.session._intervened).arrays['output_logits']
    found = {**step.to_dict(), 'same': bool((shown == expected.numpy()).all())}
    return ' '.join(f'{name}={value}' for name, value in found.items() if name != 'type')
"""
)
OWN = ".jp-OutputArea figure:not(.csw-second) .csw-picture:not([hidden])"
SECOND = ".jp-OutputArea .csw-second .csw-picture"
STEPS = ".jp-OutputArea .csw-steps li"
SAID = ".jp-OutputArea .csw-panes > [aria-live]"


@pytest.fixture
def opened(notebook):
    nb = notebook([TWO, "explorer", "print('STATE', state(), explorer.session.shown)"], height=1400)
    nb.run_all()
    nb.page.wait_for_selector(f"{SECOND} canvas", timeout=30_000)
    # The script of what is opened by a click has come.
    nb.page.locator(SAID).wait_for(state="attached")
    nb.page.locator(OWN).scroll_into_view_if_needed()
    return nb


def middle(page, selector: str, row: int, column: int) -> tuple[float, float]:
    """The middle of a patch, of 4 rows and 4 columns."""
    box = page.locator(selector).bounding_box()
    return box["x"] + (column + 0.5) / 4 * box["width"], box["y"] + (row + 0.5) / 4 * box["height"]


def test_a_state_is_dragged_with_the_mouse(opened):
    page = opened.page
    page.mouse.move(*middle(page, SECOND, 1, 2))
    page.mouse.down()
    page.mouse.move(*middle(page, OWN, 3, 0), steps=8)
    page.locator(f"{OWN} .csw-target").wait_for()
    page.locator(".jp-OutputArea .csw-ghost").wait_for()
    opened.watched.shot("dragging")
    # Escape lets go; nothing was put.
    page.keyboard.press("Escape")
    page.locator(".jp-OutputArea .csw-ghost").wait_for(state="hidden")
    page.mouse.up()
    assert page.locator(STEPS).count() == 0
    page.mouse.move(*middle(page, SECOND, 1, 2))
    page.mouse.down()
    page.mouse.move(*middle(page, OWN, 3, 0), steps=8)
    page.mouse.up()
    page.wait_for_selector(STEPS)
    assert "patch 2, 3 of the second picture → patch 4, 1, after block 2" in page.locator(STEPS).inner_text()
    assert page.locator(".jp-OutputArea .csw-outcome .csw-label").all_inner_texts() == ["before", "after"]
    assert page.locator(".jp-OutputArea .csw-box:visible").count() == 0
    opened.watched.shot("dragged")
    run_cell(
        opened,
        2,
        "STATE target_block=2 tokens=[13] source=other source_token=7 same=True intervened",
    )
    assert opened.watched.errors == []


def test_a_state_is_carried_with_the_keyboard(opened):
    page = opened.page
    page.locator(SECOND).focus()
    page.keyboard.press("Control+Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("p")
    page.wait_for_function(
        "s => document.querySelector(s).textContent.startsWith('Picked up the state of patch 1, 2')", arg=SAID
    )
    assert page.evaluate("s => document.activeElement === document.querySelector(s)", OWN)
    page.keyboard.press("Escape")
    assert page.evaluate("s => document.activeElement === document.querySelector(s)", SECOND)
    page.keyboard.press("p")
    page.keyboard.press("Control+End")
    page.wait_for_function("s => document.querySelector(s).textContent === 'onto patch 4, 4'", arg=SAID)
    opened.watched.shot("carrying")
    page.keyboard.press("Enter")
    page.wait_for_selector(STEPS)
    page.wait_for_function("s => / before /.test(document.querySelector(s).textContent)", arg=SAID)
    run_cell(
        opened,
        2,
        "STATE target_block=2 tokens=[16] source=other source_token=2 same=True intervened",
    )
    assert opened.watched.errors == []


def test_within_a_picture_a_state_goes_on_to_later_blocks_only(opened):
    page = opened.page
    page.mouse.click(*middle(page, OWN, 0, 1))
    panel = page.locator(".jp-OutputArea .csw-whatif")
    panel.locator("select[aria-label=Intervention]").select_option("carry")
    panel.locator("select[aria-label='Taken after block']").select_option("3")
    grab = page.locator(f"{OWN} .csw-grab")
    assert grab.is_visible()

    def touch(kind: str, x: float, y: float) -> None:
        options = {"pointerId": 7, "pointerType": "touch", "clientX": x, "clientY": y, "bubbles": True, "button": 0}
        grab.dispatch_event(kind, options)

    def drag() -> None:
        page.evaluate("s => { document.querySelector(s).setPointerCapture = () => {}; }", f"{OWN} .csw-grab")
        touch("pointerdown", *middle(page, OWN, 0, 1))
        touch("pointermove", *middle(page, OWN, 2, 2))
        touch("pointerup", *middle(page, OWN, 2, 2))

    drag()
    page.wait_for_selector(".jp-OutputArea .csw-failed:has-text('after block 3 is not there yet after block 2')")
    assert page.locator(STEPS).count() == 0
    panel.locator("select[aria-label='Taken after block']").select_option("1")
    drag()
    page.wait_for_selector(STEPS)
    run_cell(
        opened,
        2,
        "STATE target_block=2 tokens=[11] source_block=1 source_token=2 same=True intervened",
    )
    assert opened.watched.errors == []
