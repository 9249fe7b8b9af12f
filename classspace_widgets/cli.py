"""``classspace``: the command line."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from classspace_widgets._version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = """\
examples:
  classspace demo                                   open the demo notebook on the bundled model
  classspace export fish.png --out fish.html        one offline page, bundled model (it knows drawn scenes only)
  classspace export a.jpg b.jpg --model vit_base_patch16_224 --classes goldfish "tiger cat" --out page.html
  classspace doctor                                 what is installed, what is missing, what to do
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="classspace",
        description="Watch a vision transformer make up its mind.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"classspace-widgets {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_export(commands)
    doctor = commands.add_parser("doctor", help="say what is installed, what is missing and what to do")
    doctor.set_defaults(run=_doctor)
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"classspace {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser("demo", help="copy the demo notebook here and open it in JupyterLab")
    demo.add_argument("--folder", type=Path, default=Path(), help="where to put the copy (default: here)")
    demo.add_argument("--no-open", action="store_true", help="only copy it")
    demo.set_defaults(run=_demo)


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = commands.add_parser(
        "export",
        help="write one offline HTML page with an explorer for every picture",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    export.add_argument(
        "--model", default="bundled", help="a timm model name, or bundled, bundled/gap (default: bundled)"
    )
    export.add_argument("--checkpoint", type=Path, help="local weights for the model (.safetensors, .pth)")
    export.add_argument("--out", type=Path, required=True, help="the HTML file to write")
    export.add_argument("--title", default="", help="the page's title")
    export.add_argument("--classes", nargs="+", metavar="CLASS", help="carry only these classes (names or numbers)")
    export.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    export.set_defaults(run=_export)


def demo_notebook() -> Path:
    """Where the demo notebook is: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent
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
        print(f"copied the demo to {target}")
    if arguments.no_open:
        return 0
    if shutil.which("jupyter") is None:
        raise RuntimeError('JupyterLab is not installed; install it with: pip install "classspace-widgets[lab]"')
    return subprocess.call(["jupyter", "lab", str(target)])


def _export(arguments: argparse.Namespace) -> int:
    missing = [str(path) for path in arguments.images if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"no such file: {', '.join(missing)}")
    from tqdm import tqdm

    from classspace_widgets.export import estimate_bytes, export_html, page_title, portable
    from classspace_widgets.space import ClassSpace

    if arguments.model.split("/")[0] == "bundled":
        variant = arguments.model.partition("/")[2] or "default"
        space = ClassSpace.bundled(variant, device=arguments.device)
    else:
        options = {"checkpoint": arguments.checkpoint} if arguments.checkpoint else {}
        space = ClassSpace.from_timm(
            arguments.model, pretrained=not arguments.checkpoint, device=arguments.device, **options
        )
    classes = [int(c) if c.isdigit() else c for c in arguments.classes] if arguments.classes else None
    snapshots = []
    for path in tqdm(arguments.images, desc="tracing", unit="picture", disable=len(arguments.images) < 2):
        trace = space.trace(path, attention=True, heads=True)
        snapshots.append(portable(trace.snapshot(title=path.name), classes))
    print(f"the page will be about {estimate_bytes(snapshots) / 1e6:.1f} MB")
    title = arguments.title or page_title(snapshots)
    print(export_html([f"# {title}", *snapshots], arguments.out, title=title))
    return 0


def _doctor(_arguments: argparse.Namespace) -> int:
    from classspace_widgets.doctor import report

    lines, healthy = report()
    print("\n".join(lines))
    return 0 if healthy else 1
