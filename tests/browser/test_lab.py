"""The widgets in a real JupyterLab, used as a person would: mouse, keyboard, kernel menu."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
ARTEFACTS = Path(os.environ.get("CLASSSPACE_ARTEFACTS", TESTS.parent / "artifacts"))
SETUP = f"""
import sys; sys.path.insert(0, {str(TESTS)!r})
import logging; logging.disable()
from PIL import Image
import numpy as np
from tiny_models import tiny_vit
from classspace_widgets import Explorer, LayerSlider, PatchHeatmap, Session, link
rng = np.random.default_rng(0)
space = tiny_vit()
space.class_names = ("fish", "boat", "cactus", "<img src=x onerror=window.broken=1>", "snowman", "rocket", "key")
picture = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
trace = space.trace(picture, attention=True, heads=True)
"""
SLIDER = ".jp-OutputArea .csw-slider input.csw-range"
MAP = ".jp-OutputArea .csw-picture:not([hidden]) canvas"


def pixels(page, selector=MAP):
    """A fingerprint of what a canvas shows."""
    return page.evaluate("s => document.querySelector(s).toDataURL()", selector)


def run_cell(nb, index: int, expect: str) -> None:
    """Run one more cell with the mouse and the keyboard, and wait for what it prints."""
    page = nb.page
    press_run(nb, index)
    page.wait_for_selector(f".jp-OutputArea-output pre:has-text('{expect}')", timeout=30_000)


def press_run(nb, index: int) -> None:
    """Click into a cell's editor and run it, once the editor has the keyboard."""
    # A click scrolls there by itself, and once more where the notebook draws its cells anew meanwhile.
    cell = nb.page.locator(".jp-Notebook .jp-CodeCell").nth(index)
    cell.locator(".cm-content").click()
    cell.locator(".cm-editor.cm-focused").wait_for(timeout=30_000)
    nb.page.keyboard.press("Control+Enter")


def test_slider_map_classes_and_tokens_follow_the_hand(notebook):
    nb = notebook(
        [
            SETUP,
            "explorer = Explorer(trace, class_name='boat'); explorer",
            "s = explorer.session; print('STATE', s.block, s.sublayer, s.class_name, s.tokens)",
        ]
    )
    nb.run_all()
    page = nb.page
    page.wait_for_selector(SLIDER, timeout=30_000).scroll_into_view_if_needed()
    before = pixels(page)
    # The keyboard, also while the notebook is in command mode.
    page.focus(SLIDER)
    said = page.get_attribute(SLIDER, "aria-valuetext")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "a => document.querySelector(a[0]).getAttribute('aria-valuetext') !== a[1]", arg=[SLIDER, said]
    )
    # The mouse: to the embedding, and the map changes with it.
    box = page.locator(SLIDER).bounding_box()
    page.mouse.move(box["x"] + box["width"] - 30, box["y"] + box["height"] / 2)
    page.mouse.down()
    for i in range(30):
        page.mouse.move(box["x"] + box["width"] * (1 - i / 29), box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + 2, box["y"] + box["height"] / 2)
    page.mouse.up()
    page.wait_for_function(
        "s => document.querySelector(s).getAttribute('aria-valuetext').startsWith('embedding')", arg=SLIDER
    )
    page.wait_for_function("a => document.querySelector(a[0]).toDataURL() !== a[1]", arg=[MAP, before])
    # Search a class by keyboard.
    combobox = page.locator(".jp-OutputArea input[role=combobox]").first
    combobox.click()
    page.keyboard.press("Control+a")
    page.keyboard.type("cac")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.jp-OutputArea input[role=combobox]').value === 'cactus'")
    # Select two patches.
    area = page.locator(MAP).bounding_box()
    page.mouse.click(area["x"] + area["width"] * 0.1, area["y"] + area["height"] * 0.1)
    page.keyboard.down("Shift")
    page.mouse.click(area["x"] + area["width"] * 0.9, area["y"] + area["height"] * 0.1)
    page.keyboard.up("Shift")
    nb.watched.shot("lab_explorer")
    run_cell(nb, 2, "STATE 0 embedding cactus [1, 4]")
    # A class name that is HTML is text.
    assert page.evaluate("window.broken") is None
    assert page.locator(".jp-OutputArea :text('<img src=x')").count() > 0
    assert nb.watched.errors == []


def test_views_of_one_session_and_linked_sessions_move_together(notebook):
    nb = notebook(
        [
            SETUP
            + "s = Session(trace, class_name='boat'); other = Session(trace, class_name='fish')\nmade = link(s, other, 'block', 'sublayer')",
            "LayerSlider(s)",
            "LayerSlider(s)",
            "LayerSlider(other)",
            "print('LINKED', other.block, other.sublayer)",
        ]
    )
    nb.run_all()
    page = nb.page
    page.wait_for_function("s => document.querySelectorAll(s).length === 3", arg=SLIDER, timeout=30_000)
    page.locator(SLIDER).first.focus()
    page.keyboard.press("Home")
    page.wait_for_function("s => [...document.querySelectorAll(s)].every(e => e.value === '0')", arg=SLIDER)
    page.keyboard.press("ArrowRight")
    page.wait_for_function("s => [...document.querySelectorAll(s)].every(e => e.value === '1')", arg=SLIDER)
    run_cell(nb, 4, "LINKED 1 attention")
    assert nb.watched.errors == []


def test_the_choices_of_two_sessions_are_their_own(notebook):
    nb = notebook([SETUP, "Explorer(trace, reading='logit')", "Explorer(trace, contribution='step')"], height=2400)
    nb.run_all()
    page = nb.page
    page.wait_for_function("s => document.querySelectorAll(s).length === 2", arg=SLIDER, timeout=30_000)
    groups = page.locator(".jp-OutputArea .csw-segments")
    assert groups.count() > 8
    assert groups.evaluate_all("g => g.map(e => e.querySelectorAll('input:checked').length)") == [1] * groups.count()
    ids = page.locator(".jp-OutputArea [id]").evaluate_all("e => e.map(n => n.id)")
    assert len(ids) == len(set(ids))


def test_views_in_a_row_and_a_number_of_ipywidgets_that_moves_them(notebook):
    nb = notebook(
        [
            SETUP + "import ipywidgets\ns = Session(trace, class_name='boat')",
            "fixed = PatchHeatmap(s); fixed.layout.width = '300px'\n"
            "ipywidgets.HBox([LayerSlider(s), PatchHeatmap(s), fixed])",
            "number = ipywidgets.IntSlider(max=3); ipywidgets.jslink((number, 'value'), (s, 'block')); number",
            "print('STATE', s.block, s.sublayer)",
        ]
    )
    nb.run_all()
    page = nb.page
    slider = page.wait_for_selector(SLIDER, timeout=30_000)
    wide = "() => [...document.querySelectorAll('.widget-hbox .csw')].map(e => Math.round(e.clientWidth))"
    first, second, fixed = page.evaluate(wide)
    assert first == second > 200
    assert fixed == 300
    # At the embedding, only the block is set from outside: the view follows, and so does the kernel.
    page.wait_for_selector(f"{SLIDER}[aria-valuetext^=embedding]")
    page.locator(".jp-OutputArea .noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(f"{SLIDER}[aria-valuetext^='block 1 MLP']")
    run_cell(nb, 3, "STATE 1 mlp")
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_selector(".jp-OutputArea .noUi-handle[aria-valuenow='0.0']")
    assert nb.watched.errors == []


def test_an_interrupt_of_the_kernel_ends_an_intervention(notebook):
    slow = """
import time
from classspace_widgets.snapshot.source import Progress
source = explorer.snapshot.source
def forever(_request):
    yield Progress(0.1, "running the model")
    for _ in range(800): time.sleep(0.05)
quick, source._whatif = source._whatif, forever
"""
    nb = notebook(
        [
            SETUP,
            "explorer = Explorer(trace, class_name='boat'); explorer",
            slow,
            "source._whatif = quick; print('QUICK')",
        ],
        height=1500,
    )
    nb.run_all()
    page = nb.page
    page.wait_for_selector(SLIDER, timeout=30_000)
    run_cell(nb, 3, "QUICK")
    press_run(nb, 2)
    panel = page.locator(".jp-OutputArea .csw-whatif")
    panel.locator("select[aria-label=Intervention]").select_option("self_only")
    apply = panel.locator("button:has-text('Apply')")
    apply.click()
    panel.locator(".csw-note", has_text="Running the model").wait_for()
    page.wait_for_selector(".jp-OutputArea .csw-status :text('running the model')")
    page.click("text=Kernel >> nth=0")
    page.click(".lm-Menu-itemLabel:text-is('Interrupt Kernel')")
    panel.locator(".csw-failed", has_text="interrupted").wait_for(timeout=20_000)
    nb.watched.shot("lab_interrupted")
    press_run(nb, 3)
    apply.click()
    panel.locator(".csw-steps li").wait_for(timeout=20_000)


def test_the_view_outlives_its_kernel(notebook):
    nb = notebook([SETUP, "Explorer(trace, class_name='boat')"])
    nb.run_all()
    page = nb.page
    page.wait_for_selector(SLIDER, timeout=30_000)
    page.click("text=Kernel >> nth=0")
    page.click("text=Shut Down Kernel")
    page.wait_for_selector(".jp-OutputArea .csw-explorer :text-matches('kernel', 'i')", timeout=30_000)
    page.focus(SLIDER)
    page.keyboard.press("Home")
    page.wait_for_function(
        "s => document.querySelector(s).getAttribute('aria-valuetext').startsWith('embedding')", arg=SLIDER
    )
    nb.watched.shot("lab_without_kernel")


def test_an_error_in_the_kernel_is_shown_and_the_view_stays_usable(notebook):
    broken = "def fail(*_, **__): raise MemoryError('no room for this picture')\nexplorer.snapshot.source.show = fail"
    nb = notebook([SETUP, "explorer = Explorer(trace, class_name='boat')\n" + broken + "\nexplorer"])
    nb.run_all()
    page = nb.page
    page.wait_for_selector(SLIDER, timeout=30_000)
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), "teal").save(buffer, "PNG")
    page.set_input_files(
        ".jp-OutputArea input[type=file]", {"name": "x.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    )
    page.wait_for_selector(".jp-OutputArea .csw-explorer :text('no room for this picture')", timeout=20_000)
    nb.watched.shot("lab_error")
    page.focus(SLIDER)
    page.keyboard.press("Home")
    page.wait_for_function(
        "s => document.querySelector(s).getAttribute('aria-valuetext').startsWith('embedding')", arg=SLIDER
    )


def test_a_new_picture_from_the_notebook(notebook):
    nb = notebook([SETUP, "explorer = Explorer(trace, class_name='boat'); explorer", "print('SHOWN', explorer.image)"])
    nb.run_all()
    page = nb.page
    page.wait_for_selector(SLIDER, timeout=30_000)
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 40), "crimson").save(buffer, "PNG")
    page.set_input_files(
        ".jp-OutputArea input[type=file]", {"name": "red.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    )
    page.wait_for_selector(".jp-OutputArea .csw-explorer :text('red.png')", timeout=20_000)
    run_cell(nb, 2, "SHOWN red.png")
    assert nb.watched.errors == []


PHOTO = """
ramp = np.zeros((200, 300, 3), np.uint8)
ramp[..., 0] = np.linspace(0, 255, 300)
explorer = Explorer(space.trace(Image.fromarray(ramp), attention=True, heads=True), class_name='boat')
explorer
"""


def test_another_part_of_the_photograph_by_mouse_and_by_keyboard(notebook):
    part = "print('PART', [round(c, 2) for c in explorer.session.snapshot.meta['image']['photo']['crop']])"
    nb = notebook([SETUP, PHOTO, part])
    nb.run_all()
    page = nb.page
    page.wait_for_selector(SLIDER, timeout=30_000)
    run_cell(nb, 2, "PART [0.2, 0.06, 0.8, 0.94]")
    page.locator(".jp-OutputArea").get_by_role("button", name="Crop…").click()
    board = page.locator(".csw-photo")
    board.wait_for()
    page.locator(".csw-photo img").evaluate("img => img.decode()")
    box = board.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"], box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    board.focus()
    for _ in range(4):
        page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(ARTEFACTS / "crop.png"))
    page.get_by_role("button", name="Show this part").click()
    # Against the right edge at first (0.59 wide), then 10 ** -0.2 of it around the same place, and 0.02 to the left.
    run_cell(nb, 2, "PART [0.5, 0.22, 0.87, 0.78]")
    page.locator(".jp-OutputArea").get_by_role("button", name="Crop…").click()
    board.hover()
    page.mouse.wheel(0, -100)
    page.mouse.wheel(0, -100)
    page.get_by_role("button", name="Show this part").click()
    # Two notches nearer: 10 ** -0.1 of the width, around the same place.
    run_cell(nb, 2, "PART [0.54, 0.28, 0.83, 0.72]")
    page.locator(".jp-OutputArea").get_by_role("button", name="Crop…").click()
    page.get_by_role("slider", name="Zoom").fill("0")
    page.get_by_role("button", name="Show this part").click()
    # As far as the photograph goes: all of its height.
    run_cell(nb, 2, "PART [0.33, 0.0, 1.0, 1.0]")
    page.locator(".jp-OutputArea").get_by_role("button", name="Crop…").click()
    page.keyboard.press("Escape")
    board.wait_for(state="detached")
    assert nb.watched.errors == []


@pytest.mark.parametrize("width", [420, 1280])
def test_light_and_dark(notebook, width):
    nb = notebook([SETUP, "Explorer(trace, class_name='boat')"], width=width)
    nb.run_all()
    page = nb.page
    page.wait_for_selector(SLIDER, timeout=30_000)

    def background() -> str:
        return page.evaluate("() => getComputedStyle(document.querySelector('.csw-explorer')).color")

    # JupyterLab has corners of its own for buttons.
    corners = (
        "() => ['.csw-prediction', '.csw-token'].map(s => getComputedStyle(document.querySelector(s)).borderRadius)"
    )
    assert page.evaluate(corners) == ["6px", "12px"]
    light = background()
    assert page.evaluate((TESTS / "browser" / "contrast.js").read_text().split("\n", 1)[1], 4.5) == []
    page.evaluate(
        "() => { document.body.dataset.jpThemeLight = 'false'; document.body.dataset.jpThemeName = 'JupyterLab Dark';"
        " document.documentElement.style.setProperty('--jp-layout-color0', '#111');"
        " document.documentElement.style.setProperty('--jp-ui-font-color1', '#eee'); document.body.style.background = '#111'; }"
    )
    page.wait_for_function(
        "before => getComputedStyle(document.querySelector('.csw-explorer')).color !== before", arg=light
    )
    nb.watched.shot(f"lab_dark_{width}")


def test_a_saved_notebook_shows_the_working_view_without_a_kernel(notebook, lab, browser):
    nb = notebook([SETUP, "Explorer(trace, class_name='boat')"], name="saved.ipynb")
    nb.run_all()
    page = nb.page
    page.wait_for_selector(SLIDER, timeout=30_000)
    page.wait_for_selector(".csw-saved", state="attached")
    assert not page.locator(".csw-saved").is_visible()
    page.keyboard.press("Control+s")
    page.wait_for_timeout(1500)
    page.click("text=Kernel >> nth=0")
    page.click("text=Shut Down Kernel")
    page.close()
    # Opened again, and no kernel started.
    address, _ = lab
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    again = context.new_page()
    again.goto(f"{address}/lab/workspaces/again/tree/saved.ipynb?reset")
    again.wait_for_selector(".csw-saved iframe", timeout=60_000)
    if again.query_selector(".jp-Dialog"):
        again.click(".jp-Dialog button:has-text('No Kernel')")
    again.locator(".csw-saved iframe").scroll_into_view_if_needed()
    frame = again.frame_locator(".csw-saved iframe")
    frame.locator(".csw-slider input.csw-range").focus(timeout=30_000)
    again.keyboard.press("Home")
    frame.locator(".csw-slider input[aria-valuetext^=embedding]").wait_for(timeout=10_000)
    again.screenshot(path=str(ARTEFACTS / "lab_reopened.png"))
    assert not again.locator("text=model not found").is_visible()
    context.close()


def test_a_pin_from_python_is_chosen_by_its_name(notebook):
    nb = notebook(
        [
            SETUP + "from classspace_widgets.interventions import RemoveTokens\n"
            "corner = np.zeros((32, 32), bool); corner[:16, :16] = True",
            "Explorer(trace, class_name='boat', pins={'no corner': RemoveTokens(mask=corner)})",
        ],
        height=1500,
    )
    nb.run_all()
    page = nb.page
    page.wait_for_selector(SLIDER, timeout=30_000)
    panel = page.locator(".jp-OutputArea .csw-whatif")
    chooser = panel.locator("select[aria-label='Pinned interventions']")
    chooser.select_option(label="no corner")
    panel.locator(".csw-steps li").wait_for(timeout=20_000)
    assert panel.locator(".csw-steps li").all_inner_texts() == ["no corner ✕"]
    assert page.locator(".jp-OutputArea .csw-doing").inner_text().strip() == "no corner"
    assert chooser.evaluate("s => s.selectedOptions[0].text") == "no corner"
    panel.locator("button:text-is('Unpin')").wait_for()
    assert nb.watched.errors == []


def test_what_if_is_painted_applied_and_undone(notebook):
    nb = notebook(
        [
            SETUP,
            "few = trace.snapshot(payload='classes', classes=['boat'])\n"
            "explorer = Explorer(few, class_name='boat', block=2, sublayer='mlp'); explorer",
            "print('INTERVENED', len(explorer.session._intervened) > 0, explorer.session.shown)",
            "print('PINS', *[type(i).__name__ for steps in explorer.pins.values() for i in steps])",
            "s = explorer.session; s.tokens, s.class_name = [], 'key'; print('SHOWN', s.shown)",
        ],
        height=1500,
    )
    nb.run_all()
    page = nb.page
    page.wait_for_selector(SLIDER, timeout=30_000)
    before = pixels(page)
    area = page.locator(MAP).bounding_box()
    # Paint the upper left quarter.
    page.mouse.move(area["x"] + 5, area["y"] + 5)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.45, area["y"] + area["height"] * 0.45, steps=5)
    page.mouse.up()
    panel = page.locator(".jp-OutputArea .csw-whatif")
    panel.scroll_into_view_if_needed()
    panel.locator("select[aria-label=Intervention]").select_option("remove")
    page.wait_for_timeout(300)
    controls = (TESTS / "browser" / "positions.js").read_text().split("\n", 1)[1]
    stood = page.evaluate(controls)
    panel.locator("button:has-text('Apply')").click()
    panel.locator(".csw-steps li").wait_for(timeout=20_000)
    panel.locator(".csw-outcome-row").first.wait_for(timeout=20_000)
    # What a hand may be on has not moved.
    page.wait_for_timeout(300)
    stands = page.evaluate(controls)
    assert {k: (stood[k], stands[k]) for k in stood if k in stands and stood[k] != stands[k]} == {}
    assert len(stood) > 25
    page.wait_for_function("a => document.querySelector(a[0]).toDataURL() !== a[1]", arg=[MAP, before])
    nb.watched.shot("lab_whatif")
    run_cell(nb, 2, "INTERVENED True")
    panel.locator("button:text-is('Pin')").click()
    panel.locator("button:text-is('Unpin')").wait_for()
    run_cell(nb, 3, "PINS RemoveTokens")
    after = pixels(page)
    undo = panel.locator("button:has-text('Undo')")
    undo.click()
    page.wait_for_function("() => document.querySelectorAll('.jp-OutputArea .csw-steps li').length === 0")
    page.wait_for_function("a => document.querySelector(a[0]).toDataURL() !== a[1]", arg=[MAP, after])
    # The same once more, and then from the pins: it shows again, though nothing about it is new.
    panel.locator("button:has-text('Apply')").click()
    page.wait_for_function("a => document.querySelector(a[0]).toDataURL() === a[1]", arg=[MAP, after])
    undo.click()
    page.wait_for_function("a => document.querySelector(a[0]).toDataURL() !== a[1]", arg=[MAP, after])
    panel.locator("select[aria-label='Pinned interventions']").select_option(index=1)
    page.wait_for_function("a => document.querySelector(a[0]).toDataURL() === a[1]", arg=[MAP, after])
    # A class that neither pass was read for: both are, while the intervened one is shown.
    run_cell(nb, 4, "SHOWN intervened")
    page.wait_for_function(
        "() => /^key: rank [0-9]/.test(document.querySelector('.jp-OutputArea .csw-slider-value').textContent)"
    )
    assert nb.watched.errors == []


def test_importance_by_method_block_and_head_and_two_classes_side_by_side(notebook):
    nb = notebook(
        [
            SETUP,
            "explorer = Explorer(trace, class_name='boat'); explorer",
            "s = explorer.session; print('STATE', s.reading, s.importance, s.importance_of, s.side_by_side)",
        ],
        height=1500,
    )
    nb.run_all()
    page = nb.page
    page.wait_for_selector(SLIDER, timeout=30_000)
    heatmap = page.locator(".jp-OutputArea .csw-heatmap")
    title = heatmap.locator(".csw-map-title span").first
    before = pixels(page)
    heatmap.locator("select[aria-label=Reading]").select_option("importance")
    title.filter(has_text="importance for boat").wait_for(timeout=20_000)
    page.wait_for_function("a => document.querySelector(a[0]).toDataURL() !== a[1]", arg=[MAP, before])
    seen = {pixels(page)}

    def changed() -> None:
        page.wait_for_function("a => !a[1].includes(document.querySelector(a[0]).toDataURL())", arg=[MAP, list(seen)])
        seen.add(pixels(page))

    # Through one block: the slider goes on without a question to the kernel.
    heatmap.locator("select[aria-label=Through]").select_option("block")
    title.filter(has_text="through block 3").wait_for()
    changed()
    page.focus(SLIDER)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    title.filter(has_text="through block 2").wait_for()
    changed()
    # A head is chosen in the head grid: the map is of that head.
    page.locator(".jp-OutputArea .csw-heads [role=gridcell]").nth(4).click()
    title.filter(has_text="through head 1 of block 2").wait_for()
    changed()
    # A baseline that does not tell heads apart says so, and shows the whole.
    heatmap.locator("select[aria-label=Method]").select_option("rollout")
    heatmap.locator(".csw-curtain").first.filter(has_text="does not tell heads apart").wait_for(timeout=20_000)
    heatmap.locator("select[aria-label=Through]").select_option("all")
    title.filter(has_text="importance for boat").wait_for()
    changed()
    # Two classes side by side.
    heatmap.locator("select[aria-label=Method]").select_option("gradient")
    other = page.locator(".jp-OutputArea input[role=combobox]").nth(1)
    other.click()
    page.keyboard.type("cac")
    page.keyboard.press("Enter")
    title.filter(has_text="boat − cactus").wait_for(timeout=20_000)
    heatmap.locator("label:has-text('side by side') input").check()
    page.wait_for_function(
        "() => { const c = [...document.querySelectorAll('.jp-OutputArea .csw-pair figure:not(.csw-second) canvas')];"
        " return c.length === 2 && c[0].width === c[1].width && c[0].toDataURL() !== c[1].toDataURL(); }"
    )
    assert heatmap.locator("figcaption").all_inner_texts() == ["boat", "cactus"]
    nb.watched.shot("lab_importance")
    run_cell(nb, 2, "STATE importance gradient all True")
    assert nb.watched.errors == []


def test_memories_are_browsed_by_class_and_by_neuron(notebook):
    nb = notebook(
        [
            SETUP + "from study_helpers import Pictures\nfrom classspace_widgets import MemoryBrowser",
            "browser = MemoryBrowser(space, Pictures(12), class_name='boat', progress=False); browser",
            "print('AT', browser.class_name, browser.neuron)",
            "browser.class_name = 'key'; print('SET')",
        ]
    )
    nb.run_all()
    page = nb.page
    view = page.locator(".jp-OutputArea .csw-memories")
    view.wait_for(timeout=30_000)
    page.wait_for_function(
        "() => { const i = [...document.querySelectorAll('.csw-patches img')];"
        " return i.length === 8 && i.every(e => e.complete && e.naturalWidth === 32); }"
    )
    # Cells that ran after the view has set the class: the view followed.
    page.wait_for_function("() => document.querySelector('.csw-memories input[role=combobox]').value === 'key'")
    # Search by keyboard; the neurons are another class's now, and the first one is shown.
    combobox = view.locator("input[role=combobox]")
    combobox.click()
    page.keyboard.press("Control+a")
    page.keyboard.type("snow")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.csw-memories input[role=combobox]').value === 'snowman'")
    neurons = view.locator(".csw-memory-side .csw-list button")
    assert neurons.nth(0).get_attribute("aria-pressed") == "true"
    # Another neuron: with the arrow keys, and Enter.
    neurons.nth(0).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => document.querySelectorAll('.csw-memory-side .csw-list button')[1].getAttribute('aria-pressed') === 'true'"
    )
    named = neurons.nth(1).locator("span").first.inner_text()
    assert view.locator("h3").inner_text() == named
    # Straight to a place.
    view.locator("select[aria-label=Block]").select_option("2")
    view.locator("select[aria-label=Sublayer]").select_option("1")
    view.locator("input[aria-label=Neuron]").fill("47")
    page.keyboard.press("Tab")
    page.wait_for_function("() => document.querySelector('.csw-memories h3').textContent === 'block 2 MLP 47'")
    nb.watched.shot("lab_memories")
    run_cell(nb, 2, "AT snowman [2, 1, 47]")
    # A class of the neuron leads to that class.
    view.locator(".csw-memory-main .csw-list button[aria-pressed=false]").first.click()
    page.wait_for_function("() => document.querySelector('.csw-memories input[role=combobox]').value !== 'snowman'")
    assert page.evaluate("window.broken") is None
    assert nb.watched.errors == []


def alive(page, prototype: str) -> int:
    """How many objects of a kind the browser still holds after collecting garbage."""
    client = page.context.new_cdp_session(page)
    client.send("HeapProfiler.collectGarbage")
    kind = client.send("Runtime.evaluate", {"expression": prototype})["result"]["objectId"]
    found = client.send("Runtime.queryObjects", {"prototypeObjectId": kind})["objects"]["objectId"]
    counted = client.send(
        "Runtime.callFunctionOn",
        {"objectId": found, "functionDeclaration": "function() { return this.length }", "returnByValue": True},
    )
    client.detach()
    return counted["result"]["value"]


def test_fifty_explorers_opened_and_closed_leave_nothing_behind(notebook):
    # Each is closed once it is drawn, as by a hand. A widget that is closed while anywidget still loads its module
    # makes anywidget write an error to the console, so the browser sets the pace, not the kernel.
    cell = """
if opened: opened.pop().close()
opened.append(Explorer(trace, class_name="boat")); turn += 1; print("OPENED", turn, "."); opened[0]
"""
    nb = notebook([SETUP + "Explorer.saved_form = 'none'; opened, turn = [], 0; print('READY')", cell])
    page = nb.page

    def open_next(turn: int) -> None:
        run_cell(nb, 1, f"OPENED {turn} .")
        page.wait_for_function(
            "([label, canvas]) => [...document.querySelectorAll('.jp-OutputArea')].some("
            "area => area.textContent.includes(label) && area.querySelector(canvas))",
            arg=[f"OPENED {turn} .", ".csw-picture:not([hidden]) canvas"],
            timeout=30_000,
        )

    run_cell(nb, 0, "READY")
    for turn in range(1, 4):
        open_next(turn)
    page.wait_for_timeout(1500)
    before = alive(page, "HTMLCanvasElement.prototype")
    for turn in range(4, 54):
        open_next(turn)
    page.wait_for_timeout(2000)
    after = alive(page, "HTMLCanvasElement.prototype")
    # The last of each series is open; none of the other 49 may be there.
    assert after <= before + 4, (before, after)
    assert nb.watched.errors == []


def test_running_the_cell_again_gives_a_working_view(notebook):
    nb = notebook(
        [
            SETUP + "runs = 0",
            "explorer = Explorer(trace, class_name='boat'); runs += 1; print('RUN', runs); explorer",
            "print('AT', explorer.session.block)",
        ]
    )
    nb.run_all()
    page = nb.page
    page.wait_for_selector(SLIDER, timeout=30_000)
    run_cell(nb, 1, "RUN 2")
    page.wait_for_selector(SLIDER, timeout=30_000)
    assert page.locator(SLIDER).count() == 1
    page.focus(SLIDER)
    page.keyboard.press("Home")
    run_cell(nb, 2, "AT 0")
    assert nb.watched.errors == []


def test_the_view_outlives_a_restart_of_its_kernel(notebook):
    nb = notebook([SETUP, "Explorer(trace, class_name='boat')"])
    nb.run_all()
    page = nb.page
    page.wait_for_selector(SLIDER, timeout=30_000)
    page.click("text=Kernel >> nth=0")
    page.locator(".lm-Menu-itemLabel", has_text="Restart Kernel").first.click()
    page.click(".jp-Dialog button.jp-mod-accept")
    page.wait_for_selector(".jp-OutputArea .csw-explorer :text-matches('kernel', 'i')", timeout=30_000)
    page.focus(SLIDER)
    page.keyboard.press("Home")
    page.wait_for_selector(f"{SLIDER}[aria-valuetext^=embedding]")


APPLY = ".jp-OutputArea button:text-is('Apply')"


def remove_a_patch(page, where: str = ".jp-OutputArea") -> None:
    """Select a patch and remove it, and wait for the answer."""
    area = page.locator(f"{where} .csw-picture:not([hidden]) canvas").first.bounding_box()
    page.mouse.click(area["x"] + area["width"] * 0.1, area["y"] + area["height"] * 0.1)
    page.click(f"{where} button:text-is('Apply')")
    page.wait_for_selector(f"{where} .csw-steps li", timeout=60_000)


def test_a_live_explorer_goes_on_in_the_page_when_its_kernel_is_killed(notebook):
    """Not restarted by a menu: killed, as by the system when memory runs out."""
    nb = notebook(
        [
            SETUP,
            "explorer = Explorer(trace, class_name='boat', live=True); explorer",
            "from classspace_widgets.interventions import RemoveTokens, trace_with\n"
            "after = trace_with(space, trace, RemoveTokens([1])).output[0]\n"
            "print('AFTER', space.class_names[int(after.argmax())], f'{100 * float(after.softmax(0).max()):.0f}')",
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        ],
        height=1600,
    )
    page = nb.page
    for index in range(2):
        press_run(nb, index)
    page.wait_for_selector(SLIDER, timeout=60_000)
    press_run(nb, 2)
    said = page.wait_for_selector(".jp-OutputArea-output pre:has-text('AFTER')", timeout=60_000).inner_text().split()
    # The model has come when nothing is asked any more.
    page.wait_for_function("() => globalThis.classspaceEngine !== undefined", timeout=60_000)
    page.wait_for_timeout(1000)
    press_run(nb, 3)
    # JupyterLab says that it died, and starts another, which knows nothing of this session.
    page.wait_for_selector(".jp-Dialog:has-text('died')", timeout=60_000)
    page.click(".jp-Dialog button.jp-mod-accept")
    page.locator(".jp-OutputArea .csw-explorer").scroll_into_view_if_needed()
    remove_a_patch(page)
    page.wait_for_selector("text=The kernel is gone: the model runs in this page.", timeout=60_000)
    assert page.locator(".jp-OutputArea .csw-title p:has-text('runs in this page')").count() == 1
    chip = page.locator(".jp-OutputArea .csw-predicted button").first.inner_text()
    assert said[1] in chip
    assert f"{said[2]}" in chip
    nb.watched.shot("lab_live_after_kill")
    # Run again, the cell has a kernel again.
    press_run(nb, 0)
    press_run(nb, 1)
    page.wait_for_selector(".jp-OutputArea .csw-title p:not(:has-text('runs in this page'))", timeout=90_000)
    page.wait_for_selector(APPLY, timeout=60_000)
    assert page.locator("text=runs in this page").count() == 0


def test_a_live_explorer_answers_in_a_notebook_that_is_opened_without_a_kernel(notebook, lab, browser):
    nb = notebook([SETUP, "Explorer(trace, class_name='boat', live=True)"], name="kept_live.ipynb", height=1600)
    nb.run_all()
    page = nb.page
    page.wait_for_selector(SLIDER, timeout=60_000)
    page.keyboard.press("Control+s")
    page.wait_for_timeout(3000)
    page.click("text=Kernel >> nth=0")
    page.locator(".lm-Menu-itemLabel", has_text="Shut Down Kernel").first.click()
    page.wait_for_timeout(1000)
    if page.query_selector(".jp-Dialog"):
        page.click(".jp-Dialog button.jp-mod-accept")
    page.wait_for_timeout(1000)
    page.reload()
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
    frame = page.frame_locator(".csw-saved iframe")
    frame.locator("text=runs in this page").wait_for(timeout=90_000)
    frame.locator(".csw-picture:not([hidden]) canvas").first.click(position={"x": 10, "y": 10})
    frame.locator("button:text-is('Apply')").click()
    frame.locator(".csw-steps li").wait_for(timeout=60_000)
    nb.watched.shot("lab_saved_live")


def test_the_check_of_the_front_end_says_that_all_works(notebook):
    nb = notebook(
        [
            "from classspace_widgets import check_front_end\ncheck = check_front_end()\ncheck",
            "print('REPORTED', check.report.count('works'))",
        ]
    )
    nb.run_all()
    page = nb.page
    report = page.locator(".jp-OutputArea-output pre:has-text('browser: ')")
    report.wait_for(timeout=30_000)
    lines = dict(line.split(": ", 1) for line in report.inner_text().splitlines() if ": " in line)
    assert [name for name, said in lines.items() if said == "works"] == [
        "values that come with a view",
        "a value to the kernel and back",
        "a message with bytes to the kernel and back",
        "linked views",
    ]
    assert "data-jp-theme-light true" in lines["theme"]
    assert "no frame" in lines["page"]
    run_cell(nb, 1, "REPORTED 4")
    assert nb.watched.errors == []


def test_two_tabs_on_one_notebook_follow_one_another(notebook, lab, browser):
    nb = notebook([SETUP, "Explorer(trace, class_name='boat')"], name="shared.ipynb")
    nb.run_all()
    page = nb.page
    page.wait_for_selector(SLIDER, timeout=30_000)
    page.keyboard.press("Control+s")
    page.wait_for_timeout(1500)
    # Another person opens the same notebook, whose kernel is running.
    address, _ = lab
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    other = context.new_page()
    other.goto(f"{address}/lab/workspaces/other/tree/shared.ipynb?reset")
    other.wait_for_selector(SLIDER, timeout=90_000)
    page.focus(SLIDER)
    page.keyboard.press("Home")
    other.wait_for_selector(f"{SLIDER}[aria-valuetext^=embedding]", timeout=20_000)
    other.focus(SLIDER)
    other.keyboard.press("End")
    page.wait_for_selector(f"{SLIDER}[aria-valuetext^='block 3 MLP']", timeout=20_000)
    # An answer goes to the tab that asked, and its pass to both.
    for tab in (page, other):
        tab.locator(".jp-OutputArea .csw-whatif select[aria-label=Intervention]").select_option("self_only")
    other.locator(".jp-OutputArea .csw-whatif button:has-text('Apply')").click()
    other.locator(".jp-OutputArea .csw-whatif .csw-steps li").wait_for(timeout=30_000)
    page.locator(".jp-OutputArea .csw-explorer label:has-text('After')").first.wait_for(timeout=20_000)
    assert nb.watched.errors == []
    context.close()
