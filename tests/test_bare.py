"""A snapshot opens with numpy and anywidget alone; `check_bare` says what "opens" is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from make_fixtures import synthetic


def test_a_snapshot_needs_numpy_and_anywidget_alone(tmp_path):
    synthetic("all").save(tmp_path / "fish.csnap")
    script = Path(__file__).parent / "check_bare.py"
    command = [sys.executable, str(script), "--refuse", str(tmp_path / "fish.csnap"), str(tmp_path / "page.html")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 0, done.stderr
    assert "page.html: " in done.stdout
    page = (tmp_path / "page.html").read_text()
    assert '<img src="data:image/' in page  # the picture alone: there is no Pillow to draw a map
