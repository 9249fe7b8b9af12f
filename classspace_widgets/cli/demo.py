"""``classspace demo``."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from classspace_widgets.files import write_whole

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
        print(f"{target} is there already and stays as it is; remove it for a fresh copy")
    else:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        write_whole(target, source.read_bytes())
        _trust(target)
        print(f"copied the demo to {target}")
    if arguments.no_open:
        return 0
    # This environment's JupyterLab, whatever the path finds first: only there are the widgets known to be installed.
    if find_spec("jupyterlab") is None:
        raise RuntimeError('JupyterLab is not installed; install it with: pip install "classspace-widgets[lab]"')
    lab = subprocess.Popen([sys.executable, "-m", "jupyterlab", str(target)])
    while True:
        try:
            return lab.wait()
        except KeyboardInterrupt:  # JupyterLab got it too, and asks whether to stop
            continue


def _trust(notebook: Path) -> None:
    """Sign the copy, so that JupyterLab shows its stored views before anything is run."""
    try:
        import nbformat
        from nbformat.sign import NotebookNotary
    except ImportError:
        return  # No Jupyter here: only the copy was asked for.
    NotebookNotary().sign(nbformat.read(notebook, as_version=4))
