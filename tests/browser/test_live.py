"""Pages that carry their model, over file:// with the network cut: new pictures and interventions are computed in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_page import only_the_file

from classspace_widgets import ClassSpace
from classspace_widgets.export import export_html
from classspace_widgets.interventions import Ablate, trace_with
from classspace_widgets.scenes import gallery

WAIT = 60_000
"""Milliseconds for an answer, on a crowded machine too."""
CHIP = ".csw-predicted button >> nth=0"


@pytest.fixture(scope="module")
def space() -> ClassSpace:
    return ClassSpace.bundled()


@pytest.fixture(scope="module")
def live(space: ClassSpace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trace = space.trace(gallery()[0].picture, attention=True, heads=True)
    return export_html(trace, tmp_path_factory.mktemp("live") / "live.html", live=True, progress=False).path


def test_a_picture_is_uploaded_and_an_intervention_run_in_the_page(space, live, tmp_path, offline):
    watched = offline(live)
    page = watched.page
    page.wait_for_selector("text=runs in this page")
    scene = gallery()[4]
    scene.picture.save(tmp_path / "other.png")
    page.set_input_files("input[type=file]", tmp_path / "other.png")
    page.wait_for_selector(".csw-title p:has-text('other.png  ·')", timeout=WAIT)
    trace = space.trace(scene.picture)
    assert trace.predictions(k=1)["class_name"][0] in page.inner_text(CHIP)
    page.select_option("select[aria-label=Intervention]", "mlp")
    page.click("button:has-text('Apply')")
    page.wait_for_selector(".csw-steps li", timeout=WAIT)
    changed = trace_with(space, trace, Ablate("mlp")).predictions(k=1)["class_name"][0]
    assert changed in page.inner_text(CHIP)
    watched.shot("live_page")
    assert only_the_file(watched), watched.requests
    assert watched.errors == []


def test_a_file_that_is_no_picture_is_refused_in_words(live, tmp_path, offline):
    watched = offline(live)
    (tmp_path / "no.png").write_bytes(b"not a picture")
    watched.page.wait_for_selector("text=runs in this page")
    watched.page.set_input_files("input[type=file]", tmp_path / "no.png")
    watched.page.wait_for_selector("text=cannot be read as a picture", timeout=WAIT)
    assert watched.errors == []


def test_a_page_with_damaged_weights_stays_a_static_one(live, tmp_path, offline):
    text = live.read_text()
    name = re.search(r'data-engine="([^"]+)"', text).group(1)
    start = text.index(f'id="{name}"') + 100_000
    damaged = tmp_path / "damaged.html"
    damaged.write_text(text[:start] + ("A" if text[start] != "A" else "B") * 40 + text[start + 40 :])
    page = offline(damaged).page
    page.wait_for_selector("text=The model cannot run in this page", timeout=WAIT)
    assert page.locator("button:has-text('New picture')").is_hidden()
    page.focus(".csw-slider input.csw-range")
    page.keyboard.press("Home")
    page.wait_for_selector(".csw-slider input[aria-valuetext^=embedding]")


ABSENT = {
    "Worker": "it has no workers",
    "DecompressionStream": "too old",
}


@pytest.mark.parametrize("missing", ABSENT)
def test_a_browser_that_cannot_run_the_model_says_so(live, offline, missing):
    """A static page where the snapshot can be read; without DecompressionStream nothing can."""
    page = offline(live, script=f"delete globalThis.{missing}").page
    page.wait_for_selector(f"text={ABSENT[missing]}", timeout=WAIT)
    if missing == "Worker":
        page.wait_for_selector("text=shows what was computed before", timeout=WAIT)
        assert page.locator("button:has-text('New picture')").is_hidden()
        page.focus(".csw-slider input.csw-range")
        page.keyboard.press("Home")
        page.wait_for_selector(".csw-slider input[aria-valuetext^=embedding]")
    else:
        assert page.locator("figure.still img").is_visible()


def test_weights_that_differ_by_one_bit_are_refused(live, tmp_path, offline):
    """What their checksum is for: nothing else would notice."""
    import base64
    import gzip

    text = live.read_text()
    name = re.search(r'data-engine="([^"]+)"', text).group(1)
    start = text.index(">", text.index(f'id="{name}"')) + 1
    packed = base64.b64decode(text[start : text.index("<", start)])
    changed = bytearray(gzip.decompress(packed))
    changed[len(changed) // 2] ^= 1
    other = gzip.compress(bytes(changed), mtime=0)[:-8] + packed[-8:]
    damaged = tmp_path / "one_bit.html"
    damaged.write_text(text.replace(base64.b64encode(packed).decode(), base64.b64encode(other).decode()))
    page = offline(damaged).page
    page.wait_for_selector("text=The model cannot run in this page", timeout=WAIT)
    page.wait_for_selector("text=damaged", timeout=WAIT)


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(space, live, offline, how):
    """As a browser hands it over: a file in a transfer of data."""
    import base64
    import io

    watched = offline(live)
    page = watched.page
    page.wait_for_selector("text=runs in this page")
    page.wait_for_selector("button:has-text('Apply')")
    scene = gallery()[4]
    buffer = io.BytesIO()
    scene.picture.save(buffer, "PNG")
    page.evaluate(
        """([bytes, how]) => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], 'given.png', { type: 'image/png' }));
          const target = how === 'drop' ? document.querySelector('.csw-explorer') : document.body;
          const init = { bubbles: true, cancelable: true };
          target.dispatchEvent(how === 'drop'
            ? new DragEvent('drop', { ...init, dataTransfer: data })
            : new ClipboardEvent('paste', { ...init, clipboardData: data }));
        }""",
        [base64.b64encode(buffer.getvalue()).decode(), how],
    )
    page.wait_for_selector(".csw-title p:has-text('given.png  ·')", timeout=WAIT)
    assert space.trace(scene.picture).predictions(k=1)["class_name"][0] in page.inner_text(CHIP)
    assert only_the_file(watched), watched.requests
    assert watched.errors == []


def test_what_the_page_cannot_compute_is_said_in_words(live, offline):
    """Importance needs gradients, which the page does not have."""
    watched = offline(live)
    page = watched.page
    page.wait_for_selector("text=runs in this page")
    page.select_option("select[aria-label=Reading]", "importance")
    page.wait_for_selector("text=does not compute importance", timeout=WAIT)


def test_a_phone_offers_its_camera(live, offline):
    """The chooser of a phone offers the camera for a plain file input that takes pictures, and the album beside it."""
    page = offline(live, width=390, height=844).page
    page.wait_for_selector("text=runs in this page")
    with page.expect_file_chooser() as chooser:
        page.click("button:has-text('New picture')")
    assert chooser.value.element.get_attribute("accept") == "image/*"
    assert chooser.value.element.get_attribute("capture") is None


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_works_on_a_phone(live, tmp_path, offline, dark):
    watched = offline(live, width=390, height=844, dark=dark)
    page = watched.page
    page.wait_for_selector("text=runs in this page")
    assert page.locator("button:has-text('New picture')").is_visible()
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    page.wait_for_selector("button:has-text('Apply')")
    watched.shot(f"live_page_phone_{'dark' if dark else 'light'}")
    page.screenshot(path=str(tmp_path / "whole.png"), full_page=True)
