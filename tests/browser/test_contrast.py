"""Every text of the explorer stands out from what is behind it, in light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser.test_page import SLIDER, trace  # noqa: F401, a fixture

from classspace_widgets.export import export_html

CONTRAST = (Path(__file__).parent / "contrast.js").read_text().split("\n", 1)[1]


@pytest.mark.parametrize("dark", [False, True])
def test_texts_are_legible(trace, tmp_path, offline, dark):  # noqa: F811
    watched = offline(export_html(trace.snapshot(), tmp_path / "page.html").path, dark=dark, height=1400)
    page = watched.page
    page.wait_for_selector(SLIDER)
    page.wait_for_timeout(500)
    assert page.evaluate("document.querySelectorAll('.csw-explorer *').length") > 200
    assert page.evaluate(CONTRAST, 4.5) == []
    # The measure sees what is hard to read.
    page.evaluate("() => { document.querySelector('.csw-explorer h3').style.color = 'rgba(128, 128, 128, 0.5)' }")
    assert len(page.evaluate(CONTRAST, 4.5)) >= 1
