"""The recipes of docs/hosts.md, each served and used; what is not installed (the extra `hosts`) is skipped."""

from __future__ import annotations

import importlib.util
import re
import sys
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
    "streamlit": (["streamlit", "run", "app.py", "--server.headless=true", "--server.port={port}"], "/"),
    "gradio": (None, "/"),  # its recipe serves itself
}


def recipe(name: str) -> str:
    """The block of the page that imports this package."""
    return next(code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if f"import {name} as" in code)


@pytest.mark.parametrize("name", SERVERS)
def test_the_recipe_shows_a_view_that_works(name, tmp_path, browser, monkeypatch):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f'{name} is not installed: pip install "classspace-widgets[hosts]"')
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
        # The one script that Panel takes from the network is in anywidget's package, too.
        script = Path(anywidget.__file__).parent / "nbextension" / "index.js"
        allowed = {"Access-Control-Allow-Origin": "*"}
        context.route(
            re.compile("anywidget@"),
            lambda route: route.fulfill(path=script, content_type="text/javascript", headers=allowed),
        )
        watched.page.goto(address)
        inside = watched.page if name == "panel" else watched.page.frame_locator("iframe[srcdoc]").first
        slider = inside.locator(SLIDER)
        slider.focus(timeout=60_000)
        watched.page.keyboard.press("Home")
        inside.locator(f"{SLIDER}[aria-valuetext^=embedding]").wait_for(timeout=20_000)
        assert inside.locator(".csw").first.evaluate("e => e.offsetWidth") > 600
        watched.shot(f"recipe_{name}")
        context.close()
