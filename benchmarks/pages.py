"""Exported pages: size, time to first paint, time of a class switch and of slider moves, in headless Chromium.

    python benchmarks/pages.py

ViT-B/16 has random weights here (nothing is downloaded): sizes and times do not depend on what it learned, except
that a trained model's increments compress slightly better or worse.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
from playwright.sync_api import sync_playwright

from classspace_widgets import ClassSpace, export_html
from classspace_widgets.export import Payload
from classspace_widgets.scenes import gallery

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
TARGETS = {"bundled": (2.0, 500), "vit-b/16, all classes": (14.0, 1500), "vit-b/16, 10 classes": (0.6, None)}

MOVE = """async n => {
  const input = document.querySelector('.csw-slider input.csw-range');
  const times = [];
  const painted = () => new Promise(done => requestAnimationFrame(() => { const c = new MessageChannel(); c.port1.onmessage = done; c.port2.postMessage(0); }));
  await painted();
  for (let i = 0; i < n; i++) {
    const before = performance.now();
    input.value = String((Number(input.value) + 7) % (Number(input.max) + 1));
    input.dispatchEvent(new Event('input', { bubbles: true }));
    await painted();
    times.push(performance.now() - before);
  }
  return times;
}"""

SWITCH = """async n => {
  const painted = () => new Promise(done => requestAnimationFrame(() => { const c = new MessageChannel(); c.port1.onmessage = done; c.port2.postMessage(0); }));
  const times = [];
  for (let i = 0; i < n; i++) {
    const rows = [...document.querySelectorAll('.csw-predicted button')];
    const before = performance.now();
    rows[i % rows.length].click();
    await painted();
    times.push(performance.now() - before);
  }
  return times;
}"""

PAINT = """() => new Promise(done => {
  const check = () => document.querySelector('.csw-heatmap canvas') && document.querySelector('.csw-slider input')
    ? requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))) : setTimeout(check, 5);
  check();
})"""


def pages(folder: Path) -> dict[str, Path]:
    """The three pages of the targets."""
    scene = gallery()[0]
    small = ClassSpace.bundled(device="cpu").trace(scene.picture, attention=True, heads=True)
    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_224", pretrained=False)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.2)
    big = ClassSpace(model, device="cpu").trace(gallery(size=224)[0].picture, attention=True, heads=True)
    top = big.output[0].topk(10).indices.tolist()
    made = {
        "bundled": folder / "bundled.html",
        "vit-b/16, all classes": folder / "all.html",
        "vit-b/16, 10 classes": folder / "ten.html",
    }
    export_html(small.snapshot(**scene.annotations), made["bundled"])
    export_html(big, made["vit-b/16, all classes"])
    export_html(big, made["vit-b/16, 10 classes"], classes=top)
    for name, less in (
        ("residual stream alone", Payload(streams=["residual"])),
        ("ranks alone", Payload(ranks_only=True)),
    ):
        size = export_html(big, folder / "less.html", classes=top, payload=less).nbytes
        print(f"vit-b/16, 10 classes, {name}: {size / 1e6:.2f} MB")
    return made


def measure(browser: Any, path: Path, rounds: int = 5) -> dict[str, float]:
    """Medians over fresh tabs."""
    paints, moves, switches = [], [], []
    for _ in range(rounds):
        context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(path.as_uri(), wait_until="commit")
        paints.append(page.evaluate(PAINT))
        page.wait_for_timeout(500)
        moves += page.evaluate(MOVE, 60)
        switches += page.evaluate(SWITCH, 12)
        context.close()
    moves.sort()
    return {
        "first paint ms": statistics.median(paints),
        "slider median ms": statistics.median(moves),
        "slider p95 ms": moves[int(0.95 * len(moves))],
        "class switch median ms": statistics.median(switches),
    }


def main() -> None:
    """Print one table."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        made = pages(Path(folder))
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        for name, path in made.items():
            size, paint = TARGETS[name]
            row = measure(browser, path)
            cells = ", ".join(f"{key} {value:.1f}" for key, value in row.items())
            print(
                f"{name}: {path.stat().st_size / 1e6:.2f} MB (target {size}), {cells} (first paint target {paint})",
                flush=True,
            )
        browser.close()


if __name__ == "__main__":
    main()
