"""Pages that other programs make of a notebook: books of myst-nb and nbsphinx, and slides and markdown of nbconvert."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from browser.test_page import SLIDER
from browser.test_recipes import need, outside
from make_fixtures import synthetic

from classspace_widgets import Explorer
from classspace_widgets.export.saved import saved_form

PACKAGES = ("requirejs@2.3.7", "@jupyter-widgets/html-manager@1.0.15", "anywidget@0.11.0", "reveal.js@4.6.1")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory) -> dict[str, Path]:
    """What a page of a book loads from its CDNs, by the name of the package."""
    folder = tmp_path_factory.mktemp("scripts")
    for package in PACKAGES:
        run = ["npm", "pack", "--silent", package]
        try:
            done = subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=120)
        except (OSError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"npm has no answer: {error}")
        if done.returncode:
            pytest.skip(f"{package} cannot be fetched: {done.stderr[-200:]}")
        name = package.rpartition("@")[0].rpartition("/")[2]
        shutil.unpack_archive(folder / done.stdout.split()[-1], folder / name)
    return {name: folder / name / "package" for name in ("requirejs", "html-manager", "anywidget", "reveal.js")}


@pytest.fixture(scope="module", params=["myst_nb", "nbsphinx"])
def book(request, tmp_path_factory) -> Path:
    """A book of one notebook, which is run."""
    need(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    synthetic("all").save(folder / "fish.csnap")
    raw = {"raw_mimetype": "text/restructuredtext"}
    cells = [
        nbformat.v4.new_raw_cell("A fish\n======", metadata=raw),
        nbformat.v4.new_code_cell("from classspace_widgets import Explorer\n\nExplorer.from_file('fish.csnap')"),
    ]
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, folder / "fish.ipynb")
    (folder / "index.rst").write_text("A book\n======\n\n.. toctree::\n\n   fish\n")
    (folder / "conf.py").write_text(f"extensions = [{request.param!r}]\nnb_execution_mode = 'force'\n")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", folder, folder / "out"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-800:]
    page = folder / "out" / "fish.html"
    # RequireJS of the package index is not minified as the CDN's is: its digest is another.
    page.write_text(re.sub(r' integrity="[^"]*"', "", page.read_text("utf-8")), encoding="utf-8")
    return page


def column(page) -> float:
    """How wide the column of text is, without its margins."""
    return page.evaluate(
        """() => {
          const body = document.querySelector('div.body');
          const { paddingLeft, paddingRight } = getComputedStyle(body);
          return body.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
        }"""
    )


def test_a_book_without_a_network_shows_the_working_page_once(book, offline):
    watched = offline(book, height=1400)
    page = watched.page
    page.frame_locator(".csw-saved iframe").locator(SLIDER).wait_for(timeout=20_000)
    page.wait_for_timeout(500)
    frame = page.locator(".csw-saved iframe")
    assert frame.bounding_box()["width"] > 0.9 * column(page)
    inner = page.frames[1].evaluate("[document.documentElement.offsetHeight, innerHeight]")
    assert inner[0] == inner[1]
    assert page.locator("iframe:visible").count() == 1
    assert page.locator(".csw:visible, img:visible").count() == 0
    watched.shot(f"book_{book.parents[1].name}")


def test_a_book_with_a_network_shows_the_live_view_once(book, scripts, browser):
    context = browser.new_context(viewport={"width": 1280, "height": 1400})

    def answer(route) -> None:
        address = route.request.url
        found = {
            "require.min.js": scripts["requirejs"] / "require.js",
            "embed-amd.js": scripts["html-manager"] / "dist/embed-amd.js",
            "index.js": scripts["anywidget"] / "dist/index.js",
        }.get(address.rpartition("/")[2].partition("?")[0])
        if found is None:
            route.abort()
        else:
            headers = {"Access-Control-Allow-Origin": "*"}
            route.fulfill(path=found, content_type="text/javascript", headers=headers)

    context.route(outside, answer)
    page = context.new_page()
    page.goto(book.as_uri())
    page.locator(SLIDER).focus(timeout=30_000)
    page.keyboard.press("Home")
    page.locator(f"{SLIDER}[aria-valuetext^=embedding]").wait_for(timeout=20_000)
    assert page.locator(".csw").count() == 1
    assert page.locator(".csw").evaluate("e => e.offsetWidth") > 0.9 * column(page)
    assert page.locator("iframe:visible, img:visible").count() == 0
    heading, view = (
        page.locator(name).first.evaluate("e => getComputedStyle(e).fontFamily") for name in (".csw h2", ".csw")
    )
    assert heading == view
    page.screenshot(path=str(book.parent / "live.png"))
    context.close()


def talk() -> nbformat.NotebookNode:
    """A notebook of a view and a figure, with the outputs that it keeps."""
    from bokeh.plotting import figure

    from classspace_widgets.plots import show_figure

    drawn = figure(height=200, title="A figure")
    drawn.line([1, 2], [1, 2])
    shown = show_figure(drawn)
    outputs = [
        *saved_form(Explorer(synthetic("all")), "page"),
        {"text/plain": repr(shown), "text/html": shown._repr_html_()},
    ]
    slide = {"slideshow": {"slide_type": "slide"}}
    code = nbformat.v4.new_code_cell(
        "view", outputs=[nbformat.v4.new_output("display_data", data) for data in outputs], metadata=slide
    )
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A talk", metadata=slide), code])


def test_slides_show_the_working_page_once(scripts, browser, tmp_path):
    from nbconvert import SlidesExporter

    exporter = SlidesExporter(reveal_url_prefix=scripts["reveal.js"].as_uri(), reveal_scroll=True)
    (tmp_path / "talk.html").write_text(exporter.from_notebook_node(talk())[0], encoding="utf-8")
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    require = scripts["requirejs"] / "require.js"
    context.route(outside, lambda r: r.fulfill(path=require) if "require.min.js" in r.request.url else r.abort())
    page = context.new_page()
    page.goto((tmp_path / "talk.html").as_uri())
    page.wait_for_selector(".reveal.ready")
    page.keyboard.press("ArrowRight")
    frame = page.frame_locator(".csw-saved iframe")
    frame.locator(SLIDER).focus(timeout=20_000)
    page.keyboard.press("Home")
    frame.locator(f"{SLIDER}[aria-valuetext^=embedding]").wait_for(timeout=20_000)
    assert page.locator("img:visible").count() == 0
    assert page.locator(".csw-saved iframe").evaluate("e => e.offsetWidth") > 700
    page.screenshot(path=str(tmp_path / "talk.png"))
    context.close()


def test_markdown_has_a_picture_of_a_view_and_the_words_of_a_figure():
    from markdown_it import MarkdownIt
    from nbconvert import MarkdownExporter

    text, resources = MarkdownExporter().from_notebook_node(talk())
    assert [Path(name).suffix for name in resources["outputs"]] == [".png"]
    # What is HTML is one block: a part of it would be shown as text, or as code.
    tokens = MarkdownIt("commonmark", {"html": True}).parse(text)
    (block,) = [token.content for token in tokens if token.type == "html_block"]
    assert block.rstrip().endswith("</iframe></div>")
    without_frames = re.sub("<iframe.*</iframe>", "", block, flags=re.DOTALL)
    assert "An interactive figure (A figure): run the cell" in without_frames
    assert len("".join(token.content for token in tokens if token.type != "html_block")) < 300


def test_where_html_is_cleaned_a_figure_leaves_its_words_and_a_view_its_picture():
    """As in a notebook that nobody has trusted yet."""
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter(sanitize_html=True).from_notebook_node(talk())
    main = body[body.index("<main") :]
    assert "An interactive figure (A figure): run the cell" in main
    assert main.count("<img") == 1
    assert "<iframe" not in main
