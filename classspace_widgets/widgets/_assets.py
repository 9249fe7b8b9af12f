"""The built front end, as widgets take it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from classspace_widgets.export.front_end import script_path, script_text

if TYPE_CHECKING:
    from pathlib import Path


def script(name: str) -> str | Path:
    """Text of a built script; its path under ``ANYWIDGET_HMR=1``, so that edits reload while developing."""
    return script_path(name) if os.environ.get("ANYWIDGET_HMR") == "1" else script_text(name)
