"""Objects that people make, and the moon, each drawn by a function of a random generator and a pen."""

from __future__ import annotations

import numpy as np

from classspace_widgets.scenes.pen import INK, Pen, oval, pick, tone

WHITE = (246, 244, 238)
GLASS = (176, 224, 240)


def boat(rng: np.random.Generator, pen: Pen) -> None:
    """A sailing boat."""
    hull = pick(rng, (200, 60, 50), (50, 90, 160), (140, 90, 56), (240, 240, 236))
    sail = pick(rng, (248, 244, 230), (250, 210, 110), (240, 150, 140))
    pen.stroke([(0, 0.4), (0, -0.95)], 0.09, (120, 80, 50), line=True)
    pen.fill([(0.1, -0.9), (0.1, 0.28), (rng.uniform(0.6, 0.85), 0.28)], sail)
    pen.fill([(-0.1, -0.72), (-0.1, 0.28), (-0.62, 0.28)], tone(sail, 88))
    pen.fill([(-0.95, 0.42), (0.95, 0.42), (0.62, 0.88), (-0.62, 0.88)], hull)
    pen.fill([(-0.88, 0.54), (0.88, 0.54), (0.82, 0.64), (-0.82, 0.64)], tone(hull, 150), line=False)


def balloon(rng: np.random.Generator, pen: Pen) -> None:
    """A hot-air balloon with striped cloth."""
    cloth = pick(rng, (230, 70, 70), (70, 130, 220), (250, 180, 50), (150, 90, 200))
    stripe = pick(rng, (250, 240, 220), (250, 214, 90))
    for side in (-1, 1):
        pen.stroke([(side * 0.3, 0.3), (side * 0.17, 0.72)], 0.05)
    pen.fill([(-0.22, 0.68), (0.22, 0.68), (0.17, 0.97), (-0.17, 0.97)], (170, 110, 60))
    wide = rng.uniform(0.68, 0.78)
    pen.blob(
        [
            (0, -0.98),
            (0.5, -0.82),
            (wide, -0.35),
            (0.5, 0.12),
            (0.26, 0.46),
            (-0.26, 0.46),
            (-0.5, 0.12),
            (-wide, -0.35),
            (-0.5, -0.82),
        ],
        cloth,
    )
    pen.blob(
        [(0, -0.96), (0.2, -0.75), (0.26, -0.35), (0.12, 0.45), (-0.12, 0.45), (-0.26, -0.35), (-0.2, -0.75)],
        stripe,
        line=False,
    )
    for side in (-1, 1):
        pen.blob(
            [
                (side * 0.3, -0.86),
                (side * 0.56, -0.66),
                (side * (wide - 0.06), -0.3),
                (side * 0.44, 0.1),
                (side * 0.54, -0.35),
            ],
            stripe,
            line=False,
        )


def tent(rng: np.random.Generator, pen: Pen) -> None:
    """A camping tent with an open door."""
    cloth = pick(rng, (236, 140, 40), (80, 150, 90), (70, 130, 200), (220, 80, 80))
    high = rng.uniform(0.6, 0.8)
    pen.fill([(-0.35, -high), (0.45, -high + 0.08), (0.98, 0.7), (0.3, 0.75)], tone(cloth, 74))
    pen.fill([(-0.35, -high), (0.35, 0.75), (-0.98, 0.75)], cloth)
    pen.fill([(-0.34, -0.3 * high), (0.02, 0.74), (-0.62, 0.74)], (64, 50, 60))
    pen.fill([(-0.34, -0.3 * high), (-0.62, 0.74), (-0.76, 0.74)], tone(cloth, 150))
    pen.stroke([(-0.35, -high), (-0.35, -high - 0.2)], 0.08)


def car(rng: np.random.Generator, pen: Pen) -> None:
    """A small car from the side."""
    paint = pick(rng, (214, 52, 52), (50, 110, 200), (246, 190, 50), (80, 170, 130))
    high = rng.uniform(0.5, 0.66)
    pen.fill([(-0.62, -0.02), (-0.42, -high), (0.3, -high), (0.6, -0.02)], paint)
    pen.fill([(-0.48, -0.06), (-0.34, -high + 0.12), (-0.08, -high + 0.12), (-0.08, -0.06)], GLASS, line=False)
    pen.fill([(0.04, -0.06), (0.04, -high + 0.12), (0.24, -high + 0.12), (0.44, -0.06)], GLASS, line=False)
    pen.blob(
        [
            (-0.95, 0.36),
            (-0.92, 0.04),
            (-0.6, -0.04),
            (0.6, -0.04),
            (0.92, 0.1),
            (0.97, 0.38),
            (0.5, 0.44),
            (-0.5, 0.44),
        ],
        paint,
    )
    pen.disc(0.86, 0.16, 0.09, 0.09, (255, 240, 150), line=False)
    for x in (-0.52, 0.52):
        pen.disc(x, 0.42, 0.25, 0.25, (50, 48, 56))
        pen.disc(x, 0.42, 0.11, 0.11, (200, 204, 210), line=False)


def umbrella(rng: np.random.Generator, pen: Pen) -> None:
    """An open umbrella with a crook."""
    cloth = pick(rng, (226, 60, 80), (60, 120, 210), (250, 190, 50), (140, 80, 190))
    other = pick(rng, (250, 240, 224), tone(cloth, 66))
    pen.stroke([(0, 0.0), (0, 0.7), *oval(-0.17, 0.72, 0.17, 0.2, 0, 180)[4:]], 0.1, (120, 84, 56), line=True)
    pen.stroke([(0, -0.75), (0, -0.94)], 0.08)
    low = rng.uniform(0.05, 0.2)
    arcs = [point for x in (0.64, 0.0, -0.64) for point in oval(x, low, 0.32, 0.2, 0, -180)]
    pen.fill([*oval(0, low, 0.96, 0.92, 180, 360), *arcs], cloth)
    pen.fill(
        [(0, low - 0.92), *oval(0.64, low, 0.32, 0.2, -180, 0)[:1], *oval(0, low, 0.32, 0.2, 0, -180)],
        other,
        line=False,
    )
    pen.stroke([(-0.32, low - 0.06), (-0.2, -0.4), (0, low - 0.88), (0.2, -0.4), (0.32, low - 0.06)], 0.04)


def traffic_light(rng: np.random.Generator, pen: Pen) -> None:
    """A traffic light on its pole."""
    case = pick(rng, (60, 66, 72), (240, 190, 50), (50, 90, 70))
    pen.box(0, 0.75, 0.09, 0.24, (110, 112, 120))
    for y in (-0.6, -0.15, 0.3):
        pen.fill([(-0.66, y - 0.18), (0.66, y - 0.18), (0.4, y + 0.14), (-0.4, y + 0.14)], tone(case, 78))
    pen.box(0, -0.15, 0.4, 0.78, case)
    lit = int(rng.integers(3))
    for i, (y, lamp_colour) in enumerate(((-0.63, (240, 50, 46)), (-0.15, (250, 190, 40)), (0.33, (70, 210, 90)))):
        pen.disc(0, y, 0.2, 0.2, lamp_colour if i == lit else tone(lamp_colour, 55))


def cup(rng: np.random.Generator, pen: Pen) -> None:
    """A cup with steam."""
    china = pick(rng, (244, 240, 232), (80, 150, 190), (230, 110, 90), (140, 190, 120))
    pen.stroke(oval(0.55, 0.22, 0.3, 0.28, -95, 110), 0.13, china, line=True)
    pen.blob([(-0.66, -0.2), (0.62, -0.2), (0.58, 0.4), (0.36, 0.82), (-0.4, 0.82), (-0.62, 0.4)], china)
    pen.disc(-0.02, -0.2, 0.64, 0.15, (96, 60, 42))
    for x in (-0.28, 0.2):
        bend = rng.uniform(0.06, 0.16)
        pen.stroke([(x, -0.42), (x + bend, -0.56), (x - bend, -0.74), (x + bend, -0.92)], 0.09, WHITE)
    pen.disc(-0.1, 0.3, 0.17, 0.17, tone(china, 68), line=False)


def key(rng: np.random.Generator, pen: Pen) -> None:
    """A key lying on its side, with a ring head."""
    metal = pick(rng, (236, 186, 60), (186, 192, 204), (196, 126, 70))
    teeth = rng.uniform(0.26, 0.42)
    pen.stroke([(-0.3, 0), (0.9, 0)], 0.18, metal, line=True)
    for x, long in ((0.84, teeth), (0.56, teeth - 0.07)):
        pen.box(x, 0.5 * long, 0.08, 0.5 * long, metal)
    pen.stroke([(0.0, 0), (0.88, 0)], 0.16, metal)
    pen.stroke(oval(-0.56, 0, 0.32, 0.34, 0, 359), 0.2, metal, line=True)


def snowman(rng: np.random.Generator, pen: Pen) -> None:
    """A snowman with hat, scarf and carrot."""
    snow, scarf = (242, 246, 252), pick(rng, (220, 60, 60), (60, 130, 200), (70, 160, 90))
    for side in (-1, 1):
        lift = rng.uniform(-0.45, 0.0)
        pen.stroke([(side * 0.3, 0.12), (side * 0.86, lift)], 0.09, (110, 76, 50))
    pen.disc(0, 0.55, 0.5, 0.42, snow)
    pen.disc(0, -0.08, 0.36, 0.33, snow)
    pen.disc(0, -0.48, 0.28, 0.27, snow)
    pen.fill([(-0.3, -0.28), (0.3, -0.28), (0.28, -0.16), (-0.28, -0.16)], scarf)
    hat = pick(rng, (50, 46, 60), (110, 60, 130))
    pen.box(0, -0.84, 0.22, 0.14, hat)
    pen.box(0, -0.69, 0.36, 0.05, hat)
    pen.fill([(0, -0.5), (0.36, -0.42), (0, -0.38)], (244, 130, 40), line=False)
    for x in (-0.1, 0.12):
        pen.disc(x, -0.56, 0.05, 0.05, INK, line=False)
    for y in (0.0, 0.36, 0.6):
        pen.disc(0.02, y, 0.055, 0.055, INK, line=False)


def rocket(rng: np.random.Generator, pen: Pen) -> None:
    """A rocket with fins and flame."""
    fin, shell = pick(rng, (222, 60, 60), (60, 120, 210), (250, 160, 40)), pick(rng, (236, 238, 244), (206, 212, 226))
    flame = rng.uniform(0.8, 1.0)
    pen.blob([(-0.2, 0.5), (0.2, 0.5), (0.14, 0.75), (0, flame), (-0.14, 0.75)], (252, 170, 40))
    for side in (-1, 1):
        pen.blob([(side * 0.26, 0.0), (side * 0.62, 0.42), (side * 0.6, 0.72), (side * 0.24, 0.5)], fin)
    pen.blob([(0, -0.98), (0.3, -0.5), (0.34, 0.05), (0.22, 0.55), (-0.22, 0.55), (-0.34, 0.05), (-0.3, -0.5)], shell)
    pen.blob([(0, -0.97), (0.22, -0.68), (0.26, -0.52), (-0.26, -0.52), (-0.22, -0.68)], fin, line=False)
    pen.disc(0, -0.16, 0.17, 0.17, (110, 190, 230))
    pen.box(0, 0.36, 0.28, 0.05, fin, line=False)


def moon(rng: np.random.Generator, pen: Pen) -> None:
    """A crescent moon with craters."""
    light = pick(rng, (250, 226, 130), (236, 236, 226), (250, 204, 110))
    thick = rng.uniform(0.46, 0.6)
    outer, inner = oval(0.1, 0, 0.9, 0.9, 50, 310), oval(0.1 + thick, 0, 0.72, 0.72, 280, 80)
    pen.fill([*outer, *inner], light)
    for x, y, size in ((-0.6, -0.14, 0.1), (-0.5, 0.25, 0.13), (-0.32, -0.5, 0.1), (-0.15, 0.66, 0.07)):
        pen.disc(x, y, size, size, tone(light, 82), line=False)


def lamp(rng: np.random.Generator, pen: Pen) -> None:
    """A table lamp."""
    shade = pick(rng, (250, 220, 130), (230, 120, 90), (130, 190, 180), (240, 236, 224))
    foot = pick(rng, (90, 70, 60), (190, 150, 80), (70, 90, 130))
    top = rng.uniform(0.3, 0.48)
    pen.box(0, 0.25, 0.08, 0.5, foot)
    pen.blob([(-0.16, 0.3), (0.16, 0.3), (0.26, 0.55), (0.14, 0.78), (-0.14, 0.78), (-0.26, 0.55)], foot)
    pen.disc(0, 0.84, 0.42, 0.11, foot)
    pen.stroke([(0.34, 0.06), (0.34, 0.36)], 0.05)
    pen.fill([(-top, -0.92), (top, -0.92), (0.78, 0.08), (-0.78, 0.08)], shade)
    pen.fill([(-0.72, -0.06), (0.72, -0.06), (0.78, 0.07), (-0.78, 0.07)], tone(shade, 76), line=False)


def guitar(rng: np.random.Generator, pen: Pen) -> None:
    """A guitar standing on its end."""
    wood = pick(rng, (206, 130, 60), (180, 70, 50), (226, 180, 100))
    dark = (84, 54, 42)
    pen.box(0, -0.9, 0.14, 0.1, dark)
    pen.box(0, -0.4, 0.08, 0.5, dark)
    wide = rng.uniform(0.5, 0.6)
    pen.blob(
        [
            (0, -0.1),
            (0.36, -0.06),
            (0.3, 0.25),
            (wide, 0.55),
            (0.36, 0.94),
            (-0.36, 0.94),
            (-wide, 0.55),
            (-0.3, 0.25),
            (-0.36, -0.06),
        ],
        wood,
    )
    pen.disc(0, 0.3, 0.17, 0.17, (60, 40, 36))
    pen.box(0, 0.7, 0.22, 0.05, dark, line=False)
    for x in (-0.04, 0.04):
        pen.stroke([(x, -0.85), (x, 0.7)], 0.02, (236, 226, 200))
    for y in (-0.95, -0.84):
        pen.stroke([(-0.22, y), (0.22, y)], 0.07, (220, 214, 200))


def clock(rng: np.random.Generator, pen: Pen) -> None:
    """A wall clock."""
    frame = pick(rng, (200, 60, 60), (60, 110, 160), (120, 80, 50), (70, 150, 130))
    for side in (-1, 1):
        pen.stroke([(side * 0.45, 0.7), (side * 0.6, 0.94)], 0.13, frame, line=True)
        pen.disc(side * 0.5, -0.76, 0.26, 0.2, frame)
    pen.disc(0, 0.02, 0.84, 0.84, frame)
    pen.disc(0, 0.02, 0.64, 0.64, (250, 246, 234))
    for x, y in oval(0, 0.02, 0.52, 0.52)[::10] + oval(0, 0.02, 0.52, 0.52)[5::10]:
        pen.disc(x, y, 0.05, 0.05, INK, line=False)
    hour, minute = oval(0, 0.02, 0.3, 0.3)[int(rng.integers(40))], oval(0, 0.02, 0.46, 0.46)[int(rng.integers(40))]
    pen.stroke([(0, 0.02), hour], 0.11)
    pen.stroke([(0, 0.02), minute], 0.08, (200, 50, 50))
