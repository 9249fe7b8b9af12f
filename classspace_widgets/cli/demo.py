"""``classspace demo``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser."""
    demo = commands.add_parser("demo", help="copy the demo notebook here and open it in JupyterLab")
    demo.add_argument("--folder", type=Path, default=Path(), help="where to put the copy (default: here)")
    demo.add_argument("--no-open", action="store_true", help="only copy it")
    demo.set_defaults(run=_demo)


def demo_notebook() -> Path:
    """Where the demo notebook is: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "demo.ipynb", package.parent / "demo.ipynb"):
        if place.is_file():
            return place
    raise FileNotFoundError(
        "the demo notebook is missing; reinstall with: pip install --force-reinstall classspace-widgets"
    )


def _demo(arguments: argparse.Namespace) -> int:
    source, target = demo_notebook(), arguments.folder / "classspace_demo.ipynb"
    if target.exists():
        print(f"{target} is there already: opening it as it is")
    else:
        shutil.copyfile(source, target)
        _trust(target)
        print(f"copied the demo to {target}")
    if arguments.no_open:
        return 0
    if shutil.which("jupyter") is None:
        raise RuntimeError('JupyterLab is not installed; install it with: pip install "classspace-widgets[lab]"')
    return subprocess.call(["jupyter", "lab", str(target)])


def _trust(notebook: Path) -> None:
    """Sign the copy, so that JupyterLab shows its stored views before anything is run."""
    try:
        import nbformat
        from nbformat.sign import NotebookNotary
    except ImportError:
        return  # No Jupyter here: only the copy was asked for.
    NotebookNotary().sign(nbformat.read(notebook, as_version=4))
