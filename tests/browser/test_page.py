"""Exported pages over file://, with the network cut: everything works, and nothing is asked of anyone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from make_fixtures import synthetic
from PIL import Image
from tiny_models import tiny_vit

from classspace_widgets import Explorer
from classspace_widgets.export import Payload, export_html
from classspace_widgets.interventions import KnockOutAttention, RemoveTokens
from classspace_widgets.snapshot.container import byte_planes

SLIDER = ".csw-slider input.csw-range"
POSITIONS = (Path(__file__).parent / "positions.js").read_text().split("\n", 1)[1]


def noise(spread: float) -> Image.Image:
    """Grey noise, the same every time."""
    pixels = np.random.default_rng(0).normal(128, spread, (64, 64)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert("RGB")


@pytest.fixture(scope="module")
def trace():
    torch.manual_seed(0)
    space = tiny_vit(img_size=64)
    space.class_names = ("fish", "boat", "cactus", "<img src=x onerror=window.broken=1>", "snowman", "rocket", "key")
    return space.trace(noise(80), attention=True, heads=True)


def only_the_file(watched) -> bool:
    return all(url.startswith(("file:", "data:", "blob:")) for url in watched.requests)


@pytest.mark.parametrize("dark", [False, True])
def test_every_control_works_without_a_network(trace, tmp_path, offline, dark):
    out = export_html(["# A *page*", trace.snapshot(title="noise.png")], tmp_path / "page.html")
    watched = offline(out.path, dark=dark)
    page = watched.page
    page.wait_for_selector(SLIDER)
    before = page.evaluate("() => document.querySelector('.csw-picture:not([hidden]) canvas').toDataURL()")
    page.focus(SLIDER)
    page.keyboard.press("Home")
    page.wait_for_function(
        "() => document.querySelector('.csw-slider input').getAttribute('aria-valuetext').startsWith('embedding')"
    )
    page.wait_for_function(
        "b => document.querySelector('.csw-picture:not([hidden]) canvas').toDataURL() !== b", arg=before
    )
    page.locator("input[role=combobox]").first.click()
    page.keyboard.press("Control+a")
    page.keyboard.type("rocket")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('input[role=combobox]').value === 'rocket'")
    area = page.locator(".csw-picture:not([hidden]) canvas").bounding_box()
    page.mouse.click(area["x"] + area["width"] * 0.4, area["y"] + area["height"] * 0.4)
    page.wait_for_selector(".csw :text('patch 4, 4')")
    watched.shot(f"page_{'dark' if dark else 'light'}")
    assert page.evaluate("window.broken") is None
    assert only_the_file(watched), watched.requests
    assert watched.errors == []


def test_readings_in_the_page_are_the_models(trace, tmp_path, offline):
    out = export_html(trace.snapshot(), tmp_path / "page.html")
    page = offline(out.path).page
    page.wait_for_selector(SLIDER)
    page.focus(SLIDER)
    page.keyboard.press("End")
    best = int(trace.output[0].argmax())
    share = float(trace.output[0].softmax(-1)[best])
    page.wait_for_selector(f".csw-explorer :text('{trace.class_names[best]}')")
    page.wait_for_selector(f".csw-explorer :text('{share * 100:.1f} %')")


@pytest.mark.parametrize("mode", ["classes", "increments", "all"])
@pytest.mark.parametrize("width", [320, 1400])
def test_every_payload_mounts_at_every_width(mode, width, tmp_path, offline):
    out = export_html(synthetic(mode), tmp_path / "page.html")
    watched = offline(out.path, width=width)
    watched.page.wait_for_selector(SLIDER)
    watched.page.wait_for_timeout(300)
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
    watched.shot(f"page_{mode}_{width}")
    assert watched.errors == []


def test_pinned_what_if_states_can_be_chosen(trace, tmp_path, offline):
    pins = {"self only": KnockOutAttention("self_only"), "corner <b>gone</b>": RemoveTokens([1, 2, 3, 9, 10])}
    out = export_html(trace.snapshot(), tmp_path / "page.html", pins=pins)
    watched = offline(out.path)
    page = watched.page
    page.wait_for_selector(SLIDER)
    chooser = page.get_by_label("Pinned interventions")
    chooser.wait_for()  # its script comes later
    assert chooser.locator("option").all_text_contents() == list(pins)
    pixels = "() => document.querySelector('.csw-picture:not([hidden]) canvas').toDataURL()"
    seen = {page.evaluate(pixels)}
    for name in reversed(pins):
        before = page.evaluate(pixels)
        chooser.select_option(label=name)
        page.wait_for_function(
            "b => document.querySelector('.csw-picture:not([hidden]) canvas').toDataURL() !== b", arg=before
        )
        seen.add(page.evaluate(pixels))
    assert len(seen) == 3
    watched.shot("page_pinned")
    assert only_the_file(watched), watched.requests
    assert watched.errors == []


def test_what_is_shown_after_an_intervention_stays_in_its_place_at_every_width(trace, tmp_path, offline):
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[8:40, 8:40] = 1
    snapshot = trace.snapshot(mask=mask, label=1)
    pins = {"corner": RemoveTokens([1, 2])}
    out = export_html(Explorer(snapshot, head=(2, 1), reading="source"), tmp_path / "page.html", pins=pins)
    watched = offline(out.path)
    page = watched.page
    page.wait_for_selector(SLIDER)
    page.get_by_role("radiogroup", name="Pass").get_by_label("Change").check(force=True)  # once in the page
    page.wait_for_selector(".csw-map-title :text('change')")
    # It is of the same picture.
    assert "labelled boat" in page.locator(".csw-title").inner_text()
    assert page.locator(".csw-check:has-text('outline')").is_visible()
    reaching = """() => [...document.querySelectorAll('.csw-area')].flatMap(area => {
        const end = area.getBoundingClientRect().right + 1;
        return [...area.querySelectorAll('*')].filter(e => !e.closest('.csw-sr') && e.getBoundingClientRect().right > end)
            .map(e => `${area.dataset.area}: ${e.tagName} ${e.getAttribute('class')}`);
    })"""
    for width in (360, 700, 820, 1100, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(200)
        assert (width, page.evaluate(reaching)) == (width, [])
    assert watched.errors == []


@pytest.mark.parametrize("width", [400, 900, 1400])
def test_nothing_moves_while_the_slider_goes_through_the_depth(trace, width, tmp_path, offline):
    """What is said at some points only, such as that nothing reads the image tokens any more, has room of its own."""
    path = tmp_path / "page.html"
    export_html(trace.snapshot(), path)
    page = offline(path).page
    page.set_viewport_size({"width": width, "height": 900})
    slider = page.locator(SLIDER)
    slider.wait_for(timeout=20_000)
    page.wait_for_timeout(300)  # the views take up the width
    found, notes = set(), set()
    for position in range(int(slider.get_attribute("max")) + 1):
        slider.evaluate("(s, p) => { s.valueAsNumber = p; s.dispatchEvent(new Event('input')); }", position)
        page.wait_for_timeout(100)
        heights = "() => [...document.querySelectorAll('.csw-area')].map((a) => Math.round(a.offsetHeight)).join()"
        found.add(page.evaluate(heights))
        notes.add(page.locator(".csw-heatmap .csw-note").inner_text())
    assert len(notes) == 2
    assert len(found) == 1


def test_a_page_of_ranks_of_some_streams_says_what_it_lacks(trace, tmp_path, offline):
    classes = ["rocket", "fish"]
    out = export_html(
        trace.snapshot(),
        tmp_path / "page.html",
        classes=classes,
        payload=Payload(streams=["residual"], ranks_only=True),
    )
    watched = offline(out.path, width=1400)
    page = watched.page
    page.wait_for_selector(SLIDER)
    title = page.locator(".csw-map-title span").first
    title.filter(has_text="identifiability of rocket").wait_for()
    page.locator(".csw-bars :text('Only ranks and top classes are in this page')").wait_for()
    page.get_by_label("Reading", exact=True).first.select_option("logit")
    page.locator(".csw-curtain:has-text('choose identifiability, rank or top class')").first.wait_for()
    page.get_by_label("Reading", exact=True).first.select_option("rank")
    title.filter(has_text="rank of rocket").wait_for()
    rank = int(trace.ranks("residual", trace.n_blocks, classes="rocket")[0, 0, 0])
    page.focus(SLIDER)
    page.keyboard.press("End")
    page.locator(f"{SLIDER}[aria-valuetext*='rank of rocket {rank} of 7']").wait_for()
    watched.shot("page_ranks_only")
    assert only_the_file(watched), watched.requests
    assert watched.errors == []


def test_a_gallery_mounts_every_picture(tmp_path, offline):
    out = export_html([[synthetic("all"), synthetic("all", seed=1)], synthetic("classes")], tmp_path / "page.html")
    watched = offline(out.path)
    watched.page.wait_for_function("() => document.querySelectorAll('.csw-slider').length === 3")
    assert watched.errors == []


@pytest.mark.parametrize("damage", ["cut short", "newer"])
def test_a_damaged_or_newer_payload_is_named_in_the_page(tmp_path, offline, damage, monkeypatch):
    seen = []

    def damaged(container):
        seen.append(1)
        data = byte_planes(container)
        if len(seen) > 1:
            return data
        return data[:-600] if damage == "cut short" else data[:6] + (99).to_bytes(2, "little") + data[8:]

    monkeypatch.setattr("classspace_widgets.export.page.byte_planes", damaged)
    out = export_html([synthetic("all"), synthetic("all")], tmp_path / "page.html")
    page = offline(out.path).page
    page.wait_for_selector(f".csw-problem:has-text('{'damaged' if damage == 'cut short' else '99'}')")
    # The other view of the page is none the worse.
    page.wait_for_selector(SLIDER)


def test_a_damaged_pinned_state_costs_a_message_and_nothing_else(trace, tmp_path, offline, monkeypatch):
    seen = []

    def damaged(container):
        seen.append(1)
        return byte_planes(container)[: -600 if len(seen) == 2 else None]

    monkeypatch.setattr("classspace_widgets.export.page.byte_planes", damaged)
    pins = {"first": RemoveTokens([1]), "second": RemoveTokens([2])}
    out = export_html(trace.snapshot(), tmp_path / "page.html", pins=pins)
    watched = offline(out.path)
    page = watched.page
    page.wait_for_selector(".csw-status:has-text('Pinned state 1 of 2 cannot be shown: damaged')")
    assert page.locator(".csw-problem").count() == 0
    chooser = page.get_by_label("Pinned interventions")
    assert chooser.locator("option").all_text_contents() == ["pass 1 (damaged)", "second"]
    assert chooser.locator("option:disabled").count() == 1
    page.get_by_role("radiogroup", name="Pass").get_by_label("After").check(force=True)
    page.wait_for_function("() => location.hash === '#shown=intervened&pass=1'")
    page.reload()
    page.wait_for_selector(".csw-title:has-text('second')")
    page.get_by_role("button", name="dismiss").click()
    assert not page.locator(".csw-status").is_visible()
    assert watched.errors == []


def test_a_damaged_picture_costs_a_note_and_nothing_else(trace, tmp_path, offline):
    snapshot = trace.snapshot()
    damaged = {name: snapshot.arrays[name][::-1] for name in ("image", "photo")}
    broken = replace(snapshot, arrays={**snapshot.arrays, **damaged})
    out = export_html([Explorer(broken), Explorer(snapshot)], tmp_path / "page.html")
    watched = offline(out.path)
    page = watched.page
    page.wait_for_selector(".csw-mount >> nth=0 >> .csw-heatmap .csw-note:has-text('picture cannot be decoded')")
    assert not page.locator(".csw-status").first.is_visible()
    page.locator(".csw-mount >> nth=0").locator(SLIDER).focus()
    page.keyboard.press("Home")
    page.locator(f".csw-mount >> nth=0 >> {SLIDER}[aria-valuetext^='embedding']").wait_for()
    page.locator(".csw-mount >> nth=1").locator(SLIDER).wait_for()
    assert page.locator(".csw-mount >> nth=1").locator(".csw-heatmap .csw-note:has-text('decoded')").count() == 0
    assert watched.errors == []


def test_the_address_tells_the_state_and_a_link_sets_it(trace, tmp_path, offline):
    link = "[see](#class=rocket&block=1&sublayer=attention&tokens=5&pass=1&shown=difference)"
    pins = {"one": RemoveTokens([1]), "two": RemoveTokens([2])}
    out = export_html([link, trace.snapshot()], tmp_path / "page.html", pins=pins)
    watched = offline(out.path)
    page = watched.page
    page.wait_for_selector(SLIDER)
    assert "#" not in page.url
    page.get_by_role("link", name="see").click()
    page.locator(f"{SLIDER}[aria-valuetext^='block 1 attention'][aria-valuetext*='of rocket']").wait_for()
    page.focus(SLIDER)
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => location.hash === '#class=rocket&block=1&tokens=5&shown=difference&pass=1'")
    page.reload()
    page.locator(f"{SLIDER}[aria-valuetext^='block 1 MLP'][aria-valuetext*='of rocket']").wait_for()
    page.locator(".csw-token[aria-pressed=true]:has-text('patch'), .csw-top h3:has-text('patch 1, 5')").first.wait_for()
    page.wait_for_function(
        "() => document.querySelector('[aria-label=\"Pinned interventions\"]').selectedOptions[0].text === 'two'"
    )
    page.go_back()
    page.locator(f"{SLIDER}[aria-valuetext^='block 3 MLP']").wait_for()
    assert only_the_file(watched), watched.requests
    assert watched.errors == []


def test_dragging_over_a_curve_marks_no_text(trace, tmp_path, offline):
    out = export_html(trace.snapshot(), tmp_path / "page.html")
    page = offline(out.path, width=1400).page
    page.wait_for_selector(SLIDER)
    for curve in (".csw-spark", ".csw-trajectories > svg"):
        area = page.locator(curve).bounding_box()
        page.mouse.move(area["x"] + area["width"] * 0.9, area["y"] + 20)
        page.mouse.down()
        page.mouse.move(area["x"] - 20, area["y"] + 200, steps=5)
        page.locator(f"{SLIDER}[aria-valuetext^='embedding']").wait_for()
        assert page.evaluate("String(getSelection())") == ""
        page.mouse.up()


def test_paper_shows_the_live_view_in_light(trace, tmp_path, offline):
    out = export_html(trace.snapshot(), tmp_path / "page.html")
    page = offline(out.path, dark=True).page
    page.wait_for_selector(SLIDER)
    ink = "() => getComputedStyle(document.querySelector('.csw')).color"
    dark = page.evaluate(ink)
    page.emulate_media(media="print")
    assert page.evaluate(ink) == "rgb(29, 33, 39)" != dark
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".csw-explorer").is_visible()
    assert not page.locator("figure.still").is_visible()


def test_colours_that_are_data_stay_where_colours_are_forced(trace, tmp_path, browser):
    out = export_html(trace.snapshot(), tmp_path / "page.html")
    context = browser.new_context(forced_colors="active", offline=True)
    page = context.new_page()
    page.goto(out.path.as_uri())
    page.wait_for_selector(SLIDER)
    own = page.evaluate(
        """() => ['.csw-tick-mark.csw-is-attention', '.csw-tick-mark.csw-is-mlp', '.csw-bars .csw-chip.csw-is-mlp']
          .map((s) => getComputedStyle(document.querySelector(s)).backgroundColor)"""
    )
    assert own == ["rgb(15, 127, 143)", "rgb(195, 104, 10)", "rgb(195, 104, 10)"]
    frame = "() => getComputedStyle(document.querySelector('.csw-prediction[aria-pressed=true]')).outlineStyle"
    assert page.evaluate(frame) == "solid"
    context.close()


def test_a_browser_that_cannot_decompress_is_told_so(tmp_path, browser):
    out = export_html(synthetic("all"), tmp_path / "page.html")
    page = browser.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(out.path.as_uri())
    page.wait_for_selector(".csw-problem:has-text('too old')")
    # The still picture stands there as it does without scripts.
    assert page.locator("figure.still img").is_visible()
    page.close()


def test_without_scripts_a_still_picture_stands_there(tmp_path, browser):
    out = export_html(synthetic("all"), tmp_path / "page.html")
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(out.path.as_uri())
    assert page.locator("figure.still img").is_visible()
    assert page.locator("noscript").count() == 1
    context.close()


@pytest.mark.parametrize("where", ["page", "frame"])
def test_figures_are_drawn_in_pages_and_in_frames(where, tmp_path, offline):
    from bokeh.layouts import column
    from bokeh.models import Div
    from bokeh.plotting import figure

    from classspace_widgets.plots import show_figure

    plot = figure(width=300, height=200, x_range=["a", "</script>"])
    plot.vbar(["a", "</script>"], 0.5, [1, 2])
    plotted = column(Div(text="<h3>a heading</h3>"), plot)
    path = tmp_path / "page.html"
    if where == "page":
        export_html([synthetic("all"), plotted], path)
    else:
        path.write_text(f"<!doctype html>{show_figure(plotted)._repr_html_()}")
    watched = offline(path)
    if where == "frame":  # which covers what is said where it is taken out
        words = watched.page.locator("p:has-text('trust this notebook')").bounding_box()
        covering = watched.page.locator("iframe").bounding_box()
        assert words["y"] >= covering["y"] - 0.5
        assert words["y"] + words["height"] <= covering["y"] + covering["height"]
        at = "p => { const b = p.getBoundingClientRect(); return document.elementFromPoint(b.x + 5, b.y + 5).tagName }"
        assert watched.page.locator("p").evaluate(at) == "IFRAME"
    frame = watched.page if where == "page" else watched.page.frame_locator("iframe")
    frame.locator("h3:text('a heading')").wait_for(timeout=20_000)
    frame.locator(".bk-Figure canvas").first.wait_for(timeout=20_000)
    assert watched.errors == []
    assert only_the_file(watched)


@pytest.mark.parametrize("sanitized", [False, True])
def test_a_converted_notebook_shows_the_working_view_or_without_scripts_a_picture(trace, sanitized, tmp_path, offline):
    import nbformat
    from nbconvert import HTMLExporter

    from classspace_widgets.export.saved import saved_form

    forms = saved_form(Explorer(trace, class_name=trace.space.class_names[3]), "page")
    outputs = [nbformat.v4.new_output("display_data", data) for data in forms]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("explorer", outputs=outputs, execution_count=1)])
    body, _ = HTMLExporter(sanitize_html=sanitized).from_notebook_node(book)
    path = tmp_path / "book.html"
    path.write_text(body, encoding="utf-8")
    page = offline(path, width=1400).page
    picture = page.locator(".jp-OutputArea-output img")
    if not sanitized:
        page.frame_locator(".csw-saved iframe").locator(SLIDER).wait_for(timeout=20_000)
        assert page.locator(".csw-saved iframe").get_attribute("sandbox") == "allow-scripts"
        assert not picture.is_visible()
    else:
        assert len(forms[0]["application/javascript"]) > 100_000
        assert "iframe" not in page.locator("main").inner_html()
        assert len(page.locator("main").inner_text()) < 200
        assert picture.evaluate("(img) => img.naturalWidth") > 300
    assert not page.evaluate("window.broken")


def test_linked_explorers_move_together_in_a_page_too(trace, tmp_path, offline):
    from classspace_widgets import Session, link

    other = trace.space.trace(noise(20), attention=True, heads=True)
    first, second = Explorer(trace), Explorer(other)
    alone = Explorer(Session(trace.snapshot()))
    link(first, second)
    # Long texts between: the second view is out of sight when the first is moved.
    out = export_html([first, "a line\n\n" * 200, second, alone], tmp_path / "page.html")
    watched = offline(out.path)
    page = watched.page
    page.wait_for_selector(SLIDER)
    assert page.locator(".csw-mounted").count() == 1
    box = page.locator(SLIDER).first.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] - 8, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 8 + (box["width"] - 16) * 3 / 6, middle, steps=4)
    page.mouse.up()
    page.locator(f"{SLIDER}[aria-valuetext^='block 2 attention']").wait_for()
    page.locator(".csw-mount").nth(1).scroll_into_view_if_needed()
    page.locator(".csw-mount >> nth=1").locator(f"{SLIDER}[aria-valuetext^='block 2 attention']").wait_for()
    page.locator(".csw-mount >> nth=1").locator(".csw-prediction").nth(1).click()
    name = page.locator(".csw-mount >> nth=1").locator(".csw-prediction span").nth(1).inner_text()
    page.locator(".csw-mount >> nth=0").locator(f"{SLIDER}[aria-valuetext*='of {name}']").wait_for()
    # A third one is its own.
    page.locator(".csw-mount >> nth=2").scroll_into_view_if_needed()
    page.locator(".csw-mount >> nth=2").locator(f"{SLIDER}[aria-valuetext^='block 3 MLP']").wait_for()
    assert watched.errors == []


def test_views_of_one_session_are_one_in_a_page_too(trace, tmp_path, offline):
    from classspace_widgets import LayerSlider, PatchHeatmap, Session, TopClasses

    session = Session(trace)
    out = export_html([LayerSlider(session), [PatchHeatmap(session), TopClasses(session)]], tmp_path / "page.html")
    watched = offline(out.path)
    page = watched.page
    page.wait_for_selector(".csw-top h3:has-text('after block 3 MLP')")
    page.focus(SLIDER)
    page.keyboard.press("Home")
    page.wait_for_selector(".csw-top h3:has-text('at the embedding')")
    page.wait_for_function("() => location.hash === '#block=0&sublayer=embedding'")
    assert watched.errors == []


def test_a_page_opened_from_a_blob_is_live(trace, tmp_path, offline):
    out = export_html(trace.snapshot(), tmp_path / "page.html")
    (tmp_path / "host.html").write_text("<!doctype html><title>host</title><div class='csw-mount'></div>")
    watched = offline(tmp_path / "host.html")
    watched.page.evaluate(
        """text => {
            const frame = document.createElement('iframe');
            frame.style = 'width: 1200px; height: 800px';
            frame.src = URL.createObjectURL(new Blob([text], {type: 'text/html'})) + '#block=1';
            document.body.append(frame);
        }""",
        out.path.read_text(encoding="utf-8"),
    )
    frame = watched.page.frame_locator("iframe")
    frame.locator(f"{SLIDER}[aria-valuetext^='block 1 MLP']").wait_for()
    frame.locator(SLIDER).focus()
    watched.page.keyboard.press("ArrowRight")
    frame.locator(f"{SLIDER}[aria-valuetext^='block 2 attention']").wait_for()
    assert watched.errors == []


SCALES = {
    "as it is": "",
    "smaller": "transform: scale(.5); transform-origin: 0 0",
    "larger": "transform: scale(1.3); transform-origin: 0 0",
    "squeezed": "transform: scale(.8, .6); transform-origin: 0 0",
    "zoomed": "zoom: .6",
    "right to left": "direction: rtl",
}


def test_places_mean_the_same_in_pages_that_are_scaled_or_run_right_to_left(trace, tmp_path, offline):
    """Clicks, boxes and drags in every view: the address tells what they did."""
    out = export_html(Explorer(trace.snapshot(), block=1, sublayer="mlp"), tmp_path / "page.html")
    found: dict[str, list[str]] = {}
    for name, style in SCALES.items():
        page = offline(out.path, width=1400, height=1600).page
        page.wait_for_selector(SLIDER)
        page.evaluate("style => document.body.style.cssText += ';width: 1000px;' + style", style)
        page.wait_for_timeout(300)
        seen = found[name] = []

        def at(selector, x, y, page=page):
            box = page.locator(selector).first.bounding_box()
            return box["x"] + box["width"] * x, box["y"] + box["height"] * y

        def then(page=page, seen=seen):
            page.wait_for_timeout(400)
            seen.append(page.evaluate("location.hash"))

        page.mouse.click(*at(".csw-picture canvas", 0.8, 0.3))
        then()
        page.mouse.move(*at(".csw-picture canvas", 0.3, 0.3))
        page.mouse.down()
        page.mouse.move(*at(".csw-picture canvas", 0.9, 0.6), steps=3)
        page.wait_for_timeout(100)
        picture, box = (page.locator(f".csw-picture {part}").first.bounding_box() for part in ("canvas", ".csw-box"))
        assert box["x"] == pytest.approx(picture["x"] + 0.3 * picture["width"], abs=2), name
        assert box["height"] == pytest.approx(0.3 * picture["height"], abs=2), name
        page.mouse.up()
        then()
        for curve in (".csw-spark", ".csw-trajectories > svg", ".csw-bars > svg"):
            page.mouse.click(*at(curve, 0.25, 0.6))
            then()
            page.mouse.click(*at(curve, 0.7, 0.6))
            then()
        for cell in (0.3, 0.8):
            page.mouse.click(*at(".csw-grid", cell, 0.4))
            then()
        field, popup = ".csw-combobox", ".csw-popup"
        page.locator(f"{field} input").first.click()
        page.wait_for_selector(f"{popup}:popover-open")
        there, shown = (page.locator(part).first.bounding_box() for part in (field, popup))
        assert shown["x"] == pytest.approx(min(there["x"], 1400 - shown["width"] - 8), abs=2), name
        assert shown["y"] == pytest.approx(there["y"] + there["height"] + 3, abs=2), name
        page.keyboard.press("Escape")
        page.locator(SLIDER).focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        then()
    assert len(set(found["as it is"])) >= 8  # a place of the trajectories is also one of the bars
    for name, seen in found.items():
        assert seen == found["as it is"], name


@pytest.mark.parametrize("width", [360, 700, 1000, 1400])
def test_nothing_that_a_hand_may_be_on_moves_through_a_what_if(trace, width, tmp_path, offline):
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[8:40, 8:40] = 1
    pins = {
        "corner": RemoveTokens([1, 2]),
        "a name that is far longer than any line of a phone has room for": KnockOutAttention("self_only"),
    }
    view = Explorer(trace.snapshot(mask=mask), class_name="boat", tokens=[12], block=2, sublayer="mlp")
    out = export_html(view, tmp_path / "page.html", pins=pins)
    watched = offline(out.path, width=width, height=1000)
    page = watched.page
    page.wait_for_selector(SLIDER)

    def places():
        page.wait_for_timeout(250)
        return page.evaluate(POSITIONS)

    chooser = page.get_by_label("Pinned interventions")
    for reading in ("identifiability", "logit", "top1"):
        page.get_by_label("Reading", exact=True).first.select_option(reading)
        before = places()
        assert len(before) > 25
        for pin in reversed(pins):
            chooser.select_option(label=pin)
            for shown in ("After", "Change", "Before"):
                page.get_by_role("radiogroup", name="Pass").get_by_label(shown).check(force=True)
                now = places()
                moved = {k: (before[k], now[k]) for k in before if k in now and before[k] != now[k]}
                assert (reading, pin, shown, moved) == (reading, pin, shown, {})
    watched.shot(f"what_if_{width}")
    assert watched.errors == []


def test_two_explorers_side_by_side_use_the_width_of_the_page(trace, tmp_path, offline):
    out = export_html([[Explorer(trace), Explorer(trace)]], tmp_path / "page.html")
    page = offline(out.path, width=1400).page
    page.wait_for_function("() => document.querySelectorAll('.csw-explorer').length === 2")
    boxes = [page.locator(".csw-explorer").nth(i).bounding_box() for i in range(2)]
    assert boxes[0]["y"] == boxes[1]["y"]
    main = page.locator("main").bounding_box()
    assert boxes[1]["x"] + boxes[1]["width"] - boxes[0]["x"] > 0.94 * main["width"]
    page.set_viewport_size({"width": 700, "height": 900})
    page.wait_for_timeout(200)
    boxes = [page.locator(".csw-explorer").nth(i).bounding_box() for i in range(2)]
    assert boxes[0]["y"] < boxes[1]["y"]
    assert all(box["width"] > 600 for box in boxes)


def test_the_slider_says_which_token_and_where_it_first_was_best(trace, tmp_path, offline):
    snapshot = trace.snapshot()
    class_index = int(snapshot.predicted[0])
    out = export_html(Explorer(snapshot, block=1, sublayer="attention"), tmp_path / "page.html")
    watched = offline(out.path, width=1400)
    page = watched.page
    page.wait_for_selector(".csw-slider-value:has-text('at [CLS]')")
    page.locator(".csw-picture:not([hidden])").click(position={"x": 5, "y": 5})
    page.wait_for_selector(".csw-slider-value:has-text('at patch row 1, column 1')")
    assert "at patch row 1, column 1" in page.locator(SLIDER).get_attribute("aria-valuetext")
    ranks = snapshot.ranks(class_index)[
        ::2, 1
    ]  # residual streams: embedding, then after attention and MLP of every block
    best = int(ranks.argmin())
    where = "embedding" if best == 0 else f"block {(best + 1) // 2} {'attention' if best % 2 else 'MLP'}"
    words = "first rank 0" if ranks[best] == 0 else f"best rank {ranks[best]}"
    page.get_by_role("button", name=f"{words}: {where}").click()
    page.wait_for_function("p => document.querySelector('.csw-slider input').valueAsNumber === p", arg=best)
    assert watched.errors == []


def test_a_head_is_read_without_hovering_and_left_by_a_visible_way(trace, tmp_path, offline):
    out = export_html(Explorer(trace.snapshot(), reading="logit"), tmp_path / "page.html")
    watched = offline(out.path, width=1400)
    page = watched.page
    page.wait_for_selector(".csw-heads .csw-readout:has-text('largest: block')")
    back = page.locator(".csw-heatmap button:has-text('←')")
    assert not back.is_visible()
    page.locator(".csw-grid [role=gridcell]").nth(4).click()
    page.mouse.move(5, 5)
    page.wait_for_selector(".csw-heads .csw-readout:has-text('block 2 head 1')")
    assert back.inner_text() == "← logit"
    back.click()
    page.wait_for_function("() => location.hash === ''")
    page.wait_for_selector(".csw-map-title :text('logit of')")
    assert page.locator(".csw-grid [aria-selected=true]").count() == 0
    assert watched.errors == []


def test_a_photograph_is_sharp_and_the_models_pixels_are_a_click_away(tmp_path, offline):
    """Lines of one pixel: seen in the photograph, all grey in what the model saw."""
    lines = np.zeros((300, 480, 3), np.uint8)
    lines[:, ::2] = 255
    page_of = tiny_vit(img_size=32).trace(Image.fromarray(lines)).snapshot()
    watched = offline(export_html([page_of], tmp_path / "page.html").path)
    page = watched.page
    page.wait_for_selector(SLIDER)
    page.locator("input[aria-label='Opacity of the map']").evaluate(
        "e => { e.value = 0; e.dispatchEvent(new Event('input', { bubbles: true })) }"
    )
    contrast = """(sharp) => {
        const canvas = document.querySelector('.csw-picture:not([hidden]) canvas');
        const row = canvas.getContext('2d').getImageData(0, canvas.height >> 1, canvas.width, 1).data;
        const red = Array.from(row).filter((_, i) => i % 4 === 0);
        const spread = Math.max(...red) - Math.min(...red);
        return sharp ? spread > 100 : spread < 30;
    }"""
    page.wait_for_function(contrast, arg=True)
    page.get_by_label("model's pixels").check()
    page.wait_for_function(contrast, arg=False)
    page.get_by_label("model's pixels").uncheck()
    page.wait_for_function(contrast, arg=True)
    # Another part needs the model, which a page does not have.
    assert page.get_by_role("button", name="Crop…").is_hidden()
    assert watched.errors == []
    assert only_the_file(watched)
