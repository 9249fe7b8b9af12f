"""``classspace``: the command line."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from classspace_widgets._version import __version__
from classspace_widgets.cli import demo, export, fit, study
from classspace_widgets.cli.demo import demo_notebook as demo_notebook

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

EXAMPLES = """\
examples:
  classspace demo                                   open the demo notebook on the bundled model
  classspace export photo.jpg --out page.html       one offline page, with the bundled photo model
  classspace export a.jpg b.jpg --model vit_base_patch16_224 --classes goldfish "tiger cat" --out page.html
  classspace fit photos/ --model vit_small_patch14_dinov2.lvd142m --image-size 224 --out mine.safetensors
  classspace export photo.jpg --space mine.safetensors --out page.html
  classspace study --data scenes:500 --twin --out results/
  classspace report results/ --out report.html      figures, tables and methods in one offline page
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
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for part in (demo, export, fit, study):
        part.add_to(commands)
    doctor = commands.add_parser("doctor", help="say what is installed, what is missing and what to do")
    doctor.set_defaults(run=_doctor)
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 2
    try:
        return int(arguments.run(arguments))
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"classspace {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(getattr(arguments, "stopped", "stopped; nothing was written"), file=sys.stderr)
        return 130


def _doctor(_arguments: argparse.Namespace) -> int:
    from classspace_widgets.cli.doctor import report

    lines, healthy = report()
    print("\n".join(lines))
    return 0 if healthy else 1
