"""What is installed, what is missing or too old, and what to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

from packaging.requirements import Requirement

from classspace_widgets._version import __version__

NEEDED = ("torch", "timm", "numpy", "pandas", "pillow", "safetensors", "ipywidgets", "anywidget", "bokeh")
OPTIONAL = {"jupyterlab": "lab", "distributed": "distributed", "selenium": "figures"}
LAB_EXTENSIONS = {"anywidget": "anywidget", "@jupyter-widgets/jupyterlab-manager": "jupyterlab_widgets"}
"""What JupyterLab must find to show a widget, and the package that brings it."""
BROWSERS = ("chromium", "google-chrome", "chrome", "firefox")


def report() -> tuple[list[str], bool]:
    """Lines to print, and whether everything that is needed was found."""
    lines = [f"classspace-widgets {__version__}, Python {platform.python_version()} on {platform.platform()}"]
    healthy = True

    def say(what: str, found: str, *, well: bool = True) -> None:
        nonlocal healthy
        healthy &= well
        lines.append(f"  {what:<12} {found}")

    lowest = _lowest()
    for name in NEEDED:
        version = _version(name)
        if version is None:
            say(name, f"MISSING: pip install {name}", well=False)
        elif name in lowest and not lowest[name].specifier.contains(version, prereleases=True):
            wanted = lowest[name].specifier
            say(name, f'{version}, TOO OLD: pip install "{name}{wanted}"', well=False)
        else:
            say(name, version)
    for name, extra in OPTIONAL.items():
        say(name, _version(name) or f'not installed (optional): pip install "classspace-widgets[{extra}]"')
    for what, trouble in (("models", _trouble_with_timm()), ("front end", _trouble_with_front_end())):
        say(what, trouble or "ready", well=trouble is None)
    if _version("jupyterlab") is not None:
        trouble = _trouble_with_lab()
        say("widgets", trouble or "ready", well=trouble is None)
    say("weights", _weights())
    say("device", _device())
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    say(
        "browser",
        browser or "none found on the path (needed for Bokeh figures as PNG or SVG, and for the browser tests)",
    )
    lines.append("everything that is needed is there" if healthy else "some things are missing: see above")
    return lines, healthy


def _lowest() -> dict[str, Requirement]:
    """What this package asks for, by name; empty in a checkout that was never installed."""
    try:
        asked = importlib.metadata.requires("classspace-widgets") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = [Requirement(line) for line in asked if "extra ==" not in line]
    return {requirement.name: requirement for requirement in found}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _trouble_with_timm() -> str | None:
    """Why models cannot be built: a torchvision that does not belong to torch is the usual reason."""
    if _version("torch") is None or _version("timm") is None:
        return "cannot be built: see above"
    try:
        importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:
        message = (str(error).splitlines() or [type(error).__name__])[0]
        return f"BROKEN: timm cannot be imported ({message}): pip install --upgrade torch torchvision timm"
    return None


def _trouble_with_front_end() -> str | None:
    static = Path(__file__).parent.parent / "static"
    if all(
        (static / name).is_file()
        for name in ("widget.js", "view.js", "page.js", "actions.js", "tour.js", "memories.js", "engine.js")
    ):
        return None
    return "MISSING: npm --prefix js ci && npm --prefix js run build"


def _trouble_with_lab() -> str | None:
    """Why JupyterLab would show an empty cell."""
    try:
        from jupyter_core.paths import jupyter_path
    except ImportError:
        return "MISSING: pip install jupyter_core"
    folders = [Path(folder) for folder in jupyter_path("labextensions")]
    missing = [
        package
        for extension, package in LAB_EXTENSIONS.items()
        if not any((folder / extension).is_dir() for folder in folders)
    ]
    if missing:
        return f"MISSING: JupyterLab would not find the widgets: pip install --force-reinstall {' '.join(missing)}"
    return None


def _weights() -> str:
    """Where pretrained weights are kept, and how many models are there."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    count = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    offline = ", HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
    return f"{count} pretrained model{'' if count == 1 else 's'} in {cache}{offline}"


def _device() -> str:
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return "unknown (torch cannot be imported)"
    if torch.cuda.is_available():
        return f"CUDA: {torch.cuda.get_device_name(0)}"
    if "cu" in str(torch.__version__) and sys.platform == "linux":
        return (
            f"CPU, {torch.get_num_threads()} threads (torch is built for CUDA, but there is no CUDA device or driver)"
        )
    return f"CPU, {torch.get_num_threads()} threads (no CUDA device)"
