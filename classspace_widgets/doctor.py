"""What is installed, what is missing, and what to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import shutil
from pathlib import Path

from classspace_widgets._version import __version__

NEEDED = ("torch", "timm", "numpy", "pandas", "pillow", "safetensors", "ipywidgets", "anywidget", "bokeh")
OPTIONAL = {
    "jupyterlab": 'pip install "classspace-widgets[lab]"',
    "distributed": 'pip install "classspace-widgets[distributed]"',
}


def report() -> tuple[list[str], bool]:
    """Lines to print, and whether everything that is needed was found."""
    lines = [f"classspace-widgets {__version__}, Python {platform.python_version()} on {platform.platform()}"]
    healthy = True
    for name in NEEDED:
        version = _version(name)
        healthy &= version is not None
        lines.append(f"  {name:<12} {version or f'MISSING: pip install {name}'}")
    for name, remedy in OPTIONAL.items():
        lines.append(f"  {name:<12} {_version(name) or f'not installed (optional): {remedy}'}")
    lines.append(f"  {'device':<12} {_device()}")
    static = Path(__file__).parent / "static"
    built = all((static / name).is_file() for name in ("widget.js", "view.js"))
    healthy &= built
    lines.append(
        f"  {'front end':<12} {'built' if built else 'MISSING: npm --prefix js ci && npm --prefix js run build'}"
    )
    browser = next(
        (found for name in ("chromium", "google-chrome", "chrome", "firefox") if (found := shutil.which(name))), None
    )
    lines.append(f"  {'browser':<12} {browser or 'none found on the path (only needed for the browser tests)'}")
    lines.append("everything that is needed is there" if healthy else "some things are missing: see above")
    return lines, healthy


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> str:
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return "unknown (torch cannot be imported)"
    if torch.cuda.is_available():
        return f"CUDA: {torch.cuda.get_device_name(0)}"
    return f"CPU, {torch.get_num_threads()} threads (no CUDA device)"
