"""The widgets outside of JupyterLab: in Notebook 7 and in marimo, used with mouse and keyboard."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser.conftest import Watched, unavailable
from browser.test_lab import SETUP, press_run

SLIDER = ".csw-slider input.csw-range"
MAP = ".csw-picture:not([hidden]) canvas"


@contextmanager
def serving(command: list[str], folder: Path, path: str) -> Iterator[str]:
    """A server on the loopback address, from the moment that it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(
        [part.format(port=port) for part in command],
        cwd=folder, env={**os.environ, **settings, "XDG_CONFIG_HOME": str(folder)}, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}{path}"
        for _ in range(120):
            try:
                urllib.request.urlopen(address, timeout=1).close()
                break
            except OSError:
                if server.poll() is not None:
                    unavailable(f"the server did not start: {(folder / 'server.log').read_text()[-800:]}")
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(20)
        log.close()


def settled(page, selector: str):
    """A part that stays: a notebook may draw its outputs anew while it finds its layout."""
    for _ in range(40):
        part = page.wait_for_selector(selector, timeout=90_000)
        page.wait_for_timeout(1_000)
        if part.evaluate("e => e.isConnected"):
            return part
    raise AssertionError(f"{selector} is drawn anew again and again")


def use(watched: Watched) -> None:
    """Move the slider, pick a class, take patches away, and see the map follow."""
    page = watched.page
    settled(page, SLIDER).scroll_into_view_if_needed()
    seen = [page.locator(MAP).first.evaluate("c => c.toDataURL()")]

    def changed() -> None:
        page.wait_for_function("b => window.csw_map().toDataURL() !== b", arg=seen[-1])
        seen.append(page.locator(MAP).first.evaluate("c => c.toDataURL()"))

    # The views may live in a shadow root: find the canvas wherever it is.
    page.evaluate(
        """selector => {
          const search = (root) => root.querySelector(selector)
            ?? [...root.querySelectorAll('*')].map((e) => e.shadowRoot && search(e.shadowRoot)).find(Boolean);
          window.csw_map = () => search(document);
        }""",
        MAP,
    )
    page.locator(SLIDER).first.focus()
    page.keyboard.press("Home")
    changed()
    box = page.locator("input[role=combobox]").first
    box.click()
    page.keyboard.press("Control+a")
    page.keyboard.type("rocket")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    changed()
    page.locator(SLIDER).first.focus()
    page.keyboard.press("End")
    changed()
    area = page.locator(MAP).first.bounding_box()
    page.mouse.click(area["x"] + area["width"] * 0.3, area["y"] + area["height"] * 0.3)
    page.locator(".csw-whatif button:has-text('Apply')").first.click()
    page.locator(".csw-steps li").first.wait_for(timeout=30_000)
    assert watched.page.evaluate("window.broken") is None


def run_surely(watched: Watched, number: int) -> None:
    """Run a cell, again where that was lost, as it is while the kernel is still connecting."""
    from playwright.sync_api import TimeoutError as TimedOut

    prompt = watched.page.locator(".jp-CodeCell .jp-InputPrompt").nth(number)
    for wait in (15, 30, 60):
        press_run(watched, number)
        try:
            prompt.filter(has_text=re.compile(r"\d")).wait_for(timeout=wait * 1000)
            return
        except TimedOut:
            continue
    raise AssertionError(f"cell {number} was not run")


def test_notebook_7(tmp_path, browser):
    pytest.importorskip("notebook")
    import nbformat

    cells = [SETUP, "explorer = Explorer(trace, class_name='boat', block=2, sublayer='mlp'); explorer"]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, tmp_path / "test.ipynb")
    command = [sys.executable, "-m", "notebook", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port={port}"]
    command += ["--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path}"]
    with serving(command, tmp_path, "/api/status") as address:
        context = browser.new_context(viewport={"width": 1280, "height": 1500})
        watched = Watched(context.new_page())
        watched.page.goto(address.replace("/api/status", "/notebooks/test.ipynb"))
        watched.page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=90_000)
        for number in range(len(cells)):
            run_surely(watched, number)
        use(watched)
        watched.shot("notebook7")
        # Notebook's own complaint about settings, with and without our widgets.
        assert [error for error in watched.errors if "'schema'" not in error] == []
        context.close()


def test_marimo(tmp_path, browser):
    pytest.importorskip("marimo")
    setup = "\n".join(f"    {line}" for line in SETUP.strip().splitlines())
    (tmp_path / "app.py").write_text(
        f"import marimo\n\napp = marimo.App(width='full')\n\n\n@app.cell\ndef _():\n{setup}\n"
        "    explorer = Explorer(trace, class_name='boat', block=2, sublayer='mlp')\n    explorer\n    return\n"
    )
    command = [sys.executable, "-m", "marimo", "-q", "run", "app.py", "--headless", "--no-token"]
    command += ["--host=127.0.0.1", "--port={port}"]
    with serving(command, tmp_path, "/health") as address:
        context = browser.new_context(viewport={"width": 1280, "height": 1500})
        watched = Watched(context.new_page())
        watched.page.goto(address.removesuffix("/health"))
        use(watched)
        watched.shot("marimo")
        context.close()
