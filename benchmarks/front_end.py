"""Speed of the views in headless Chromium, on made-up data of ViT-B/16's size: ``python benchmarks/front_end.py``.

Build the development page first: ``npm --prefix js ci && npm --prefix js run dev``.  Two times are given: on the wall,
from the start of the frame to the painted frame (what a person waits; meaningful on a quiet machine only), and of the
processor (the page's main thread, per change).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "js" / "dev" / "index.html"
CHANGES = 150
MEASURE = """async ([what, changes]) => {
  const at = (list, share) => list.sort((a, b) => a - b)[Math.floor((list.length - 1) * share)];
  const { N, C } = store.data.value.snapshot;
  const times = [];
  if (what === "flow") store.set({ reading: "flow" });
  for (let i = 0; i < changes; i++) {
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    let begin = 0;
    const before = performance.now();
    // This callback runs before those that the change asks for, the next one after them.
    requestAnimationFrame(() => { begin = performance.now(); });
    if (what === "slider" || what === "flow") store.setPosition((i * 7) % N);
    else if (what === "class") store.set({ class_index: (i * 31 + 7) % C });
    else store.hovered.value = 1 + (i * 13) % 190;
    const synchronous = performance.now() - before;
    const end = await new Promise((done) => requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => done(performance.now());
      channel.port2.postMessage(0);
    }));
    times.push(end - begin + synchronous);
  }
  return { median_ms: at(times, 0.5), p95_ms: at(times, 0.95) };
}"""
BACKLOG = """async () => {
  const range = document.querySelector(".csw-slider input[type=range]");
  let frames = 0;
  const seen = new MutationObserver(() => frames++);
  seen.observe(range, { attributes: true, attributeFilter: ["aria-valuetext"] });
  for (let i = 0; i < 100; i++) { range.value = String(i % 25); range.dispatchEvent(new Event("input")); }
  for (let i = 0; i < 5; i++) await new Promise((done) => requestAnimationFrame(done));
  return frames;
}"""


def measure(page: Any, size: str) -> dict[str, Any]:
    """Load the explorer on data of one size, and change what it shows."""
    page.goto(f"{PAGE.as_uri()}#size={size}")
    page.reload()
    page.wait_for_selector("body[data-ready]", timeout=120_000)
    client = page.context.new_cdp_session(page)
    client.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        metrics = client.send("Performance.getMetrics")["metrics"]
        return 1000 * float(next(m["value"] for m in metrics if m["name"] == "TaskDuration"))

    found: dict[str, Any] = {"mount_ms": page.evaluate("mounted"), "bytes": page.evaluate("bytes")}
    page.wait_for_timeout(1500)
    for what in ("slider", "class", "hover", "flow"):
        start = busy()
        found[what] = page.evaluate(MEASURE, [what, CHANGES])
        found[what]["processor_ms"] = (busy() - start) / CHANGES
    found["frames_drawn_for_100_moves"] = page.evaluate(BACKLOG)
    return found


def main() -> None:
    """Measure, and print JSON."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or not (PAGE.parents[1] / "dist" / "dev.js").is_file():
        sys.exit("needs Chromium on the path and the development page: npm --prefix js run dev")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        result = {size: measure(page, size) for size in ("b16", "classes", "small")}
        browser.close()
    print(json.dumps(result, indent=2, default=str))


if __name__ == "__main__":
    main()
