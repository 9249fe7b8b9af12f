"""The 24 classes: the function that draws each, and its home context."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from classspace_widgets.scenes import nature, things
from classspace_widgets.scenes.pen import Pen

Shape = Callable[[np.random.Generator, Pen], None]

SHAPES: dict[str, tuple[Shape, str]] = {
    "fish": (nature.fish, "sea"),
    "boat": (things.boat, "sea"),
    "balloon": (things.balloon, "sky"),
    "bird": (nature.bird, "sky"),
    "butterfly": (nature.butterfly, "meadow"),
    "flower": (nature.flower, "meadow"),
    "ladybird": (nature.ladybird, "meadow"),
    "cactus": (nature.cactus, "desert"),
    "tent": (things.tent, "desert"),
    "car": (things.car, "street"),
    "umbrella": (things.umbrella, "street"),
    "traffic light": (things.traffic_light, "street"),
    "cup": (things.cup, "table"),
    "apple": (nature.apple, "table"),
    "key": (things.key, "table"),
    "snowman": (things.snowman, "snow"),
    "penguin": (nature.penguin, "snow"),
    "rocket": (things.rocket, "night sky"),
    "moon": (things.moon, "night sky"),
    "mushroom": (nature.mushroom, "forest"),
    "tree": (nature.tree, "forest"),
    "lamp": (things.lamp, "room"),
    "guitar": (things.guitar, "room"),
    "clock": (things.clock, "room"),
}
CLASSES = tuple(SHAPES)
HOMES = tuple(home for _, home in SHAPES.values())
