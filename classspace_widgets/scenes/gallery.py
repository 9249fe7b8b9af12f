"""A few chosen scenes: at home, out of place, and with smaller objects."""

from __future__ import annotations

from classspace_widgets.scenes.generator import Scene, make_scene

# Seed, main class, context, number of smaller objects.
_CHOSEN: tuple[tuple[int, str, str, int], ...] = (
    (1, "fish", "sea", 0),
    (52, "rocket", "night sky", 1),
    (13, "snowman", "snow", 1),
    (14, "cactus", "desert", 0),
    (35, "boat", "meadow", 1),
    (36, "penguin", "desert", 1),
    (47, "mushroom", "forest", 2),
    (18, "guitar", "sea", 1),
)


def gallery(*, size: int = 96) -> list[Scene]:
    """Eight chosen scenes, some out of their home context, some with smaller objects; models answer some of them wrongly.

    Parameters
    ----------
    size : int
        Height and width in pixels. The bundled models take 96; a larger size shows the same scenes in more detail.

    Returns
    -------
    list of Scene

    Examples
    --------
    >>> [scene.class_name for scene in gallery()][:2]
    ['fish', 'rocket']
    """
    return [
        make_scene(seed, size=size, label=label, context=context, distractors=distractors)
        for seed, label, context, distractors in _CHOSEN
    ]
