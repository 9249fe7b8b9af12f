"""A page that carries its model: its size, the first answer, an intervention from click to paint, and how long it blocks.

    python benchmarks/live_page.py [VARIANT]

In headless Chromium, over file:// without a network.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from pages import FLAGS
from playwright.sync_api import sync_playwright

from classspace_widgets import ClassSpace, export_html
from classspace_widgets.scenes import gallery

TARGETS = {"size": 4.5, "first answer": 1500, "intervention": 350, "longest block": 50}
RUNS = 9

WATCH = """() => {
  window.blocks = [];
  new PerformanceObserver((list) => window.blocks.push(...list.getEntries().map((e) => e.duration)))
    .observe({ type: "longtask", buffered: true });
}"""
FIRST = """() => new Promise((done) => {
  const check = () => document.querySelector('.csw-steps li') ? done(performance.now()) : setTimeout(check, 5);
  const begin = () => {
    const apply = [...document.querySelectorAll('.csw-whatif button')].find((b) => b.textContent === 'Apply');
    if (!apply || apply.disabled || apply.closest('[hidden]')) return setTimeout(begin, 5);
    apply.click();
    check();
  };
  const choose = () => {
    const actions = document.querySelector('select[aria-label=Intervention]');
    if (!actions) return setTimeout(choose, 5);
    actions.value = 'mlp';
    actions.dispatchEvent(new Event('change', { bubbles: true }));
    begin();
  };
  choose();
})"""
AGAIN = """() => new Promise((done) => {
  const steps = () => document.querySelectorAll('.csw-steps li').length;
  const before = steps();
  const start = performance.now();
  [...document.querySelectorAll('.csw-whatif button')].find((b) => b.textContent === 'Apply').click();
  const check = () => steps() > before
    ? requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start))) : setTimeout(check, 2);
  check();
})"""


def main() -> None:
    """Measure and print."""
    variant = sys.argv[1] if len(sys.argv) > 1 else "default"
    trace = ClassSpace.bundled(variant).trace(gallery()[0].picture, attention=True, heads=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = export_html(trace, Path(folder) / "live.html", live=True, progress=False)
        path = next(p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n)))
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        firsts, again, blocks = [], [], []
        for _ in range(RUNS):
            shown = browser.new_context(offline=True).new_page()
            shown.goto(page.path.resolve().as_uri())
            shown.evaluate(WATCH)
            firsts.append(shown.evaluate(FIRST))
            again += [shown.evaluate(AGAIN) for _ in range(3)]
            blocks.append(max(shown.evaluate("window.blocks"), default=0.0))
            shown.context.close()
        browser.close()
    found = {
        "size": page.nbytes / 1e6,
        "first answer": statistics.median(firsts),
        "intervention": statistics.median(again),
        "longest block": statistics.median(blocks),
    }
    for name, value in found.items():
        print(f"{name}: {value:.2f} {'MB' if name == 'size' else 'ms'}, target {TARGETS[name]}")


if __name__ == "__main__":
    main()
