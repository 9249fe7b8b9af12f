"""A contact sheet: every class in its home context, and every class in another."""

from __future__ import annotations

from PIL import Image

from classspace_widgets.scenes.contexts import CONTEXTS
from classspace_widgets.scenes.generator import make_scene
from classspace_widgets.scenes.shapes import CLASSES, HOMES


def contact_sheet(*, size: int = 96, columns: int = 8, seed: int = 0) -> Image.Image:
    """All classes, first in their home contexts, then in other contexts with one smaller object.

    Parameters
    ----------
    size : int
        Height and width of each scene in pixels.
    columns : int
        Scenes in a row.
    seed : int
        Another seed shows other scenes.

    Returns
    -------
    PIL.Image.Image

    Examples
    --------
    >>> contact_sheet(size=16).size
    (128, 96)
    """
    if columns < 1:
        raise ValueError(f"columns must be 1 or more, got {columns}")
    scenes = []
    for away in (False, True):
        for i, (label, home) in enumerate(zip(CLASSES, HOMES, strict=True)):
            others = [name for name in CONTEXTS if name != home]
            context = others[(i + seed) % len(others)] if away else home
            scenes.append(make_scene(100 * seed + i, size=size, label=label, context=context, distractors=int(away)))
    sheet = Image.new("RGB", (columns * size, -(-len(scenes) // columns) * size), "white")
    for i, scene in enumerate(scenes):
        sheet.paste(scene.picture, (i % columns * size, i // columns * size))
    return sheet
