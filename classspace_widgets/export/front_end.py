"""The built front end, which stands in ``static/``."""

from __future__ import annotations

import functools
from pathlib import Path

STATIC = Path(__file__).resolve().parents[1] / "static"


def script_path(name: str) -> Path:
    """Where a built script is.

    Raises
    ------
    FileNotFoundError
        In a checkout whose front end has not been built.
    """
    path = STATIC / name
    if not path.is_file():
        raise FileNotFoundError(
            f"the front end {name} has not been built; in a checkout run: npm --prefix js ci && npm --prefix js run build"
        )
    return path


def script_text(name: str) -> str:
    """The text of a built script."""
    return _text(script_path(name))


def runtime() -> str:
    """The module that draws every view, in notebooks and in pages."""
    return script_text("widget.js")


def engine() -> str:
    """The script that runs a model inside a page."""
    return script_text("engine.js")


@functools.cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
