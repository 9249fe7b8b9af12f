"""Animals and plants, each drawn by a function of a random generator and a pen."""

from __future__ import annotations

import numpy as np

from classspace_widgets.scenes.pen import INK, Pen, oval, pick, tone

WHITE = (246, 244, 238)


def _eye(pen: Pen, x: float, y: float, size: float) -> None:
    pen.disc(x, y, size, size, WHITE, line=False)
    pen.disc(x + 0.2 * size, y, 0.6 * size, 0.6 * size, INK, line=False)


def fish(rng: np.random.Generator, pen: Pen) -> None:
    """A fish with stripes."""
    body = pick(rng, (244, 124, 48), (248, 196, 40), (226, 72, 84), (150, 96, 210))
    fin, high = tone(body, 74), rng.uniform(0.42, 0.58)
    pen.blob([(-0.5, 0), (-0.95, -0.5), (-0.86, 0), (-0.95, 0.5)], fin)
    pen.blob([(-0.25, -high + 0.1), (0.0, -high - 0.28), (0.3, -high + 0.12)], fin)
    pen.blob([(-0.6, 0), (-0.15, -high), (0.45, -0.85 * high), (0.95, 0.04), (0.45, 0.85 * high), (-0.15, high)], body)
    for x in (-0.22, 0.14):
        pen.fill(
            [(x, -0.88 * high), (x + 0.14, -0.86 * high), (x + 0.14, 0.86 * high), (x, 0.88 * high)], WHITE, line=False
        )
    pen.blob([(0.1, 0.12), (-0.12, 0.42), (0.2, 0.36)], fin)
    _eye(pen, 0.58, -0.12, 0.14)


def bird(rng: np.random.Generator, pen: Pen) -> None:
    """A small round bird with a raised wing."""
    body = pick(rng, (66, 132, 214), (220, 70, 66), (244, 190, 48), (90, 170, 120))
    wing = tone(body, 70)
    pen.fill([(-0.5, 0.1), (-1.0, -0.12), (-0.98, 0.16), (-0.9, 0.36), (-0.45, 0.36)], wing)
    pen.fill([(0.72, -0.4), (1.02, -0.24), (0.7, -0.14)], (244, 150, 40))
    pen.blob(
        [(-0.6, 0.15), (-0.1, -0.12), (0.3, -0.6), (0.72, -0.5), (0.76, -0.1), (0.5, 0.42), (0.0, 0.62), (-0.45, 0.48)],
        body,
    )
    pen.blob([(0.56, 0.02), (0.4, 0.4), (0.0, 0.52), (0.2, 0.15)], tone(body, 160), line=False)
    lift = rng.uniform(0.55, 1.0)
    pen.blob(
        [(0.15, 0.1), (-0.15, -0.3 * lift), (-0.62, -0.95 * lift), (-0.66, -0.4), (-0.45, 0.12), (-0.12, 0.3)], wing
    )
    _eye(pen, 0.5, -0.32, 0.12)


def penguin(rng: np.random.Generator, pen: Pen) -> None:
    """A penguin."""
    coat, beak = pick(rng, (46, 54, 78), (60, 60, 66)), (246, 164, 44)
    for x in (-0.26, 0.26):
        pen.disc(x, 0.88, 0.24, 0.11, beak)
    wide = rng.uniform(0.5, 0.62)
    lift = rng.uniform(0.05, 0.4)
    for side in (-1, 1):
        pen.blob(
            [
                (side * 0.4, -0.3),
                (side * (wide + 0.3), 0.25 - lift),
                (side * (wide + 0.2), 0.4 - lift),
                (side * 0.4, 0.2),
            ],
            coat,
        )
    pen.blob(
        [
            (0, -0.95),
            (0.36, -0.75),
            (0.42, -0.35),
            (wide, 0.3),
            (0.4, 0.82),
            (-0.4, 0.82),
            (-wide, 0.3),
            (-0.42, -0.35),
            (-0.36, -0.75),
        ],
        coat,
    )
    pen.blob(
        [(0, -0.3), (0.3, -0.05), (0.38, 0.4), (0.24, 0.74), (-0.24, 0.74), (-0.38, 0.4), (-0.3, -0.05)],
        WHITE,
        line=False,
    )
    pen.disc(-0.17, -0.52, 0.17, 0.22, WHITE, line=False)
    pen.disc(0.17, -0.52, 0.17, 0.22, WHITE, line=False)
    for x in (-0.13, 0.15):
        pen.disc(x, -0.56, 0.07, 0.08, INK, line=False)
    pen.fill([(-0.16, -0.4), (0.16, -0.4), (0, -0.18)], beak, line=False)


def butterfly(rng: np.random.Generator, pen: Pen) -> None:
    """A butterfly with spotted wings."""
    wing = pick(rng, (240, 120, 40), (90, 120, 220), (222, 90, 170), (246, 206, 60))
    spot = pick(rng, (250, 240, 210), (70, 50, 90))
    wide = rng.uniform(0.82, 0.98)
    for side in (-1, 1):
        pen.blob([(side * 0.05, 0.0), (side * 0.3, 0.85), (side * 0.66, 0.78), (side * 0.74, 0.35)], tone(wing, 78))
        pen.blob(
            [
                (side * 0.05, -0.1),
                (side * 0.42, -0.85),
                (side * wide, -0.82),
                (side * 0.96 * wide, -0.2),
                (side * 0.4, 0.16),
            ],
            wing,
        )
        pen.disc(side * 0.62, -0.45, 0.17, 0.19, spot, line=False)
        pen.disc(side * 0.45, 0.45, 0.12, 0.13, spot, line=False)
        pen.stroke([(side * 0.03, -0.5), (side * 0.14, -0.75), (side * 0.28, -0.95)], 0.06)
    pen.disc(0, 0.02, 0.1, 0.55, (70, 50, 50))


def ladybird(rng: np.random.Generator, pen: Pen) -> None:
    """A ladybird seen from above."""
    shell = pick(rng, (220, 44, 40), (236, 90, 30), (246, 190, 40))
    for y in (-0.3, 0.15, 0.58):
        pen.stroke([(-0.92, y + 0.12), (-0.5, y), (0.5, y), (0.92, y + 0.12)], 0.1)
    for side in (-1, 1):
        pen.stroke([(side * 0.12, -0.7), (side * 0.3, -0.98)], 0.07)
    pen.disc(0, -0.55, 0.42, 0.34, (44, 40, 48))
    pen.disc(0, 0.15, 0.76, 0.74, shell)
    pen.stroke([(0, -0.58), (0, 0.88)], 0.08)
    size = rng.uniform(0.12, 0.17)
    for x, y in ((0.3, -0.2), (0.44, 0.22), (0.26, 0.58)):
        pen.disc(x, y, size, size, INK, line=False)
        pen.disc(-x, y, size, size, INK, line=False)
    for side in (-1, 1):
        pen.disc(side * 0.2, -0.66, 0.1, 0.1, WHITE, line=False)


def flower(rng: np.random.Generator, pen: Pen) -> None:
    """A flower with a stem and two leaves."""
    petal = pick(rng, (236, 96, 150), (246, 240, 236), (150, 110, 226), (240, 84, 60))
    green = pick(rng, (70, 160, 70), (50, 140, 90))
    pen.stroke([(0, -0.2), (0.05, 0.4), (0, 0.95)], 0.13, green, line=True)
    pen.blob([(0.02, 0.65), (0.3, 0.2), (0.62, 0.2), (0.4, 0.6)], green)
    pen.blob([(0.0, 0.8), (-0.3, 0.35), (-0.6, 0.38), (-0.4, 0.74)], green)
    count = int(rng.integers(5, 8))
    for x, y in oval(0, -0.4, 0.36, 0.36)[:: 40 // count][:count]:
        pen.disc(x, y, 0.24, 0.24, petal)
    pen.disc(0, -0.4, 0.3, 0.3, petal, line=False)
    pen.disc(0, -0.4, 0.2, 0.2, (250, 200, 60))


def cactus(rng: np.random.Generator, pen: Pen) -> None:
    """A cactus with two arms."""
    green = pick(rng, (62, 150, 84), (84, 160, 70), (48, 132, 104))
    left, right = rng.uniform(-0.35, -0.05), rng.uniform(-0.55, -0.2)
    pen.stroke([(-0.1, 0.3), (-0.62, 0.3), (-0.62, left)], 0.26, green, line=True)
    pen.stroke([(0.1, 0.08), (0.62, 0.08), (0.62, right)], 0.26, green, line=True)
    pen.stroke([(0, 0.8), (0, -0.7)], 0.44, green, line=True)
    for x in (-0.1, 0.1):
        pen.stroke([(x, 0.85), (x, -0.7)], 0.05, tone(green, 70))
    for x, y in ((-0.62, left - 0.06), (0.62, right - 0.06), (0.0, -0.86)):
        pen.disc(x, y, 0.12, 0.1, (240, 110, 160), line=False)


def mushroom(rng: np.random.Generator, pen: Pen) -> None:
    """A spotted mushroom."""
    cap = pick(rng, (212, 48, 44), (226, 96, 40), (160, 84, 50))
    wide = rng.uniform(0.8, 0.96)
    pen.blob([(-0.26, 0.0), (0.26, 0.0), (0.28, 0.6), (0.38, 0.92), (-0.38, 0.92), (-0.28, 0.6)], (244, 230, 206))
    pen.blob([(-wide, 0.1), (-0.8 * wide, -0.45), (0, -0.9), (0.8 * wide, -0.45), (wide, 0.1), (0, 0.2)], cap)
    for x, y, size in ((-0.4, -0.3, 0.17), (0.12, -0.52, 0.18), (0.52, -0.14, 0.15), (-0.02, -0.06, 0.12)):
        pen.disc(x * wide, y, size, 0.85 * size, WHITE, line=False)


def tree(rng: np.random.Generator, pen: Pen) -> None:
    """A leafy tree."""
    leaf = pick(rng, (66, 150, 60), (40, 128, 76), (150, 170, 50), (222, 140, 40))
    pen.fill([(-0.14, 0.0), (0.14, 0.0), (0.16, 0.75), (0.3, 0.96), (-0.3, 0.96), (-0.16, 0.75)], (122, 80, 50))
    crown = [(-0.46, 0.05, 0.42), (0.46, 0.05, 0.42), (-0.3, -0.42, 0.4), (0.32, -0.42, 0.4), (0, -0.6, 0.38)]
    for x, y, size in crown:
        pen.disc(x, y, size, size, leaf)
    pen.disc(0, -0.18, 0.5, 0.42, leaf, line=False)
    for x, y in ((-0.4, -0.1), (0.1, -0.5), (0.4, 0.05)):
        shift = rng.uniform(-0.08, 0.08)
        pen.stroke(oval(x + shift, y, 0.16, 0.13, 20, 160), 0.07, tone(leaf, 72))


def apple(rng: np.random.Generator, pen: Pen) -> None:
    """An apple with a leaf."""
    skin = pick(rng, (212, 40, 48), (130, 190, 60), (240, 190, 60))
    wide = rng.uniform(0.74, 0.88)
    pen.stroke([(0, -0.4), (0.04, -0.68), (0.14, -0.92)], 0.11, (110, 72, 46), line=True)
    pen.blob([(0.08, -0.62), (0.3, -0.94), (0.66, -0.88), (0.44, -0.62)], (86, 168, 70))
    pen.blob(
        [
            (0, -0.42),
            (0.42, -0.58),
            (wide, -0.1),
            (0.6, 0.6),
            (0.24, 0.86),
            (0, 0.78),
            (-0.24, 0.86),
            (-0.6, 0.6),
            (-wide, -0.1),
            (-0.42, -0.58),
        ],
        skin,
    )
    pen.disc(-0.42, -0.18, 0.12, 0.2, tone(skin, 165), line=False)
