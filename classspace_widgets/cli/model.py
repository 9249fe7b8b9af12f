"""What the commands share: options that name a model, and checks of where they write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from classspace_widgets.space import ClassSpace


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``, ``--checkpoint`` and ``--device``."""
    parser.add_argument("--model", default="bundled", help=f"a timm model name, or {', '.join(bundled_names())}")
    parser.add_argument("--checkpoint", type=Path, help="local weights for the model (.safetensors, .pth)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")


def bundled_names() -> list[str]:
    """What ``--model`` calls the models that come with the package, the default first."""
    from classspace_widgets.scenes.model import variants

    return ["bundled (the default)", *(f"bundled/{name}" for name in variants() if name != "default")]


def check_page(out: Path) -> None:
    """Refuse to write a page where something else may stand, before any work is done."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out must be an HTML file, such as {out.with_suffix('.html').name}, got {out}")
    if out.is_dir():
        raise IsADirectoryError(f"--out must be an HTML file, {out} is a folder")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"the folder {out.parent} does not exist; create it first")


def space_of(arguments: argparse.Namespace) -> ClassSpace:
    """The class space that the options name."""
    from classspace_widgets.space import ClassSpace

    if arguments.model.split("/")[0] == "bundled":
        if arguments.checkpoint:
            raise ValueError("--checkpoint needs --model with a timm model name")
        return ClassSpace.bundled(arguments.model.partition("/")[2] or "default", device=arguments.device)
    options = {"checkpoint": arguments.checkpoint} if arguments.checkpoint else {}
    return ClassSpace.from_timm(
        arguments.model, pretrained=not arguments.checkpoint, device=arguments.device, **options
    )
