"""The recipes of docs/hosts.md, each served and used; what is not installed (the extra `hosts`) is skipped."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib.metadata import version
from pathlib import Path

import anywidget
import pytest
from browser.conftest import Watched
from browser.test_elsewhere import serving
from browser.test_page import SLIDER
from make_fixtures import synthetic

PAGE = (Path(__file__).parents[2] / "docs/hosts.md").read_text(encoding="utf-8")
PORT = "--port={port}"
SERVERS = {
    "panel": (["panel", "serve", "app.py", PORT], "/app"),
    "solara": (["solara", "run", "app.py", "--no-open", "--host=127.0.0.1", PORT], "/"),
    "streamlit": (["streamlit", "run", "app.py", "--server.headless=true", "--server.port={port}"], "/"),
    "gradio": (None, "/"),  # its recipe serves itself
}
LIVE = ("panel", "solara")
ALSO = {"panel": ["ipywidgets_bokeh"], "solara": ["solara_assets"]}
A_BAR = """
from classspace_widgets import progress

progress.DELAY = 0.0
with progress.progress_bar(2, "forward pass") as bar:
    bar.update()
"""


def need(*names: str) -> None:
    """Skip, with the reason, where a package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f'{name} is not installed: pip install "classspace-widgets[hosts]"')


def recipe(name: str) -> str:
    """The block of the page that imports this package."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return next(code for code in blocks if re.search(rf"^import {name}\b", code, re.MULTILINE))


def outside(address: str) -> bool:
    """Whether a request leaves this machine."""
    return address.startswith("http") and "//127.0.0.1" not in address


@pytest.mark.parametrize("name", SERVERS)
def test_the_recipe_shows_a_view_that_works(name, tmp_path, browser, monkeypatch):
    need(name, *ALSO.get(name, ()))
    if name == "solara" and version("ipyvuetify") >= "2":
        pytest.skip('solara-assets 1.58.2 has the scripts of ipyvuetify 1 alone: pip install "ipyvuetify<2"')
    synthetic("all").save(tmp_path / "fish.csnap")
    (tmp_path / "app.py").write_text(recipe(name), encoding="utf-8")
    monkeypatch.setenv("STREAMLIT_BROWSER_GATHER_USAGE_STATS", "false")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    command, path = SERVERS[name]
    run = (
        [sys.executable, "-m", *command] if command else ["env", "GRADIO_SERVER_PORT={port}", sys.executable, "app.py"]
    )
    with serving(run, tmp_path, path) as address:
        context = browser.new_context(viewport={"width": 1200, "height": 1300})
        watched = Watched(context.new_page())
        context.route(outside, lambda route: route.abort())
        # The one script that Panel takes from the network is in anywidget's package, too.
        script = Path(anywidget.__file__).parent / "nbextension" / "index.js"
        allowed = {"Access-Control-Allow-Origin": "*"}
        context.route(
            re.compile("anywidget@"),
            lambda route: route.fulfill(path=script, content_type="text/javascript", headers=allowed),
        )
        watched.page.goto(address)
        inside = watched.page if name in LIVE else watched.page.frame_locator("iframe[srcdoc]").first
        slider = inside.locator(SLIDER)
        slider.focus(timeout=60_000)
        watched.page.keyboard.press("Home")
        inside.locator(f"{SLIDER}[aria-valuetext^=embedding]").wait_for(timeout=20_000)
        assert inside.locator(".csw").first.evaluate("e => e.offsetWidth") > 600
        watched.shot(f"recipe_{name}")
        context.close()


@pytest.mark.parametrize(("template", "width"), [("lab", 1180), ("classic", 960)])
def test_voila_shows_one_live_view_without_a_network_and_no_bar_above_it(template, width, tmp_path, browser):
    need("voila")
    import nbformat

    synthetic("all").save(tmp_path / "fish.csnap")
    code = "from classspace_widgets import Explorer\n\nExplorer.from_file('fish.csnap')"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"{A_BAR}\n{code}")])
    nbformat.write(book, tmp_path / "fish.ipynb")
    command = [sys.executable, "-m", "voila", "fish.ipynb", "--no-browser", f"--template={template}", PORT]
    with serving(command, tmp_path, "/voila/static/voila.js") as address:
        context = browser.new_context(viewport={"width": 1200, "height": 1300})
        watched = Watched(context.new_page())
        context.route(outside, lambda route: route.abort())
        page = watched.page
        page.goto(address.replace("/voila/static/voila.js", "/"))
        page.locator(SLIDER).focus(timeout=60_000)
        page.keyboard.press("Home")
        page.locator(f"{SLIDER}[aria-valuetext^=embedding]").wait_for(timeout=20_000)
        assert page.locator(".csw").evaluate("e => e.offsetWidth") == pytest.approx(width, abs=20)
        text = page.locator("body").inner_text()
        assert "forward pass" not in text
        assert "Are you sure" not in text
        assert page.locator("img:visible, .csw-saved:visible").count() == 0
        scripts = {address for address in watched.requests if outside(address) and address.endswith(".js")}
        assert scripts <= {"https://cdnjs.cloudflare.com/ajax/libs/jquery/2.0.3/jquery.min.js"}
        watched.shot(f"voila_{template}")
        context.close()
