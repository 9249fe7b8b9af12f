"""``classspace export``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from classspace_widgets.cli.model import add_model, check_page, expanded, space_of
from classspace_widgets.pictures import shown_name

EXAMPLES = """\
examples:
  classspace export photo.jpg --out page.html                        any photograph, with the bundled photo model
  classspace export photo.jpg --mask mask.png --out page.html        tells object and context apart
  classspace export photo.jpg --live --out page.html                 takes other pictures and interventions in the page
  classspace export scene.png --model bundled --out page.html        a drawn scene, with a model of drawn scenes
  classspace export scene.png --model bundled --mask mask.png --live --tour four-ways --out page.html
  classspace export a.jpg b.jpg --model vit_base_patch16_224 --classes goldfish "tiger cat" --out page.html
  classspace export photo.jpg --space mine.safetensors --out page.html
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser."""
    export = commands.add_parser(
        "export",
        help="write one offline HTML page with an explorer for every picture",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_argument("images", nargs="+", type=expanded, metavar="IMAGE", help="picture files")
    export.add_argument("--out", type=expanded, required=True, help="the HTML file to write")
    export.add_argument(
        "--mask",
        nargs="+",
        type=expanded,
        metavar="MASK",
        help="a mask file for every picture, of its size: 0 is context, 1, 2, ... are objects (black and white: one object)",
    )
    export.add_argument("--title", default="", help="the page's title")
    export.add_argument("--classes", nargs="+", metavar="CLASS", help="carry only these classes (names or numbers)")
    export.add_argument(
        "--streams", nargs="+", metavar="STREAM", help="with --classes: ranks of these streams only, for a smaller page"
    )
    export.add_argument(
        "--ranks-only", action="store_true", help="with --classes: only exact ranks, for the smallest page"
    )
    export.add_argument(
        "--live",
        action="store_true",
        help="carry the model in the page, which then takes new pictures and interventions without a kernel or a network",
    )
    export.add_argument(
        "--tour",
        nargs="+",
        metavar="TOUR",
        help="guided tours of the first picture: names of those of the package, or Markdown files (most need --live)",
    )
    add_model(export, default="bundled/photos")
    export.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    check_page(arguments.out)
    masks = arguments.mask or []
    if masks and len(masks) != len(arguments.images):
        raise ValueError(
            f"--mask takes one mask for every picture, got {len(masks)} for {len(arguments.images)} pictures"
        )
    missing = [str(path) for path in [*arguments.images, *masks] if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"no such file: {', '.join(missing)}")
    import numpy as np

    from classspace_widgets.cli.masks import mask_options
    from classspace_widgets.export.html import export_html
    from classspace_widgets.export.page import page_title
    from classspace_widgets.export.portable import Payload
    from classspace_widgets.images import read_picture
    from classspace_widgets.models.bundled import card_of, described
    from classspace_widgets.progress import progress_bar
    from classspace_widgets.tours import as_tours

    tours = as_tours(arguments.tour)
    space = space_of(arguments)
    card = card_of(space.name, space.class_names)
    if card is not None:
        print(described(card))
        print("on the command line: --model vit_base_patch16_224; drawn scenes: --model bundled")
    classes = [int(c) if c.isdigit() else c for c in arguments.classes] if arguments.classes else None
    snapshots, said = [], []
    with progress_bar(len(arguments.images), "tracing", "picture") as bar:
        for i, path in enumerate(arguments.images):
            # A picture with a mask stays as it is stored, as its mask does: an array says nothing of how to turn it.
            picture = read_picture(path, upright=False)[0] if masks else path
            trace = space.trace(np.asarray(picture) if masks else path, attention=True, heads=True)
            drawn = mask_options(masks[i], picture, space) if masks else {}
            made = trace.snapshot(title=shown_name(path.name), **drawn)
            said.append(f"{shown_name(path.name)}: {made.answer}")
            if made.meta["payload"]["mode"] == "all" and not arguments.live:
                made.source = None  # Nothing is to be read again, so the trace need not be kept.
            snapshots.append(made)
            bar.update()
    print(*said, sep="\n")
    title = arguments.title or page_title(snapshots)
    payload = Payload(streams=arguments.streams, ranks_only=arguments.ranks_only)
    items, live = [f"# {title}", *snapshots], arguments.live
    with _printed("classspace_widgets.export.html"):
        page = export_html(items, arguments.out, title=title, classes=classes, payload=payload, live=live, tour=tours)
    print(page)
    return 0


@contextmanager
def _printed(name: str) -> Iterator[None]:
    """What a module logs is printed."""
    log, handler = logging.getLogger(name), logging.StreamHandler(sys.stdout)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
