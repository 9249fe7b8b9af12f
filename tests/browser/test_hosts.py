"""Views in pages of every kind: whatever lays them out, and whatever stands beside them."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from browser.test_page import SLIDER, trace  # noqa: F401, a fixture

from classspace_widgets import Explorer, PatchHeatmap
from classspace_widgets.export import export_html
from classspace_widgets.export.front_end import script_text
from classspace_widgets.export.saved import saved_form

FOREIGN = (Path(__file__).parent / "foreign.js").read_text().split("\n", 1)[1]
PARENTS = {
    "inline block": "display: inline-block",
    "float": "float: left",
    "row": "display: flex",
    "column that does not stretch": "display: flex; flex-direction: column; align-items: flex-start",
    "inline row": "display: inline-flex",
    "grid that does not stretch": "display: grid; justify-items: start",
    "table cell": "display: table-cell",
    "out of the flow": "position: absolute",
    "as wide as its content": "width: fit-content",
}


@pytest.mark.parametrize(("view", "wide"), [(Explorer, 960), (PatchHeatmap, 480)])
@pytest.mark.parametrize("width", [1280, 320])
def test_a_view_has_a_width_where_its_parent_has_none(view, wide, width, trace, tmp_path, offline):  # noqa: F811
    out = export_html(view(trace), tmp_path / "page.html")
    page = offline(out.path, width=width).page
    page.wait_for_selector(".csw canvas")
    # The size of rem is the host's.
    page.evaluate("document.documentElement.style.fontSize = '10px'")
    found = page.evaluate(
        """parents => {
          const view = document.querySelector('.csw').parentElement;
          document.body.replaceChildren();
          document.body.style.margin = 0;
          view.style.margin = 0;
          return Object.fromEntries(Object.entries(parents).map(([name, style]) => {
            const parent = document.createElement('div');
            parent.style.cssText = style;
            parent.append(view);
            document.body.replaceChildren(parent);
            return [name, [view.querySelector('.csw').offsetWidth, document.documentElement.scrollWidth]];
          }));
        }""",
        PARENTS,
    )
    assert {name: size for name, (size, _) in found.items()} == dict.fromkeys(PARENTS, min(wide, width))
    assert max(page_width for _, page_width in found.values()) <= width + 1  # parts of pixels are rounded up


def outputs_of(view: Explorer) -> str:
    """What a page converted from a notebook holds of a view, after the manner of no host in particular."""
    forms = saved_form(view, "page")
    return (
        "<!doctype html><meta charset=utf-8><style>.body.text section :is(h2, h3) { font: italic 30px cursive; "
        "text-transform: uppercase; letter-spacing: 9px; border-bottom: 3px solid; margin: 40px } main { width: 900px }"
        "</style><main class='body text'><section><div id='live'></div>"
        f"<div class='cell_output'><script>{forms[0]['application/javascript']}</script></div>"
        f"<p><img id=still alt='' src='data:image/png;base64,{forms[1]['image/png']}'></p></section>"
        "<p>Below</p></main>"
    )


def asked_outputs_of(view: Explorer) -> str:
    """The same in a host that knows Jupyter's outputs, and asks before it runs their scripts, as Voila does."""
    picture = saved_form(view, "page")[1]["image/png"]
    return (
        "<!doctype html><meta charset=utf-8><div class=output_area><div id='live'></div></div>"
        "<div class=output_area><div class=jp-RenderedJavaScript><button>Run</button></div></div>"
        f"<div class=output_area><img id=still alt='' src='data:image/png;base64,{picture}'></div>"
        "<div class=output_area><p>Below</p></div>"
    )


def show_live(page, explorer: Explorer) -> None:
    """Put the live view into its place."""
    session = explorer.session
    page.evaluate(
        FOREIGN,
        {
            "widget": script_text("widget.js"),
            "view": script_text("view.js"),
            "values": {
                **{name: value for name, value in session.get_state().items() if not isinstance(value, bytes)},
                "_snapshot": base64.b64encode(session._snapshot).decode(),
                "_intervened": None,
            },
            "reference": explorer.get_state()["_session"],
            "place": "#live",
        },
    )
    page.locator(f"#live {SLIDER}").wait_for()


def test_a_script_that_a_host_asks_about_is_not_asked_about_beside_a_live_view(trace, tmp_path, offline):  # noqa: F811
    explorer = Explorer(trace)
    (tmp_path / "book.html").write_text(asked_outputs_of(explorer), encoding="utf-8")
    page = offline(tmp_path / "book.html").page
    shown = "[...document.querySelectorAll('.output_area')].map((e) => e.checkVisibility())"
    assert page.evaluate(shown) == [True, True, True, True]
    show_live(page, explorer)
    assert page.evaluate(shown) == [True, False, False, True]
    page.evaluate("endView()")
    assert page.evaluate(shown) == [True, True, True, True]


def test_a_page_of_any_host_shows_a_view_once(trace, tmp_path, offline):  # noqa: F811
    explorer = Explorer(trace, class_name="boat")
    (tmp_path / "book.html").write_text(outputs_of(explorer), encoding="utf-8")
    watched = offline(tmp_path / "book.html", width=1200, height=1400)
    page = watched.page
    frame = page.locator(".csw-saved iframe")
    page.frame_locator(".csw-saved iframe").locator(SLIDER).wait_for(timeout=20_000)
    # Without a live view the working page stands there, once: as wide as the column, and as high as what is in it.
    page.wait_for_function("() => getComputedStyle(document.querySelector('#still')).display === 'none'")
    page.wait_for_timeout(500)
    inner = page.frames[1].evaluate("[document.documentElement.offsetHeight, innerHeight]")
    assert inner[0] == inner[1] > 700
    assert frame.bounding_box()["width"] == 900
    watched.shot("host_saved")
    # With one, nothing else; and when that ends, the working page again.
    show_live(page, explorer)
    assert not frame.is_visible()
    assert not page.locator("#still").is_visible()
    page.locator("#live .csw-heads h3").wait_for()  # the last of the views, which are mounted one by one
    heading = page.locator("#live .csw-explorer h2")
    shown = heading.evaluate(
        "h => { const s = getComputedStyle(h); return [s.fontFamily, s.fontSize, s.fontStyle, s.margin, s.textTransform, "
        "s.letterSpacing, s.borderBottomWidth] }"
    )
    family = page.locator("#live .csw").evaluate("e => getComputedStyle(e).fontFamily")
    assert shown == [family, "15px", "normal", "0px", "none", "-0.075px", "0px"]
    titles = (
        "all => all.map(getComputedStyle).map((s) => `${s.fontStyle} ${s.fontSize} ${s.lineHeight} ${s.fontFamily}`)"
    )
    assert set(page.locator("#live .csw-chart h3").evaluate_all(titles)) == {f"normal 13px 20px {family}"}
    watched.shot("host_live")
    page.evaluate("endView()")
    assert frame.is_visible()
    assert watched.errors == []
