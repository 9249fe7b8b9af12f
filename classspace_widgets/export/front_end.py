"""The built front end, which stands in ``static/``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from classspace_widgets.export.page import Mount

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


LATER = ("page", "actions", "tour", "engine")
"""Scripts that the runtime loads when it needs them: from the page that it stands in, or from the kernel."""


def later(name: str) -> str:
    """The text of a script that the runtime loads when it needs it.

    Raises
    ------
    ValueError
        For another name than those of `LATER`.
    """
    if name not in LATER:
        raise ValueError(f"unknown script {name[:60]!r}; expected one of {', '.join(LATER)}")
    return script_text(f"{name}.js")


def later_in_page(mounts: Iterable[Mount]) -> dict[str, str]:
    """The scripts that the views of a page may need, by name."""
    listed = list(mounts)
    needed = {
        "page": True,
        "actions": any(mount.pinned or mount.model for mount in listed),
        "tour": any(mount.options.get("tours") for mount in listed),
        "engine": False,  # runs at once, where it is in a page: see `engine`
    }
    return {name: later(name) for name in LATER if needed[name]}


def engine() -> str:
    """The script that runs a model inside a page."""
    return script_text("engine.js")


@functools.cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
