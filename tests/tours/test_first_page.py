"""The page that the documentation opens with: the model itself, the tours, and not too much to wait for."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from classspace_widgets.tours import BUNDLED

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_it_carries_the_model_and_the_tours_in_little(tmp_path):
    found = importlib.util.spec_from_file_location("gallery_of_the_docs", DOCS / "_ext/gallery.py")
    gallery = importlib.util.module_from_spec(found)
    found.loader.exec_module(gallery)
    page = gallery.write_first_page(tmp_path)
    text = page.path.read_text(encoding="utf-8")
    assert page.nbytes <= 4_500_000
    assert all(name in text for name in BUNDLED)
    assert "worker-src blob:" in text
    (frame,) = re.findall(
        r'<iframe class="live" src="gallery/([^"]+)"', (DOCS / "index.md").read_text(encoding="utf-8")
    )
    assert frame == page.path.name
