"""Waiting times in a real JupyterLab: first paint, a class that the kernel has to read, an intervention, a dragged state.

    PYTHONPATH=tests python -m pytest -q -s -p browser.conftest benchmarks/lab.py

Everything is timed in the page: messages as they pass its WebSocket, paint as the end of the frame in which the map has
changed.  A move is thus timed up to the frame after it, so one frame at 60 Hz (16.7 ms) is the least that can be read.
"""

from __future__ import annotations

import statistics

WATCH = """() => {
  const wire = (window.wire = []);
  const known = new WeakSet();
  const kind = (data) => {
    const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : new TextEncoder().encode(String(data));
    const head = new TextDecoder('latin1').decode(bytes.subarray(0, 700));
    const type = /"msg_type": ?"(\\w+)"/.exec(head);
    return { type: type ? type[1] : '', bytes: bytes.length, at: performance.now() };
  };
  const send = WebSocket.prototype.send;
  WebSocket.prototype.send = function (data) {
    if (!known.has(this)) {
      known.add(this);
      this.addEventListener('message', (event) => {
        const add = (data) => wire.push({ way: 'in', ...kind(data) });
        const now = performance.now();
        if (event.data instanceof Blob) event.data.arrayBuffer().then((b) => wire.push({ way: 'in', ...kind(b), at: now }));
        else add(event.data);
      });
    }
    wire.push({ way: 'out', ...kind(data) });
    return send.call(this, data);
  };
  const probe = new OffscreenCanvas(24, 24).getContext('2d', { willReadFrequently: true });
  window.look = () => {
    const canvas = [...document.querySelectorAll('.jp-OutputArea figure:not(.csw-second) > .csw-picture:not([hidden]) canvas')].pop();
    if (!canvas || !canvas.width) return '';
    probe.clearRect(0, 0, 24, 24);
    probe.drawImage(canvas, 0, 0, 24, 24);
    return probe.getImageData(0, 0, 24, 24).data.join();
  };
  // Resolves at the end of the first frame in which `done` holds.
  window.painted = (done) => new Promise((resolve, reject) => {
    const end = performance.now() + 10000;
    const frame = () => {
      if (done()) {
        const channel = new MessageChannel();
        channel.port1.onmessage = () => resolve(performance.now());
        channel.port2.postMessage(0);
      } else if (performance.now() > end) reject(new Error('never painted'));
      else requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
}"""
BUNDLED = """
import logging; logging.disable()
from classspace_widgets import ClassSpace, Explorer
from classspace_widgets.scenes import gallery
Explorer.saved_form = "none"
space = ClassSpace.bundled()
trace = space.trace(gallery()[0].picture, attention=True, heads=True)
snapshot = trace.snapshot()
"""
LARGE = """
import logging; logging.disable()
import timm, torch
from classspace_widgets import ClassSpace, Explorer
from classspace_widgets.scenes import gallery
Explorer.saved_form = "none"
torch.manual_seed(0)
model = timm.create_model("vit_base_patch16_224").eval()
for parameter in model.parameters():
    if parameter.ndim == 1: torch.nn.init.normal_(parameter, 0.5, 0.2)
space = ClassSpace(model)
trace = space.trace(gallery(size=224)[0].picture, attention=True, heads=True)
snapshot = trace.snapshot()
"""


def run(page, index):
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(index)
    cell.locator(".cm-content").click()
    cell.locator(".cm-editor.cm-focused").wait_for()
    page.keyboard.press("Control+Enter")


def summary(name, values, target):
    listed = ", ".join(f"{v:.0f}" for v in values)
    print(f"\n{name}: median {statistics.median(values):.0f} ms of {listed} (target {target})")


def first_paints(nb, name, rounds=6):
    """From the arrival of the first large comm message of `Explorer(trace)` to its first painted frame."""
    page, found = nb.page, []
    nb.run_all()
    page.wait_for_selector(".jp-OutputArea .csw-picture:not([hidden]) canvas", timeout=60_000)
    page.evaluate(WATCH)
    for _ in range(rounds + 1):
        page.evaluate(
            "() => { wire.length = 0; document.querySelectorAll('.csw-picture').forEach((p) => p.setAttribute('data-old', '')); }"
        )
        run(page, 1)
        found.append(
            page.evaluate(
                """async () => {
                  const fresh = '.jp-OutputArea .csw-picture:not([hidden]):not([data-old]) canvas';
                  const end = await painted(() => document.querySelector(fresh)?.width > 0 && look().split(',').some((v) => v !== '0'));
                  const first = wire.find((m) => m.way === 'in' && m.type === 'comm_open' && m.bytes > 20000);
                  return end - first.at;
                }"""
            )
        )
        page.wait_for_timeout(700)
    summary(f"first paint, {name}", found[1:], "300 ms from the comm message")


def test_first_paint_and_intervention_of_the_bundled_model(notebook):
    nb = notebook([BUNDLED, "explorer = Explorer(snapshot, block=4, sublayer='mlp'); explorer"], height=1500)
    first_paints(nb, "bundled model")
    page = nb.page
    area = page.locator(".jp-OutputArea .csw-picture:not([hidden]) canvas").bounding_box()
    page.mouse.move(area["x"] + 5, area["y"] + 5)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.4, area["y"] + area["height"] * 0.4, steps=5)
    page.mouse.up()
    panel = page.locator(".jp-OutputArea .csw-whatif")
    panel.scroll_into_view_if_needed()
    waits, trips = [], []
    for _ in range(9):
        panel.locator("select[aria-label=Intervention]").select_option("remove")
        page.evaluate(
            """() => {
              wire.length = 0;
              const before = look();
              window.waited = new Promise((done, fail) => document.addEventListener('pointerup', async () => {
                const from = performance.now();
                const to = await painted(() => look() !== before).catch(fail);
                const sent = wire.find((m) => m.way === 'out' && m.type === 'comm_msg');
                const back = wire.filter((m) => m.way === 'in' && m.type === 'comm_msg').pop();
                done([to - from, back.at - sent.at]);
              }, { once: true, capture: true }));
            }"""
        )
        panel.locator("button:has-text('Apply')").click()
        wait, trip = page.evaluate("() => waited")
        waits.append(wait)
        trips.append(trip)
        panel.locator("button:has-text('Undo')").click()
        page.wait_for_function("() => document.querySelectorAll('.jp-OutputArea .csw-steps li').length === 0")
        page.wait_for_timeout(200)
    summary("intervention, mouse-up to paint", waits[1:], "100 ms")
    summary("  of it, request to answer", trips[1:], "none")


TWO = """
from classspace_widgets.scenes import pair
clean, corrupt = (space.trace(scene.picture, attention=True, heads=True) for scene in pair(2, swap=("fish", "boat")))
explorer = Explorer(corrupt, other=clean, class_name="fish", block=4, sublayer="mlp", reading="logit")
"""


def middle(page, figure, row, column):
    """The middle of a patch, of 12 x 12, on the screen."""
    box = page.locator(f".jp-OutputArea {figure} > .csw-picture").first.bounding_box()
    return box["x"] + (column + 0.5) / 12 * box["width"], box["y"] + (row + 0.5) / 12 * box["height"]


def test_a_state_dragged_from_a_second_picture(notebook):
    nb = notebook([BUNDLED + TWO, "explorer"], height=1500)
    nb.run_all()
    page = nb.page
    page.wait_for_selector(".jp-OutputArea .csw-second canvas", timeout=60_000)
    page.evaluate(WATCH)
    page.locator(".jp-OutputArea .csw-panes").scroll_into_view_if_needed()
    waits, trips = [], []
    for i in range(13):
        page.mouse.move(*middle(page, ".csw-second", 5, i % 12))
        page.mouse.down()
        page.mouse.move(*middle(page, "figure", 6, 11 - i % 12), steps=6)
        page.wait_for_timeout(100)
        page.evaluate(
            """() => {
              wire.length = 0;
              const steps = () => document.querySelectorAll('.jp-OutputArea .csw-steps li').length;
              const before = look();
              window.waited = new Promise((done, fail) => document.addEventListener('pointerup', async () => {
                const from = performance.now();
                const to = await painted(() => steps() === 1 && look() !== before).catch(fail);
                const sent = wire.find((m) => m.way === 'out' && m.type === 'comm_msg');
                const back = wire.filter((m) => m.way === 'in' && m.type === 'comm_msg').pop();
                done([to - from, back.at - sent.at]);
              }, { once: true, capture: true }));
            }"""
        )
        page.mouse.up()
        wait, trip = page.evaluate("() => waited")
        waits.append(wait)
        trips.append(trip)
        page.locator(".jp-OutputArea .csw-whatif button:has-text('Undo')").click()
        page.wait_for_function("() => document.querySelectorAll('.jp-OutputArea .csw-steps li').length === 0")
        page.wait_for_timeout(200)
    summary("dragged state, mouse-up to paint", waits[1:], "120 ms")
    summary("  of it, request to answer", trips[1:], "none")


def test_first_paint_and_class_switch_of_a_large_model(notebook):
    nb = notebook([LARGE, "explorer = Explorer(snapshot, block=6, sublayer='mlp'); explorer"], height=1300)
    first_paints(nb, "ViT-B/16 size, a few classes")
    page = nb.page
    page.locator(".jp-OutputArea .csw-picture:not([hidden]) canvas").scroll_into_view_if_needed()
    waits, rests = [], []
    for name in ("goldfish", "tabby", "acoustic guitar", "zebra", "espresso", "volcano", "airliner", "banjo"):
        box = page.locator(".jp-OutputArea input[role=combobox]").first
        box.click()
        page.keyboard.press("Control+a")
        page.keyboard.type(name)
        page.wait_for_timeout(250)
        page.keyboard.press("ArrowDown")
        page.evaluate(
            """() => {
              wire.length = 0;
              const before = document.querySelector('.jp-OutputArea .csw-map-title span').textContent;
              window.waited = new Promise((done, fail) => document.addEventListener('keydown', async () => {
                const from = performance.now();
                const ready = () => document.querySelector('.jp-OutputArea .csw-map-title span').textContent !== before
                  && document.querySelector('.jp-OutputArea .csw-picture:not([hidden])').getAttribute('aria-busy') === 'false';
                const to = await painted(ready).catch(fail);
                const sent = wire.find((m) => m.way === 'out' && m.type === 'comm_msg');
                const back = wire.filter((m) => m.way === 'in' && m.type === 'comm_msg').pop();
                done([to - from, to - from - (back && sent ? back.at - sent.at : 0), Boolean(back)]);
              }, { once: true, capture: true }));
            }"""
        )
        page.keyboard.press("Enter")
        wait, rest, asked = page.evaluate("() => waited")
        if asked:
            waits.append(wait)
            rests.append(rest)
    summary("class switch that the kernel has to answer, in all", waits, "none")
    summary("  of it, outside of request to answer", rests, "100 ms")
