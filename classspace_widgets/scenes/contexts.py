"""Contexts: textured backgrounds, painted from a random generator at any resolution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from classspace_widgets.scenes.pen import Colour, oval, pick, tone

Rng = np.random.Generator


def _gradient(size: int, *stops: Colour) -> Image.Image:
    column = Image.new("RGB", (1, len(stops)))
    column.putdata(list(stops))
    return column.resize((size, size), Image.Resampling.BILINEAR)


def _noise(rng: Rng, picture: Image.Image, cells: tuple[int, int], strength: int) -> Image.Image:
    """Add smooth noise of (columns, rows) cells, up to `strength` grey levels either way."""
    columns, rows = cells
    grid = rng.integers(-strength, strength + 1, size=(rows, columns)) + 128
    noise = Image.fromarray(grid.astype(np.uint8)).resize(picture.size, Image.Resampling.BICUBIC)
    return ImageChops.add(picture, Image.merge("RGB", [noise] * 3), 1, -128)


class _Canvas:
    """Draw in picture coordinates: x and y in [0, 1], y down."""

    def __init__(self, picture: Image.Image) -> None:
        self.draw, self.side = ImageDraw.Draw(picture), picture.size[0]

    def fill(self, points: list[tuple[float, float]], colour: Colour) -> None:
        self.draw.polygon([(round(x * self.side), round(y * self.side)) for x, y in points], fill=colour)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        left, top, right, bottom = (round(v * self.side) for v in (x - rx, y - ry, x + rx, y + ry))
        self.draw.ellipse((left, top, right, bottom), fill=colour)

    def line(self, points: list[tuple[float, float]], width: float, colour: Colour) -> None:
        pixels = [(round(x * self.side), round(y * self.side)) for x, y in points]
        self.draw.line(pixels, fill=colour, width=max(1, round(width * self.side)))

    def ridge(self, rng: Rng, height: float, rough: float, colour: Colour) -> None:
        """Fill everything below a wavy line."""
        knots = [height + rng.uniform(-rough, rough) for _ in range(6)]
        xs = [i / 40 for i in range(41)]
        ys = np.interp(xs, [i / 5 for i in range(6)], knots)
        ys = np.convolve(np.pad(ys, 3, mode="edge"), np.ones(7) / 7, mode="valid")
        self.fill([(0, 1), *zip(xs, ys.tolist(), strict=True), (1, 1)], colour)


def _sea(rng: Rng, size: int) -> Image.Image:
    water = pick(rng, (40, 120, 170), (30, 140, 160), (50, 100, 170))
    picture = _noise(rng, _gradient(size, tone(water, 125), water, tone(water, 70)), (4, 14), 14)
    canvas = _Canvas(picture)
    for _ in range(16):
        x, y, long = rng.uniform(-0.1, 1), rng.uniform(0.02, 0.98), rng.uniform(0.05, 0.09)
        for part in range(2):
            canvas.line(oval(x + 2 * part * long, y, long, 0.4 * long, 200, 340), 0.01, tone(water, 150))
    return picture


def _cloud(rng: Rng, canvas: _Canvas, colour: Colour) -> None:
    x, y, wide = rng.uniform(0, 1), rng.uniform(0.02, 0.95), rng.uniform(0.1, 0.2)
    for dx, dy, size in ((-0.6, 0.1, 0.35), (0, -0.15, 0.5), (0.6, 0.1, 0.4), (0, 0.15, 0.7)):
        canvas.disc(x + dx * wide, y + dy * wide, size * wide * 1.2, size * wide * 0.7, colour)


def _sky(rng: Rng, size: int) -> Image.Image:
    blue = pick(rng, (110, 180, 236), (130, 196, 240), (96, 166, 226))
    picture = _noise(rng, _gradient(size, tone(blue, 92), blue, tone(blue, 155)), (5, 5), 8)
    canvas = _Canvas(picture)
    for _ in range(int(rng.integers(3, 7))):
        _cloud(rng, canvas, tone(blue, int(rng.integers(170, 192))))
    return picture


def _meadow(rng: Rng, size: int) -> Image.Image:
    grass = pick(rng, (120, 184, 80), (140, 196, 90), (100, 170, 84))
    picture = _noise(rng, _gradient(size, tone(grass, 125), grass, tone(grass, 82)), (9, 9), 14)
    canvas = _Canvas(picture)
    for _ in range(70):
        x, y, lean = rng.uniform(0, 1), rng.uniform(0.03, 1), rng.uniform(-0.02, 0.02)
        canvas.line([(x, y), (x + lean, y - rng.uniform(0.03, 0.06))], 0.008, tone(grass, int(rng.integers(62, 88))))
    for _ in range(14):
        colour = pick(rng, (250, 246, 236), (250, 220, 90), (240, 170, 200))
        x, y = rng.uniform(0, 1, 2)
        canvas.disc(x, y, 0.012, 0.012, colour)
    return picture


def _desert(rng: Rng, size: int) -> Image.Image:
    sand = pick(rng, (232, 190, 120), (236, 176, 104), (226, 200, 140))
    picture = _gradient(size, (250, 196, 130), tone(sand, 140))
    canvas = _Canvas(picture)
    x, y = rng.uniform(0.1, 0.9), rng.uniform(0.06, 0.16)
    canvas.disc(x, y, 0.07, 0.07, (255, 240, 190))
    for height, percent in ((0.28, 112), (0.5, 100), (0.75, 90)):
        canvas.ridge(rng, height, 0.09, tone(sand, percent))
    for _ in range(14):
        x, y = rng.uniform(-0.1, 1), rng.uniform(0.4, 1)
        canvas.line(oval(x, y, 0.1, 0.02, 200, 340), 0.008, tone(sand, 80))
    return _noise(rng, picture, (48, 48), 7)


def _street(rng: Rng, size: int) -> Image.Image:
    brick = pick(rng, (176, 110, 90), (160, 124, 110), (190, 140, 110))
    picture = Image.new("RGB", (size, size), tone(brick, 78))
    canvas = _Canvas(picture)
    kerb = rng.uniform(0.6, 0.72)
    for row in range(14):
        for column in range(-1, 8):
            x, y = (column + 0.5 * (row % 2)) / 7, row * 0.055
            shade = tone(brick, int(rng.integers(90, 116)))
            canvas.fill([(x, y), (x + 0.128, y), (x + 0.128, y + 0.044), (x, y + 0.044)], shade)
    asphalt = pick(rng, (104, 106, 114), (120, 118, 122))
    canvas.fill([(0, kerb), (1, kerb), (1, 1), (0, 1)], asphalt)
    canvas.fill([(0, kerb), (1, kerb), (1, kerb + 0.05), (0, kerb + 0.05)], (190, 188, 184))
    shift = rng.uniform(0, 0.3)
    for part in range(-1, 4):
        x = shift + 0.36 * part
        canvas.fill(
            [(x, kerb + 0.18), (x + 0.2, kerb + 0.18), (x + 0.18, kerb + 0.22), (x - 0.02, kerb + 0.22)],
            (236, 230, 200),
        )
    return _noise(rng, picture, (40, 40), 9)


def _table(rng: Rng, size: int) -> Image.Image:
    wood = pick(rng, (176, 120, 72), (196, 144, 92), (150, 100, 64))
    picture = Image.new("RGB", (size, size), wood)
    canvas = _Canvas(picture)
    edges = np.cumsum(rng.uniform(0.16, 0.26, size=8)) - 0.1
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        shade = tone(wood, int(rng.integers(88, 116)))
        canvas.fill([(0, low), (1, low), (1, high), (0, high)], shade)
        for _ in range(4):
            y, bend = rng.uniform(low, high), rng.uniform(-0.015, 0.015)
            canvas.line([(0, y), (0.3, y + bend), (0.7, y - bend), (1, y)], 0.006, tone(shade, 86))
        canvas.line([(0, low), (1, low)], 0.012, tone(wood, 58))
    return _noise(rng, picture, (6, 48), 9)


def _snow(rng: Rng, size: int) -> Image.Image:
    white = pick(rng, (226, 234, 244), (232, 236, 240), (216, 228, 242))
    picture = _gradient(size, (160, 184, 214), tone(white, 96))
    canvas = _Canvas(picture)
    for height, percent in ((0.3, 93), (0.52, 98), (0.76, 130)):
        canvas.ridge(rng, height, 0.08, tone(white, percent))
    picture = _noise(rng, picture, (12, 12), 5)
    canvas = _Canvas(picture)
    for _ in range(46):
        x, y, r = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.006, 0.014)
        canvas.disc(x, y + 0.008, r, r, (176, 196, 222))
        canvas.disc(x, y, r, r, (254, 254, 254))
    return picture


def _night(rng: Rng, size: int) -> Image.Image:
    dark = pick(rng, (24, 26, 66), (34, 24, 70), (18, 34, 70))
    picture = _noise(rng, _gradient(size, tone(dark, 70), dark, tone(dark, 125)), (5, 5), 18)
    canvas = _Canvas(picture)
    for _ in range(60):
        x, y, r = rng.uniform(0, 1), rng.uniform(0, 1), rng.choice([0.004, 0.006, 0.011])
        canvas.disc(x, y, r, r, pick(rng, (250, 246, 220), (220, 230, 250), (250, 220, 190)))
    return picture


def _forest(rng: Rng, size: int) -> Image.Image:
    shade = pick(rng, (44, 84, 60), (54, 90, 50), (40, 76, 70))
    picture = _gradient(size, tone(shade, 135), tone(shade, 95), tone(shade, 60))
    canvas = _Canvas(picture)
    for depth in (120, 85, 60):
        for _ in range(4):
            x, wide = rng.uniform(0, 1), rng.uniform(0.015, 0.04)
            canvas.fill(
                [(x - wide, 0), (x + wide, 0), (x + 1.3 * wide, 0.8), (x - 1.3 * wide, 0.8)], tone((96, 74, 56), depth)
            )
    canvas.ridge(rng, 0.74, 0.05, tone((92, 78, 46), 90))
    for _ in range(60):
        x, y = rng.uniform(0, 1), rng.uniform(0.72, 1)
        canvas.disc(x, y, 0.02, 0.01, pick(rng, (150, 100, 50), (96, 110, 50), (120, 70, 40)))
    return _noise(rng, picture, (24, 24), 9)


def _room(rng: Rng, size: int) -> Image.Image:
    paper = pick(rng, (226, 196, 180), (190, 206, 190), (206, 190, 216), (230, 214, 170))
    picture = Image.new("RGB", (size, size), paper)
    canvas = _Canvas(picture)
    wide, shift = rng.uniform(0.07, 0.11), rng.uniform(0, 0.1)
    for i in range(-1, 9):
        x = shift + 2 * i * wide
        canvas.fill([(x, 0), (x + wide, 0), (x + wide, 1), (x, 1)], tone(paper, 92))
        for j in range(6):
            canvas.disc(x + 1.5 * wide, 0.08 + 0.16 * j, 0.016, 0.022, tone(paper, 76))
    floor, wood = rng.uniform(0.74, 0.84), pick(rng, (150, 106, 80), (120, 92, 84))
    canvas.fill([(0, floor), (1, floor), (1, 1), (0, 1)], wood)
    canvas.fill([(0, floor), (1, floor), (1, floor + 0.035), (0, floor + 0.035)], tone(paper, 150))
    for i in range(-1, 8):
        x = shift + 0.16 * i
        canvas.line([(x, floor + 0.035), (x - 0.06, 1)], 0.008, tone(wood, 76))
    return _noise(rng, picture, (10, 10), 5)


PAINTERS: dict[str, Callable[[Rng, int], Image.Image]] = {
    "sea": _sea,
    "sky": _sky,
    "meadow": _meadow,
    "desert": _desert,
    "street": _street,
    "table": _table,
    "snow": _snow,
    "night sky": _night,
    "forest": _forest,
    "room": _room,
}
CONTEXTS = tuple(PAINTERS)
