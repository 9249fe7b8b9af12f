"""A page that carries its model: its size, the first answer, an intervention from click to paint, and how long it blocks.

    python benchmarks/live_page.py [VARIANT] [PICTURE]

In headless Chromium, over file:// without a network.  Beside the times that pass, with their minimum, it prints processor time
of the page's own threads, which other programs do not lengthen: use it where the machine is busy.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from pages import FLAGS
from playwright.sync_api import sync_playwright

from classspace_widgets import ClassSpace, export_html
from classspace_widgets.scenes import gallery

TARGETS = {"size": 4.5, "first answer": 1500, "intervention": 350, "longest block": 50}
RUNS = 9
TRACED = ["toplevel", "devtools.timeline", "v8", "blink.user_timing"]

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


def tasks(trace: bytes, thread: str) -> list[dict[str, Any]]:
    """What a thread of the page did, a task at a time, from a trace of the browser."""
    events = json.loads(trace)["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("name") == "thread_name"}
    whole = [e for e in events if e.get("ph") == "X" and e["name"].endswith(("RunTask", "PerformMicrotaskCheckpoint"))]
    # The browser's own pages have no worker of this kind.
    pids = {pid for (pid, _), name in names.items() if name.startswith("DedicatedWorker")}
    own = [e for e in whole if e["pid"] in pids and names.get((e["pid"], e["tid"]), "").startswith(thread)]
    own.sort(key=lambda e: (e["tid"], e["ts"]))
    outer: list[dict[str, Any]] = []
    for event in own:
        last = outer[-1] if outer else None
        if last is None or last["tid"] != event["tid"] or event["ts"] >= last["ts"] + last["dur"]:
            outer.append(event)
    return outer


def processor(trace: bytes) -> dict[str, float]:
    """Milliseconds of processor time in a trace: the longest task of the interface, and all of both threads."""
    page, worker = tasks(trace, "CrRendererMain"), tasks(trace, "DedicatedWorker")
    return {
        "longest block": max(e.get("tdur", 0) for e in page) / 1000,
        "page": sum(e.get("tdur", 0) for e in page) / 1000,
        "worker": sum(e.get("tdur", 0) for e in worker) / 1000,
    }


def main() -> None:
    """Measure and print."""
    variant = sys.argv[1] if len(sys.argv) > 1 else "default"
    picture = sys.argv[2] if len(sys.argv) > 2 else gallery()[0].picture
    trace = ClassSpace.bundled(variant).trace(picture, attention=True, heads=True)
    firsts: list[float] = []
    again: list[float] = []
    blocks: list[float] = []
    opened: list[dict[str, float]] = []
    asked: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = export_html(trace, Path(folder) / "live.html", live=True, progress=False)
        path = next(p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n)))
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        for _ in range(RUNS):
            shown = browser.new_context(offline=True).new_page()
            shown.goto(page.path.resolve().as_uri())
            shown.evaluate(WATCH)
            firsts.append(shown.evaluate(FIRST))
            again += [shown.evaluate(AGAIN) for _ in range(3)]
            blocks.append(max(shown.evaluate("window.blocks"), default=0.0))
            shown.context.close()
            shown = browser.new_context(offline=True).new_page()
            for times, script in ((opened, FIRST), (asked, AGAIN)):
                browser.start_tracing(page=shown, categories=TRACED)
                if script is FIRST:
                    shown.goto(page.path.resolve().as_uri())
                shown.evaluate(script)
                times.append(processor(browser.stop_tracing()))
                shown.wait_for_timeout(500)
            shown.context.close()
        browser.close()
    print(f"size: {page.nbytes / 1e6:.2f} MB, target {TARGETS['size']} MB (default model)")
    for name, values in (("first answer", firsts), ("intervention", again), ("longest block", blocks)):
        print(f"{name}: median {statistics.median(values):.0f} ms, least {min(values):.0f}, target {TARGETS[name]}")
    for name, found in (("opening, to the first answer", opened), ("an intervention", asked)):
        least = {part: min(times[part] for times in found) for part in found[0]}
        print(f"processor time of {name}: " + ", ".join(f"{part} {value:.0f} ms" for part, value in least.items()))


if __name__ == "__main__":
    main()
