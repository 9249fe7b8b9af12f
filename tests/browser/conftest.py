"""A real browser, and a real JupyterLab on the loopback address."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REQUIRED = os.environ.get("CLASSSPACE_REQUIRE_BROWSER") == "1"
ARTEFACTS = Path(os.environ.get("CLASSSPACE_ARTEFACTS", Path(__file__).resolve().parents[2] / "artifacts"))
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that drives a browser runs on one worker, one after the other; the tests of this folder, and no others."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.xdist_group("browser"))
            # A click may be lost on a crowded machine: a test that fails is tried once more, is named at the end of the
            # run, and then counts.
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=2))


def unavailable(reason: str) -> None:
    """Skip with the reason; where a browser is required, fail instead."""
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    found = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    if found is None:
        unavailable("no Chromium on the path; on Debian: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("playwright is not installed: pip install playwright")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield chromium
        chromium.close()


class Watched:
    """A page, with everything it complained about and every request it made."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("request", lambda r: self.requests.append(r.url))

    def shot(self, name: str) -> None:
        """Keep a screenshot as an artefact."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(ARTEFACTS / f"{name}.png"))


@pytest.fixture
def offline(browser: Any) -> Iterator[Any]:
    """Opens pages with the network cut; any request other than the file itself is recorded."""
    contexts = []

    def open_page(path: Path, *, dark: bool = False, width: int = 1280, height: int = 900, script: str = "") -> Watched:
        context = browser.new_context(
            offline=True, color_scheme="dark" if dark else "light", viewport={"width": width, "height": height}
        )
        contexts.append(context)
        # What runs before the page's own scripts.
        context.add_init_script(script)
        watched = Watched(context.new_page())
        watched.page.goto(path.resolve().as_uri())
        return watched

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[tuple[str, Path]]:
    """A running JupyterLab: its address, and the folder it serves."""
    root = tmp_path_factory.mktemp("lab")
    config = tmp_path_factory.mktemp("config")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(config),
        "JUPYTER_DATA_DIR": str(config / "data"),
        "JUPYTER_RUNTIME_DIR": str(config / "runtime"),
        "IPYTHONDIR": str(config / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(config / "settings"),
    }
    quiet = config / "settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False})
    )
    log = (root / "lab.log").open("w")
    server = subprocess.Popen(
        [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
            "--IdentityProvider.token=", "--ServerApp.password=", f"--ServerApp.root_dir={root}",
            "--LabApp.news_url=", "--ServerApp.disable_check_xsrf=True",
        ],
        env=environment, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api/status", timeout=1).close()
                break
            except OSError:
                if server.poll() is not None:
                    unavailable(f"JupyterLab did not start: {(root / 'lab.log').read_text()[-800:]}")
                time.sleep(0.5)
        else:
            unavailable("JupyterLab did not answer within a minute")
        yield address, root
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:  # It waits for a kernel that does not go; nobody needs it any more.
            server.kill()
            server.wait(20)
        log.close()


class Notebook:
    """A notebook open in JupyterLab, driven as a person would."""

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.page = watched.page

    def run_all(self, timeout: float = 120) -> None:
        """Run every cell, and wait until the kernel is idle again."""
        self.page.click(".lm-MenuBar-itemLabel:text-is('Run')")
        self.page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")
        # On a busy machine JupyterLab may ask which kernel it should have started.
        self.page.wait_for_timeout(1000)
        if self.page.query_selector(".jp-Dialog"):
            self.page.click(".jp-Dialog button.jp-mod-accept")
        try:
            self.wait_idle(timeout)
        except Exception:
            self.watched.shot("did_not_finish")
            raise

    def wait_idle(self, timeout: float = 120) -> None:
        """Wait until no cell shows that it is running."""
        self.page.wait_for_function(
            """() => {
              const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')].map(p => p.textContent);
              return prompts.length > 0 && prompts.every(p => /\\[\\d+\\]/.test(p));
            }""",
            timeout=timeout * 1000,
        )


@pytest.fixture
def notebook(lab: tuple[str, Path], browser: Any) -> Iterator[Any]:
    """Writes cells to a notebook and opens it in JupyterLab."""
    address, root = lab
    contexts = []

    def open_notebook(
        cells: list[str] | Path, *, name: str = "test.ipynb", dark: bool = False, width: int = 1280, height: int = 1000
    ) -> Notebook:
        import nbformat

        if isinstance(cells, Path):
            shutil.copyfile(cells, root / name)
        else:
            made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
            made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
            nbformat.write(made, root / name)
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        watched = Watched(context.new_page())
        # A workspace of its own, so that no test sees the tabs of another.
        workspace = f"w{len(contexts)}{time.monotonic_ns()}"
        watched.page.goto(f"{address}/lab/workspaces/{workspace}/tree/{name}?reset")
        watched.page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
        watched.page.wait_for_function(
            "() => document.querySelector('.jp-KernelStatus, #jp-main-statusbar')?.textContent.includes('| Idle')",
            timeout=90_000,
        )
        return Notebook(watched)

    yield open_notebook
    for context in contexts:
        context.close()
