"""Build a `MemoryAtlas` of a model: its value vectors as classes, and the patches that activate them, in one pass."""

from __future__ import annotations

import io
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.memories.values import output_projection, recording_coefficients, value_vectors
from classspace_widgets.points import SUBLAYERS
from classspace_widgets.progress import over
from classspace_widgets.snapshot.atlas import MemoryAtlas
from classspace_widgets.snapshot.check import NO_NEURON
from classspace_widgets.trace.hooks import evaluating

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.data.prepare import Item
    from classspace_widgets.images.placing import PixelTransform
    from classspace_widgets.snapshot.meta import AtlasMeta, PicturesMeta
    from classspace_widgets.space.space import ClassSpace

__all__ = ["memory_atlas"]


def memory_atlas(
    space: ClassSpace,
    dataset: Any = None,
    *,
    classes: int = 5,
    neurons: int = 20,
    patches: int = 8,
    pictures: int = 400,
    size: int = 96,
    batch_size: int = 8,
    workers: int = 1,
    progress: bool = True,
) -> MemoryAtlas:
    """Project every value vector onto the classes, and find the patches that activate it most.

    A value vector belongs to the classes whose embeddings have the largest cosine with it, as in the paper's
    class-value agreement (Vilas et al. 2023).

    Parameters
    ----------
    space : ClassSpace
    dataset : Any, optional
        Pictures, as in `studies.run_study`; by default none, so that the atlas has classes but no patches.
    classes : int
        Number of classes saved for every neuron.
    neurons : int
        Number of neurons saved for every class, in attention and in the MLPs each.
    patches : int
        Number of patches saved for every neuron, at most one from each picture.
    pictures : int
        Number of pictures to use, from the first.
    size : int
        Longer side of the saved pictures in pixels.
    batch_size, workers, progress
        As in `studies.run_study`.

    Returns
    -------
    MemoryAtlas

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> atlas = memory_atlas(ClassSpace.bundled(), ScenesDataset(4, seed=2), progress=False)
    >>> atlas.place(0)
    (1, 'attention', 0)
    """
    for name, value in (("classes", classes), ("neurons", neurons), ("patches", patches), ("size", size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    blocks = space.points.blocks
    widths = [[int(output_projection(space, b, s).in_features) for s in SUBLAYERS] for b in blocks]  # type: ignore[arg-type]
    if any(of_block != widths[0] for of_block in widths):
        raise ValueError(f"all blocks must have the same number of value vectors, got {widths}")
    meta: AtlasMeta = {
        "model": {"name": space.name, "blocks": len(blocks)},
        "classes": {"names": list(space.class_names)},
        "widths": widths[0],
        "grid": list(space.adapter.grid),
        "pictures": {"count": 0, "labels": [], "skipped": 0},
    }
    arrays = _neurons_and_classes(space, widths[0], classes, neurons)
    if dataset is not None:
        found, about = _patches(space, dataset, widths[0], patches, pictures, size, batch_size, workers, progress)
        arrays |= found
        meta["pictures"] = about
    return MemoryAtlas(meta, arrays)


def _neurons_and_classes(
    space: ClassSpace, widths: list[int], classes: int, neurons: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Classes of every neuron, and neurons of every class, by cosine."""
    n_classes = len(space.class_names)
    k = min(classes, n_classes)
    top, top_cosine = [], []
    # Below any cosine, until a neuron is found.
    cosine = torch.full((n_classes, 2, neurons), -2.0, device="cpu")
    number = torch.full((n_classes, 2, neurons), NO_NEURON, dtype=torch.int64, device="cpu")
    start = 0
    for block in space.points.blocks:
        for which, sublayer in enumerate(SUBLAYERS):
            cosines = value_vectors(space, block, sublayer).cosines.cpu()
            best = cosines.topk(k, dim=0)
            top.append(best.indices.T)
            top_cosine.append(best.values.T)
            here = cosines.topk(min(neurons, widths[which]), dim=1)
            candidates = torch.cat([cosine[:, which], here.values], dim=1)
            numbers = torch.cat([number[:, which], here.indices + start], dim=1)
            largest = candidates.topk(neurons, dim=1)
            cosine[:, which], number[:, which] = largest.values, numbers.gather(1, largest.indices)
            start += widths[which]
    dtype = np.uint16 if n_classes <= 65_535 else np.uint32
    return {
        "top": torch.cat(top).numpy().astype(dtype),
        "top_cosine": torch.cat(top_cosine).numpy().astype(np.float16),
        "values": number.numpy().astype(np.uint32),
        "values_cosine": cosine.numpy().astype(np.float16),
    }


def _patches(
    space: ClassSpace,
    dataset: Any,
    widths: list[int],
    patches: int,
    pictures: int,
    size: int,
    batch_size: int,
    workers: int,
    progress: bool,
) -> tuple[dict[str, np.ndarray[Any, Any]], PicturesMeta]:
    """The patches that activate every neuron most, as a running list: memory does not grow with the pictures."""
    from classspace_widgets.data.prepare import Item, Preparer, prepared_batches
    from classspace_widgets.data.sets import as_dataset
    from classspace_widgets.images.placing import PixelTransform

    data = as_dataset(dataset)
    count = min(len(data), pictures)
    if count < 1:
        raise ValueError("the data set is empty: an atlas with patches needs pictures")
    transform = PixelTransform.of(space.preprocessing)
    rows, columns = space.adapter.grid
    prepare = Preparer(data, transform, (rows, columns), n_classes=1 << 62)
    keys = [(b, s) for b in space.points.blocks for s in SUBLAYERS]
    coefficient = torch.empty((sum(widths) * len(keys) // 2, 0), device="cpu")
    position = torch.empty(coefficient.shape, dtype=torch.int64, device="cpu")
    files: list[bytes] = []
    labels: list[int] = []
    batches = [range(i, min(i + batch_size, count)) for i in range(0, count, batch_size)]
    for items in over(
        prepared_batches(prepare, batches, workers=workers), len(batches), "memories", "batch", show=progress
    ):
        good: list[Item] = [item for item in items if isinstance(item, Item)]
        if not good:
            continue
        largest, patch = _largest_coefficients(space, good, keys, rows * columns)
        number = torch.arange(len(files), len(files) + len(good), device="cpu")
        files += [_thumbnail(item, transform, size) for item in good]
        labels += [item.label for item in good]
        coefficient = torch.cat([coefficient, largest], dim=1)
        position = torch.cat([position, number * rows * columns + patch], dim=1)
        top = coefficient.topk(min(patches, coefficient.shape[1]), dim=1)
        coefficient, position = top.values, position.gather(1, top.indices)
    if not files:
        raise ValueError(f"none of the {count} pictures could be read")
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "patch": position.numpy().astype(np.uint32),
        "coefficient": coefficient.numpy().astype(np.float32),
        "picture_bytes": np.frombuffer(b"".join(files), np.uint8),
        "picture_ends": np.cumsum([len(file) for file in files]).astype(np.uint32),
    }
    return arrays, {
        "count": len(files),
        "labels": _model_labels(space, data, labels),
        "skipped": count - len(files),
    }


def _model_labels(space: ClassSpace, data: Any, labels: list[int]) -> list[int]:
    """Labels in the model's numbering; empty if they cannot be matched, so that no wrong name is shown."""
    from classspace_widgets.data.classes import class_table
    from classspace_widgets.masks import DatasetError

    try:
        table = class_table(data, space.class_names, None, space.wordnet_ids)
    except DatasetError:
        return []
    known = range(space.n_classes) if table is None else table
    inside = all(label in known if isinstance(known, (dict, range)) else 0 <= label < len(known) for label in labels)
    return [int(known[label]) for label in labels] if inside else []


def _largest_coefficients(
    space: ClassSpace, items: list[Item], keys: list[tuple[int, str]], patches: int
) -> tuple[Tensor, Tensor]:
    """The largest coefficient of every neuron over the patches of each picture, and its patch: both ``[n, B]``."""
    prefix = len(space.adapter.prefix)
    pixels = torch.stack([item.pixels for item in items]).to(space.device, space.dtype)
    with ExitStack() as stack, evaluating(space.model), torch.inference_mode():
        recorded = [stack.enter_context(recording_coefficients(space, *key)) for key in keys]
        space.model(pixels)
        maxima = [c[0][:, prefix : prefix + patches].float().max(dim=1) for c in recorded]
        largest = torch.cat([m.values for m in maxima], dim=1).T.cpu()
        patch = torch.cat([m.indices for m in maxima], dim=1).T.cpu()
    return largest.clone(), patch.clone()


def _thumbnail(item: Item, transform: PixelTransform, size: int) -> bytes:
    """The pixels that the model saw, as a small WebP file."""
    from PIL import Image

    mean, std = (torch.tensor(v, device="cpu")[:, None, None] for v in (transform.mean, transform.std))
    array = ((item.pixels * std + mean).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    image = Image.fromarray(array)
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
