"""Where the logit stands, in a page and in JupyterLab: the reading of the map, and the band under the slider."""

from __future__ import annotations

import pytest

from classspace_widgets import ClassSpace, Explorer
from classspace_widgets.export import export_html
from classspace_widgets.scenes import gallery

SLIDER = ".csw-slider input.csw-range"
PARTS = ".csw-flow-parts > span"


@pytest.fixture(scope="module")
def explorer():
    scene = gallery()[0]
    trace = ClassSpace.bundled("contrast").trace(scene.picture)
    return Explorer(trace, mask=scene.mask, flow=True, reading="flow", block=2, sublayer="mlp")


def parts(page) -> dict[str, float]:
    """The legend of the band: every part and its number."""
    found = page.locator(PARTS).evaluate_all(
        "all => all.map((one) => [one.querySelector('span').textContent, one.querySelector('data').textContent])"
    )
    return {name: float(number.replace("\u2212", "-")) for name, number in found}


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (700, True), (320, False), (320, True)])
def test_a_page_shows_how_the_logit_leaves_the_patches(explorer, tmp_path, offline, width, dark):
    snapshot = explorer.snapshot
    out = export_html(explorer, tmp_path / "page.html")
    watched = offline(out.path, width=width, dark=dark)
    page = watched.page
    page.wait_for_selector(SLIDER)
    fish = snapshot.predicted[0]
    logit = float(snapshot.arrays["output_logits"][fish])
    row = snapshot.meta["classes"]["kept"].index(fish)
    flow = snapshot.arrays["flow"][row]
    page.focus(SLIDER)
    page.keyboard.press("Home")
    for position in range(4):
        page.wait_for_function("n => document.querySelector('.csw-slider input').valueAsNumber === n", arg=position)
        page.wait_for_timeout(100)
        seen = parts(page)
        assert list(seen) == ["[CLS]", "tokens on object", "context tokens", "biases", "logit"]
        assert seen["[CLS]"] == pytest.approx(float(flow[position, 0]), abs=0.006)
        assert seen["logit"] == pytest.approx(logit, abs=0.006)
        assert sum(seen.values()) - seen["logit"] == pytest.approx(logit, abs=0.03)
        page.keyboard.press("ArrowRight")
    # The map's legend tells the sum, and pointing at the band tells the numbers there.
    assert "sum to the logit" in page.locator(".csw-heatmap").inner_text()
    box = page.locator(".csw-flow svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 9, box["y"] + 20)
    assert page.locator("div.csw-flow").get_attribute("title").startswith("block 8 MLP: [CLS] ")
    assert page.locator(".csw-flow svg").get_attribute("aria-label").startswith("Where the logit of fish stands: ")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    watched.shot(f"flow_{width}_{'dark' if dark else 'light'}")
    page.mouse.click(box["x"] + box["width"] - 9, box["y"] + 20)
    page.wait_for_function("() => document.querySelector('.csw-slider input').valueAsNumber === 16")
    assert all(url.startswith(("file:", "data:", "blob:")) for url in watched.requests)
    assert watched.errors == []


def test_a_kernel_is_asked_with_a_click(notebook):
    nb = notebook(
        [
            "from classspace_widgets import ClassSpace, Explorer\nfrom classspace_widgets.scenes import gallery",
            "Explorer(ClassSpace.bundled('contrast').trace(gallery()[0].picture))",
        ],
        height=1200,
    )
    nb.run_all()
    page = nb.page
    page.wait_for_selector(".jp-OutputArea .csw-slider input", timeout=60_000)
    page.locator(".jp-OutputArea div.csw-flow .csw-link").click()
    page.wait_for_selector(f".jp-OutputArea {PARTS}", timeout=30_000)
    seen = parts(page)
    assert list(seen) == ["[CLS]", "image tokens", "biases", "logit"]
    assert sum(seen.values()) - seen["logit"] == pytest.approx(seen["logit"], abs=0.03)
    # What is loaded later has come, too.
    page.locator(".jp-OutputArea .csw-whatif select[aria-label=Intervention]").wait_for(timeout=30_000)
    nb.watched.shot("lab_flow")
    assert nb.watched.errors == []
