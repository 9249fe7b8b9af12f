"""A pen that records shapes in unit coordinates and paints them at any resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

INK: Colour = (38, 32, 46)


def pick(rng: np.random.Generator, *colours: Colour) -> Colour:
    """One of the colours, slightly varied."""
    chosen = colours[int(rng.integers(len(colours)))]
    change = rng.integers(-16, 17, size=3)
    red, green, blue = (int(min(255, max(0, part + step))) for part, step in zip(chosen, change, strict=True))
    return red, green, blue


def tone(colour: Colour, percent: int) -> Colour:
    """The colour made darker (below 100) or lighter (above 100)."""
    red, green, blue = (
        part * percent // 100 if percent <= 100 else 255 - (255 - part) * (200 - percent) // 100 for part in colour
    )
    return red, green, blue


def oval(x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> list[tuple[float, float]]:
    """Points of an ellipse or of its arc from `start` to `stop` degrees (clockwise from the right)."""
    steps = 40
    angles = [math.radians(start + (stop - start) * i / steps) for i in range(steps + (stop - start < 360))]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def smooth(points: Points) -> list[tuple[float, float]]:
    """A closed curve through the points (Catmull-Rom)."""
    curve = []
    count = len(points)
    for i in range(count):
        a, b, c, d = (points[(i + k) % count] for k in (-1, 0, 1, 2))
        for step in range(8):
            t = step / 8
            weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
            x, y = (sum(w * p[k] for w, p in zip(weights, (a, b, c, d), strict=True)) / 2 for k in (0, 1))
            curve.append((x, y))
    return curve


@dataclass
class Pen:
    """Parts of one object in its own coordinates: x to the right, y down, both in [-1, 1]."""

    parts: list[tuple[list[tuple[float, float]], Colour, float, bool]] = field(default_factory=list)

    def fill(self, points: Points, colour: Colour, *, line: bool = True) -> None:
        """Add a filled outline; `line` inks its edge."""
        self.parts.append((list(points), colour, 0.0, line))

    def blob(self, points: Points, colour: Colour, *, line: bool = True) -> None:
        """Add a filled smooth outline through the points."""
        self.fill(smooth(points), colour, line=line)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour, *, line: bool = True) -> None:
        """Add a filled ellipse."""
        self.fill(oval(x, y, rx, ry), colour, line=line)

    def box(self, x: float, y: float, rx: float, ry: float, colour: Colour, *, line: bool = True) -> None:
        """Add a filled rectangle, given its centre and half its width and height."""
        self.fill([(x - rx, y - ry), (x + rx, y - ry), (x + rx, y + ry), (x - rx, y + ry)], colour, line=line)

    def stroke(self, points: Points, width: float, colour: Colour = INK, *, line: bool = False) -> None:
        """Add an open line of the given width."""
        self.parts.append((list(points), colour, width, line))

    def paint(self, picture: Image.Image, *, x: float, y: float, radius: float, tilt: float, flip: bool) -> Image.Image:
        """Paint on `picture` (RGB, in place) and return the silhouette (mode L, 0 or 255).

        `x`, `y` and `radius` are in pixels of the picture, `tilt` in degrees.
        """
        cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
        side = -1 if flip else 1
        silhouette = Image.new("L", picture.size, 0)
        colours, shape = ImageDraw.Draw(picture), ImageDraw.Draw(silhouette)
        ink = max(1, round(0.07 * radius))

        def to_pixels(points: Points) -> list[tuple[int, int]]:
            return [
                (round(x + radius * (cos * side * u - sin * v)), round(y + radius * (sin * side * u + cos * v)))
                for u, v in points
            ]

        for points, colour, width, line in self.parts:
            pixels = to_pixels(points)
            if width:
                thick = max(2, round(width * radius))
                if line:
                    _line(colours, pixels, thick + 2 * ink, INK, joint=True)
                    _line(shape, pixels, thick + 2 * ink, 255, joint=True)
                _line(colours, pixels, thick, colour, joint=True)
                _line(shape, pixels, thick, 255, joint=True)
                continue
            if line:
                closed = [*pixels, pixels[0], pixels[1]]
                _line(colours, closed, 2 * ink, INK)
                _line(shape, closed, 2 * ink, 255)
            colours.polygon(pixels, fill=colour)
            shape.polygon(pixels, fill=255)
        _shade(picture, silhouette, round(0.17 * radius))
        return silhouette


def _line(
    draw: ImageDraw.ImageDraw, pixels: list[tuple[int, int]], width: int, colour: Colour | int, *, joint: bool = False
) -> None:
    # Joints are slow to draw, and invisible where a thin line turns by only a few degrees at each point.
    joint = joint or len(pixels) < 12 or width > 15
    draw.line(pixels, fill=colour, width=width, joint="curve" if joint else None)
    half = width // 2
    if half > 1:
        for u, v in (pixels[0], pixels[-1]):
            draw.ellipse((u - half, v - half, u + half, v + half), fill=colour)


def _shade(picture: Image.Image, silhouette: Image.Image, shift: int) -> None:
    """Second tone: darken the rim towards the lower right, lighten it towards the upper left."""
    for step, colour, strength in ((-shift, (20, 10, 50), 56), (shift, (255, 255, 235), 40)):
        moved = Image.new("L", silhouette.size, 0)
        moved.paste(silhouette, (step, step))
        rim = Image.new("L", silhouette.size, 0)
        rim.paste(strength, (0, 0), silhouette)
        rim.paste(0, (0, 0), moved)
        picture.paste(colour, (0, 0), rim)
