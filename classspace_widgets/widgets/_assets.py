"""The built front end, read from ``static/``."""

from __future__ import annotations

import functools
import os
from pathlib import Path

STATIC = Path(__file__).resolve().parent.parent / "static"


def script(name: str) -> str | Path:
    """Text of a built script; its path under ``ANYWIDGET_HMR=1``, so that edits reload while developing."""
    path = STATIC / name
    if not path.is_file():
        raise FileNotFoundError(
            f"the front end {name} has not been built; in a checkout run: npm --prefix js ci && npm --prefix js run build"
        )
    return path if os.environ.get("ANYWIDGET_HMR") == "1" else _text(path)


@functools.cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
