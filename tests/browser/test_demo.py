"""The demo notebook: run in JupyterLab as a newcomer would, and converted to a page that works offline."""

from __future__ import annotations

from pathlib import Path

from classspace_widgets.cli import demo_notebook

SLIDER = ".csw-slider input.csw-range"


def test_the_demo_runs_from_top_to_bottom_in_jupyterlab(notebook):
    nb = notebook(demo_notebook(), name="demo.ipynb", height=1400)
    nb.run_all(timeout=240)
    page = nb.page
    # Back to the top by the wheel: some versions take cells out of the page that are not in sight.
    page.locator(".jp-Notebook").hover()
    for _ in range(40):
        if page.locator(f".jp-OutputArea {SLIDER}").first.is_visible():
            break
        page.mouse.wheel(0, -3000)
        page.wait_for_timeout(150)
    page.locator(f".jp-OutputArea {SLIDER}").first.scroll_into_view_if_needed(timeout=30_000)
    page.locator(f".jp-OutputArea {SLIDER}").first.focus()
    page.keyboard.press("Home")
    page.wait_for_selector(f".jp-OutputArea {SLIDER}[aria-valuetext^=embedding]")
    nb.watched.shot("lab_demo")
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert nb.watched.errors == []


def test_the_stored_demo_converts_to_a_page_that_works_offline(tmp_path: Path, offline):
    import nbformat
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter().from_notebook_node(nbformat.read(demo_notebook(), 4))
    path = tmp_path / "demo.html"
    path.write_text(body)
    watched = offline(path)
    page = watched.page
    page.locator(".csw-saved iframe").first.scroll_into_view_if_needed()
    frame = page.frame_locator(".csw-saved iframe").first
    frame.locator(SLIDER).focus(timeout=30_000)
    page.keyboard.press("Home")
    frame.locator(f"{SLIDER}[aria-valuetext^=embedding]").wait_for(timeout=10_000)
    watched.shot("nbconvert_demo")


def test_the_demo_becomes_a_python_script():
    import nbformat
    from nbconvert import ScriptExporter

    text, resources = ScriptExporter().from_notebook_node(nbformat.read(demo_notebook(), 4))
    assert resources["output_extension"] == ".py"
    assert "from classspace_widgets import" in text


def test_the_stored_outputs_are_complete():
    import nbformat

    cells = [cell for cell in nbformat.read(demo_notebook(), 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [o for cell in cells for o in cell.outputs if o.output_type == "error"]
