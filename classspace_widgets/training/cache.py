"""Scenes for training: drawn once and saved on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from classspace_widgets.files import replacing
from classspace_widgets.scenes.dataset import ScenesDataset
from classspace_widgets.scenes.generator import Scene

MAX_OBJECTS = 4
"""Classes that are saved for a scene: those of the main object and of up to three smaller ones."""

DrawnScenes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]


def draw_all(dataset: ScenesDataset, folder: Path | None = None, *, workers: int = 1) -> DrawnScenes:
    """Images [N, S, S, 3], masks [N, S, S] and classes [N, 4] of the objects (main first, -1 for none).

    With `folder`, they are saved there, and read from there the next time.
    """
    if folder is None:
        return _draw(dataset, range(len(dataset)))
    settings = (len(dataset), dataset.seed, dataset.size, dataset.p_home, dataset.distractors, dataset.classes)
    path = folder / f"scenes-{hashlib.sha256(repr(settings).encode()).hexdigest()[:16]}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        parts = [range(start, min(start + 200, len(dataset))) for start in range(0, len(dataset), 200)]
        if workers > 1:
            with ProcessPoolExecutor(workers) as pool:
                jobs = pool.map(_draw, [dataset] * len(parts), parts)
                drawn = list(tqdm(jobs, total=len(parts), desc="drawing", unit="x200", mininterval=5))
        else:
            drawn = [_draw(dataset, part) for part in tqdm(parts, desc="drawing", unit="x200", disable=len(parts) < 2)]
        images, masks, classes = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, images=images, masks=masks, classes=classes)
    with np.load(path) as saved:
        return saved["images"], saved["masks"], saved["classes"]


def classes_of(scenes: Sequence[Scene]) -> NDArray[np.int64]:
    """Class of every object [N, 4], the main object first, -1 for none."""
    classes = np.full((len(scenes), MAX_OBJECTS), -1, np.int64)
    for row, scene in zip(classes, scenes, strict=True):
        labels = [placed.label for placed in scene.layout.objects][:MAX_OBJECTS]
        row[: len(labels)] = labels
    return classes


def _draw(dataset: ScenesDataset, part: range) -> DrawnScenes:
    scenes = [dataset.scene(i) for i in part]
    return np.stack([s.image for s in scenes]), np.stack([s.mask for s in scenes]), classes_of(scenes)
