"""What the commands share: options that name a model, and checks of where they write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from classspace_widgets.space.space import ClassSpace


def expanded(text: str) -> Path:
    """A path as typed; ``~`` is the home folder also where the shell leaves it alone, as in ``--out=~/page.html``."""
    return Path(text).expanduser()


def add_model(parser: argparse.ArgumentParser, *, space: bool = True, default: str = "bundled") -> None:
    """Add ``--model``, ``--space``, ``--checkpoint``, how pictures are prepared, and ``--device``.

    ``default`` is the model where none is named: ``"bundled"``, or ``"bundled/photos"`` where photographs come in.
    """
    parser.add_argument(
        "--model",
        help=f"a timm model name, a folder or name of Hugging Face (with a /), or {', '.join(bundled_names(default))}",
    )
    parser.set_defaults(default_model=default)
    if space:
        parser.add_argument(
            "--space",
            type=expanded,
            metavar="FILE",
            help="classes that `classspace fit` wrote; --model only where it moved",
        )
    parser.add_argument("--checkpoint", type=expanded, help="local weights for the model (.safetensors, .pth)")
    parser.add_argument("--mean", type=float, nargs="+", help="mean of the channels, 0 to 1 (default: the model's)")
    parser.add_argument(
        "--std", type=float, nargs="+", help="standard deviation of the channels (default: the model's)"
    )
    parser.add_argument(
        "--crop", type=float, help="share of a picture that the centre crop keeps (default: the model's)"
    )
    parser.add_argument(
        "--image-size", type=int, nargs="+", metavar="N", help="side, or height and width, of the input in pixels"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")


def bundled_names(default: str = "bundled") -> list[str]:
    """What ``--model`` calls the models that come with the package, the default first, and what they know."""
    from classspace_widgets.models.bundled import read_card, variants

    names = {"bundled" if name == "default" else f"bundled/{name}": name for name in variants()}
    first = sorted(names, key=lambda name: name != default)
    return [f"{name} ({read_card(names[name])['trained_on']}{', the default' * (name == default)})" for name in first]


def check_page(out: Path) -> None:
    """Refuse to write a page where something else may stand, before any work is done."""
    if out.is_dir():
        raise IsADirectoryError(f"--out must be an HTML file, such as {out / 'page.html'}; {out} is a folder")
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out must be an HTML file, such as {out.with_suffix('.html').name}, got {out}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"the folder {out.parent} does not exist; create it first")


def space_of(arguments: argparse.Namespace) -> ClassSpace:
    """The class space that the options name."""
    from classspace_widgets.models.backbone import is_pretrained
    from classspace_widgets.space.space import ClassSpace

    options = model_options(arguments)
    if arguments.space is not None:
        extra = [name for name in options if name != "checkpoint"]
        if extra:
            raise ValueError(
                f"--{extra[0].replace('_', '-')} does not go with --space, whose file says how its pictures are prepared"
            )
        return ClassSpace.load(arguments.space, arguments.model, device=arguments.device, **options)
    model = arguments.model or arguments.default_model
    if model.split("/")[0] == "bundled":
        if options:
            raise ValueError(f"--{next(iter(options)).replace('_', '-')} needs --model with a timm model name")
        return ClassSpace.bundled(model.partition("/")[2] or "default", device=arguments.device)
    if is_pretrained(model):
        if "checkpoint" in options:
            raise ValueError(f"--checkpoint goes with a timm model name; {model} has weights of its own")
        return ClassSpace.from_pretrained(model, device=arguments.device, **options)
    return ClassSpace.from_timm(model, pretrained=not arguments.checkpoint, device=arguments.device, **options)


def model_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Weights and preprocessing, as far as they are given, by the names that `ClassSpace` has for them."""
    names = ("checkpoint", "mean", "std", "crop", "image_size")
    options = {name: given for name in names if (given := getattr(arguments, name, None)) is not None}
    for name in ("mean", "std", "image_size"):
        if len(options.get(name, ())) == 1:
            options[name] = options[name][0]
    return options
