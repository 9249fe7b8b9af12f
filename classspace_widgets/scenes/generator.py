"""`make_scene`: one picture of a main object in a context, with exact masks of everything in it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from classspace_widgets.lookup import class_index, close_matches
from classspace_widgets.scenes.contexts import CONTEXTS, PAINTERS
from classspace_widgets.scenes.pen import Pen
from classspace_widgets.scenes.shapes import CLASSES, HOMES, SHAPES

SUPERSAMPLING = 3
"""Samples per side of a pixel: smooth edges at nine times the cost of drawing without."""
SIZES = (16, 1024)
"""Smallest and largest size in pixels: below 16 no object is legible, above 1024 drawing takes gigabytes."""

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Placed:
    """One object of a layout, in picture coordinates ([0, 1], y down), so that any resolution shows the same scene.

    Part of a `Layout`.

    Attributes
    ----------
    label : int
        Class, 0..C-1.
    x, y, radius : float
        Centre and size.
    tilt : float
        Rotation in degrees.
    flip : bool
        Mirrored left to right.
    seed : int
        Decides its colours and details.
    """

    label: int
    seed: int
    x: float
    y: float
    radius: float
    tilt: float
    flip: bool


@dataclass(frozen=True)
class Layout:
    """Everything that decides a scene except its resolution. Objects are painted in order of `depth`.

    Made by `make_scene`; that of a scene is ``scene.layout``.

    Attributes
    ----------
    context : str
    objects : tuple of Placed
        The main object first.
    depth : tuple of int
        Indices of the objects, from the farthest to the nearest.
    seed : int
        Decides the context's details.
    """

    context: str
    seed: int
    objects: tuple[Placed, ...]
    depth: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture of one main object in a context, possibly with smaller objects of other classes.

    Made by `make_scene`, `ScenesDataset.scene` and `gallery`.

    Attributes
    ----------
    image : ndarray
        The picture: [height, width, 3], uint8.
    mask : ndarray
        What each pixel shows: [height, width], uint8; 0 is context, 1 the main object, 2 the next object, ...
    label : int
        Class of the main object, in 0..C-1.
    context : str
        Name of the context.
    layout : Layout
        Everything the scene is drawn from; see `redraw`.
    """

    image: UInt8
    mask: UInt8
    label: int
    context: str
    layout: Layout

    def __repr__(self) -> str:
        others = ", ".join(CLASSES[placed.label] for placed in self.layout.objects[1:])
        place = f"{self.context}, {'at home' if self.at_home else 'out of place'}"
        with_others = f", with {others}" if others else ""
        return f"Scene({self.class_name}: {place}{with_others}, {self.image.shape[1]} x {self.image.shape[0]} pixels)"

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.picture.save(buffer, "PNG")
        return buffer.getvalue()

    @property
    def class_name(self) -> str:
        """Name of the main object's class."""
        return CLASSES[self.label]

    @property
    def picture(self) -> Image.Image:
        """The picture as a PIL image."""
        return Image.fromarray(self.image)

    @property
    def at_home(self) -> bool:
        """Whether the main object is in its home context."""
        return HOMES[self.label] == self.context

    @property
    def objects(self) -> tuple[tuple[int, NDArray[np.bool_]], ...]:
        """Class index and mask [height, width] of every object, the main one first."""
        return tuple((placed.label, self.mask == i + 1) for i, placed in enumerate(self.layout.objects))

    @property
    def annotations(self) -> dict[str, Any]:
        """Mask, objects and label as keyword arguments of `Trace.snapshot`: ``trace.snapshot(**scene.annotations)``."""
        return {"mask": self.mask, "objects": [placed.label for placed in self.layout.objects], "label": self.label}

    def patch_mask(self, grid: int | tuple[int, int]) -> NDArray[np.float64]:
        """Share of every patch that each object covers.

        Parameters
        ----------
        grid : int or (int, int)
            Rows and columns of patches; they must divide the picture's height and width.

        Returns
        -------
        ndarray
            [objects, rows, columns], float64 in [0, 1], the main object first.

        Examples
        --------
        >>> make_scene(0).patch_mask(12).shape[1:]
        (12, 12)
        """
        rows, columns = (grid, grid) if isinstance(grid, int) else grid
        height, width = self.mask.shape
        if rows < 1 or columns < 1 or height % rows or width % columns:
            raise ValueError(f"grid must divide the picture's {height}x{width} pixels, got {rows}x{columns}")
        masks = np.stack([mask for _, mask in self.objects])
        cells = masks.reshape(len(masks), rows, height // rows, columns, width // columns)
        shares: NDArray[np.float64] = cells.mean(axis=(2, 4))
        return shares

    def redraw(self, size: int) -> Scene:
        """The same scene at another resolution."""
        return draw(self.layout, size)


def make_scene(
    seed: int | np.random.Generator,
    *,
    size: int = 96,
    label: int | str | None = None,
    context: str | None = None,
    p_home: float = 0.6,
    distractors: int | tuple[int, int] = (0, 2),
) -> Scene:
    """Make a scene; the same arguments give the same bytes.

    Parameters
    ----------
    seed : int or numpy.random.Generator
        Decides everything that the other arguments leave open.
    size : int
        Height and width in pixels. Layout and colours do not depend on it.
    label : int or str, optional
        Class of the main object; by default any, with equal probability.
    context : str, optional
        Name of the context; by default the home context with probability `p_home`, else any other one.
    p_home : float
        Probability of the home context, 0 to 1.
    distractors : int or (int, int)
        Number of smaller objects of other classes, or its range, both ends included. An object without room is left out.

    Returns
    -------
    Scene

    Raises
    ------
    ValueError
        For an unknown class or context (with close matches), a size outside 16..1024, a `p_home` outside [0, 1]
        or distractors outside 0..8.

    Examples
    --------
    >>> scene = make_scene(7, label="fish", context="desert")
    >>> scene.class_name, scene.context, scene.image.shape
    ('fish', 'desert', (96, 96, 3))
    """
    check_size(size)
    low, high = check_settings(p_home, distractors)
    if context is not None and context not in PAINTERS:
        raise ValueError(f"there is no context {context!r}{close_matches(str(context), CONTEXTS)}")
    main = None if label is None else class_index(CLASSES, label)
    rng = np.random.default_rng(seed)
    return draw(lay_out(rng, main, context, p_home, int(rng.integers(low, high + 1))), size)


def check_size(size: Any) -> None:
    """Raise for a size that cannot be drawn."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size must be a whole number of pixels in {SIZES[0]}..{SIZES[1]}, got {size!r}")


def check_settings(p_home: float, distractors: int | tuple[int, int]) -> tuple[int, int]:
    """Raise for impossible settings; returns the fewest and the most distractors."""
    if not 0 <= p_home <= 1:
        raise ValueError(f"p_home must be a probability in [0, 1], got {p_home}")
    low, high = (distractors, distractors) if isinstance(distractors, int) else distractors
    if not 0 <= low <= high <= 8:
        raise ValueError(f"distractors must be 0 <= fewest <= most <= 8, got {distractors}")
    return low, high


def lay_out(
    rng: np.random.Generator,
    main: int | None,
    context: str | None,
    p_home: float,
    others: int,
    without: int | None = None,
) -> Layout:
    """What a scene shows where: a main object, and others of other classes, none of class ``without``."""
    order = rng.permutation(len(CLASSES)).tolist()
    home, elsewhere = rng.random() < p_home, int(rng.integers(len(CONTEXTS) - 1))
    label = order[0] if main is None else main
    if context is None:
        away = [name for name in CONTEXTS if name != HOMES[label]]
        context = HOMES[label] if home else away[elsewhere]
    objects: list[Placed] = []
    for other in [label, *[i for i in order if i not in (label, without)][:others]]:
        placed = _place(rng, other, objects)
        if placed is not None:
            objects.append(placed)
    return Layout(
        context=context,
        seed=int(rng.integers(2**62)),
        objects=tuple(objects),
        depth=tuple(rng.permutation(len(objects)).tolist()),
    )


def _place(rng: np.random.Generator, label: int, objects: list[Placed]) -> Placed | None:
    """Find room for one more object; the first is the main one, and larger. None after 30 attempts."""
    seed, tilt, flip = int(rng.integers(2**62)), rng.uniform(-18, 18), bool(rng.integers(2))
    low, high = (0.13, 0.18) if objects else (0.26, 0.37)
    for _ in range(30):
        radius = rng.uniform(low, high)
        x, y = rng.uniform(0.9 * radius, 1 - 0.9 * radius, size=2)
        if all((x - o.x) ** 2 + (y - o.y) ** 2 > (0.85 * (radius + o.radius)) ** 2 for o in objects):
            return Placed(label, seed, float(x), float(y), float(radius), float(tilt), flip)
    return None


def draw(layout: Layout, size: int) -> Scene:
    """Draw a layout at a resolution.

    Everything is painted `SUPERSAMPLING` times larger and averaged. A pixel of the mask belongs to the object that
    covers at least half of its samples; objects painted later hide earlier ones.
    """
    check_size(size)
    large = size * SUPERSAMPLING
    picture = PAINTERS[layout.context](np.random.default_rng(layout.seed), large)
    shown = Image.new("L", picture.size, 0)
    for i in layout.depth:
        placed = layout.objects[i]
        pen = Pen()
        SHAPES[CLASSES[placed.label]][0](np.random.default_rng(placed.seed), pen)
        silhouette = pen.paint(
            picture,
            x=placed.x * large,
            y=placed.y * large,
            radius=placed.radius * large,
            tilt=placed.tilt,
            flip=placed.flip,
        )
        shown.paste(i + 1, (0, 0), silhouette)
    mask = np.zeros((size, size), np.uint8)
    for i in range(len(layout.objects)):
        covered = shown.point([255 if value == i + 1 else 0 for value in range(256)])
        mask[np.asarray(covered.reduce(SUPERSAMPLING)) >= 128] = i + 1
    image = np.array(picture.reduce(SUPERSAMPLING))
    return Scene(image=image, mask=mask, label=layout.objects[0].label, context=layout.context, layout=layout)
