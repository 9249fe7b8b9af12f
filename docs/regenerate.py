"""Make everything anew that shows numbers or pictures of the bundled model: ``python docs/regenerate.py``.

1. ``demo``: run demo.ipynb from top to bottom and store its outputs, without the state of its widgets.
2. ``pictures``: photograph the explorer for the README and the first page, light and dark (needs Chromium, playwright).

Give names to make only some of them.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "demo.ipynb"
LIMIT = 4_000_000


def demo() -> None:
    """Run the notebook in a folder of its own and store what its cells gave."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, 4)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=300,
            store_widget_state=False,
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [_lean(output) for output in cell.outputs]
    nbformat.validate(notebook)
    text = nbformat.writes(notebook) + "\n"
    if len(text) > LIMIT:
        raise SystemExit(f"the notebook would have {len(text) / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}")
    NOTEBOOK.write_text(text, encoding="utf-8")
    print(f"demo.ipynb: {time.monotonic() - began:.0f} s, {len(text) / 1e6:.2f} MB")


def _lean(output):  # type: ignore[no-untyped-def]
    """An output without what no reader sees."""
    if output.output_type == "error":
        raise SystemExit(f"the notebook failed: {output.evalue}")
    if output.output_type == "stream" and output.name == "stderr":
        raise SystemExit(f"the notebook wrote to stderr: {output.text[:500]}")
    data = output.get("data", {})
    if "text/html" in data and "image/png" not in data:
        # pandas draws new ids for every run: number them instead, so that a run that changes nothing changes nothing.
        ids = dict.fromkeys(re.findall(r"T_[0-9a-f]{5}", data["text/html"]))
        for n, name in enumerate(ids):
            data["text/html"] = data["text/html"].replace(name, f"T_{n:05x}")
        if data.get("text/plain", "").startswith("<pandas"):
            data["text/plain"] = "a table"
    return output


def pictures() -> None:
    """The explorer on a scene with three objects, half way through the model."""
    from playwright.sync_api import sync_playwright

    from classspace_widgets import ClassSpace, Explorer, export_html
    from classspace_widgets.scenes import gallery

    scene = gallery()[6]
    trace = ClassSpace.bundled(device="cpu").trace(scene.picture, attention=True, heads=True)
    explorer = Explorer(trace.snapshot(**scene.annotations), block=4, sublayer="attention")
    browser_path = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    if browser_path is None:
        raise SystemExit("no Chromium on the path; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_path = export_html(explorer, Path(folder) / "page.html").path
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        for theme in ("light", "dark"):
            context = browser.new_context(
                offline=True, color_scheme=theme, viewport={"width": 1240, "height": 900}, device_scale_factor=1.5
            )
            page = context.new_page()
            page.goto(page_path.as_uri())
            page.locator(".csw-explorer canvas").first.wait_for()
            page.wait_for_timeout(1000)
            target = ROOT / "docs" / f"explorer_{theme}.png"
            page.locator(".csw-explorer").first.screenshot(path=str(target))
            context.close()
            _shrink(target)
        browser.close()


def _shrink(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path.name}: {small.size}, {path.stat().st_size / 1e3:.0f} kB")


PARTS = {"demo": demo, "pictures": pictures}

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        raise SystemExit(f"there is no {', '.join(unknown)}; there are {', '.join(PARTS)}")
    for name in chosen:
        PARTS[name]()
