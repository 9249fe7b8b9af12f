"""`ScenesDataset`: scenes by index, drawn on demand."""

from __future__ import annotations

import operator
from collections.abc import Iterator

import numpy as np
from PIL import Image

from classspace_widgets.scenes.generator import Scene, UInt8, check_settings, check_size, make_scene
from classspace_widgets.scenes.shapes import CLASSES


class ScenesDataset:
    """A map-style data set of scenes, in the form that `torch.utils.data.DataLoader` takes.

    Item i depends only on the pair (seed, i), so any order, any subset and any worker give the same pictures.

    Parameters
    ----------
    n : int
        Number of scenes.
    seed : int
        Scenes of different seeds differ; use one for training and others for held-out sets. The bundled models were
        trained on seed 1.
    size : int
        Height and width in pixels.
    p_home : float
        Probability that a main object is drawn in its home context.
    distractors : int or (int, int)
        Number of smaller objects of other classes, or its range, both ends included.

    Examples
    --------
    >>> picture, label, mask = ScenesDataset(100, seed=2)[3]
    >>> picture.size, mask.shape
    ((96, 96), (96, 96))
    """

    classes = CLASSES

    def __init__(
        self,
        n: int,
        seed: int = 0,
        *,
        size: int = 96,
        p_home: float = 0.6,
        distractors: int | tuple[int, int] = (0, 2),
    ) -> None:
        if n < 0 or seed < 0:
            raise ValueError(f"n and seed must be 0 or more, got n={n}, seed={seed}")
        check_size(size)
        check_settings(p_home, distractors)
        self.n, self.seed = n, seed
        self.size, self.p_home, self.distractors = size, p_home, distractors

    def __repr__(self) -> str:
        return f"ScenesDataset({self.n} scenes of seed {self.seed}, {self.size} pixels, p_home {self.p_home})"

    def __len__(self) -> int:
        """Number of scenes."""
        return self.n

    def scene(self, index: int) -> Scene:
        """The whole scene at an index, in 0..n-1 (or from the end, below 0)."""
        i = operator.index(index)
        if not -self.n <= i < self.n:
            raise IndexError(f"index must be in 0..{self.n - 1}, got {index}")
        rng = np.random.default_rng([self.seed, i % self.n])
        return make_scene(rng, size=self.size, p_home=self.p_home, distractors=self.distractors)

    def __getitem__(self, index: int) -> tuple[Image.Image, int, UInt8]:
        """Picture, label in 0..C-1, and mask [height, width]: 0 context, 1 the main object, 2.. the others."""
        scene = self.scene(index)
        return scene.picture, scene.label, scene.mask

    def __iter__(self) -> Iterator[tuple[Image.Image, int, UInt8]]:
        """All scenes in order."""
        return (self[i] for i in range(self.n))
