"""Two scenes that differ in nothing but one object, for patching experiments."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from classspace_widgets.lookup import class_index, close_matches
from classspace_widgets.scenes.contexts import CONTEXTS
from classspace_widgets.scenes.generator import Layout, Scene, check_settings, check_size, draw, lay_out
from classspace_widgets.scenes.shapes import CLASSES

if TYPE_CHECKING:
    from collections.abc import Sequence


def pair(
    seed: int | np.random.Generator,
    *,
    swap: Sequence[int | str],
    size: int = 96,
    context: str | None = None,
    p_home: float = 0.6,
    distractors: int | tuple[int, int] = (0, 2),
) -> tuple[Scene, Scene]:
    """Two scenes with another main object in the same place, equal in every pixel outside its mask.

    Parameters
    ----------
    seed : int or numpy.random.Generator
        As in `make_scene`.
    swap : two classes
        The main object of the first scene and of the second, by index or name.
    size, context, p_home, distractors
        As in `make_scene`; home is that of the first object, and no smaller object is of either class.

    Returns
    -------
    tuple of Scene
        Outside ``(first.mask == 1) | (second.mask == 1)`` their pictures are equal, and each shows the scene without the
        object outside its own mask: pixels that the object covers less than half show nothing of it.

    Raises
    ------
    ValueError
        As in `make_scene`, or for two classes that are the same.

    Examples
    --------
    >>> fish, boat = pair(3, swap=("fish", "boat"))
    >>> outside = (fish.mask != 1) & (boat.mask != 1)
    >>> bool((fish.image[outside] == boat.image[outside]).all()), bool((fish.image == boat.image).all())
    (True, False)
    """
    classes = [class_index(CLASSES, name) for name in swap]
    if len(classes) != 2 or classes[0] == classes[1]:
        raise ValueError(f"swap must be two different classes, such as ('fish', 'boat'), got {tuple(swap)!r}")
    check_size(size)
    low, high = check_settings(p_home, distractors)
    rng = np.random.default_rng(seed)
    if context is not None and context not in CONTEXTS:
        raise ValueError(f"there is no context {context!r}{close_matches(str(context), CONTEXTS)}")
    layout = lay_out(rng, classes[0], context, p_home, int(rng.integers(low, high + 1)), without=classes[1])
    empty = draw(replace(layout, objects=layout.objects[1:], depth=tuple(i - 1 for i in layout.depth if i)), size)
    return _with(layout, classes[0], empty), _with(layout, classes[1], empty)


def _with(layout: Layout, label: int, empty: Scene) -> Scene:
    """The scene with a main object of a class, painted over the scene without any."""
    objects = (replace(layout.objects[0], label=label), *layout.objects[1:])
    layout = replace(layout, objects=objects)
    full = draw(layout, empty.image.shape[0])
    inside = full.mask == 1
    mask = np.where(inside, 1, np.where(empty.mask > 0, empty.mask + 1, 0)).astype(np.uint8)
    image = np.where(inside[..., None], full.image, empty.image)
    return Scene(image=image, mask=mask, label=label, context=layout.context, layout=layout)
