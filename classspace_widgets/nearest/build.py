"""Build a `StateBank` by streaming over pictures: what is kept of each is decided before the first is read."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.fitting.batches import batch_of, counted, label_index, own_class_names
from classspace_widgets.lookup import at_least, items_of, whole_number
from classspace_widgets.models.fingerprint import known_fingerprint
from classspace_widgets.nearest.bank import StateBank
from classspace_widgets.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from classspace_widgets.snapshot.container import Array
    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.trace import Trace

MAX_BYTES = 200_000_000
"""Bytes of states that a bank keeps, unless told otherwise."""


def state_bank(
    space: ClassSpace,
    pictures: Any,
    *,
    blocks: int | Sequence[int] | None = None,
    max_bytes: int = MAX_BYTES,
    size: int = 96,
    batch_size: int = 16,
    seed: int = 0,
    progress: bool = True,
) -> StateBank:
    """Keep the states of patches of many pictures, to find those that are nearest to a patch of another one.

    Where all patches would take more than ``max_bytes``, the same number of each picture's is kept, drawn at random.

    Parameters
    ----------
    space : ClassSpace
    pictures : sequence of pictures, tensor, or data set
        As in `fitting.fit_lens`; labels of items that have them are kept.
    blocks : int or sequence of int, optional
        Blocks, 0..L, whose residual stream is kept; by default all.
    max_bytes : int
        Of the states; the small pictures take some 2 kB each beside them.
    size : int
        Longer side of the small pictures in pixels.
    batch_size : int
        Pictures a pass.
    seed : int
        Of the draw.
    progress : bool
        Show a progress bar after a second.

    Returns
    -------
    StateBank

    Raises
    ------
    TypeError, ValueError
        For what is no sequence of pictures, for none, or where not even one patch of each fits.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> state_bank(ClassSpace.bundled("contrast"), ScenesDataset(4, seed=2), blocks=[2, 4])
    StateBank(bundled/contrast: 256 patches of 4 pictures at 2 blocks, 0.1 MB)
    """
    count, adapter = counted(pictures), space.adapter
    if count == 0:
        raise ValueError("a bank needs pictures, got none")
    levels = range(adapter.points.n_blocks + 1)
    asked = list(levels) if blocks is None else items_of(blocks)[0]
    chosen = sorted({whole_number(b, "block", 0, levels[-1]) for b in asked})
    patches, width = adapter.grid[0] * adapter.grid[1], adapter.width
    each = min(patches, int(max_bytes // (count * len(chosen) * 2 * width)))
    if each < 1:
        raise ValueError(
            f"one patch of each of {count} pictures at {len(chosen)} blocks takes {count * len(chosen) * 2 * width:,} bytes, more "
            f"than max_bytes={max_bytes:,}; take fewer pictures or blocks, or raise max_bytes"
        )
    states = np.empty((len(chosen), count * each, width), np.float16)
    lengths = np.empty(states.shape[:2], np.float32)
    tokens = np.empty(count * each, np.int32)
    files: list[bytes] = []
    labels, answers, marks, names = [], [], [], []
    with progress_bar(count, "state bank", "picture", show=progress) as bar:
        for start in range(0, count, at_least(batch_size, "batch_size", 1)):
            end = min(start + batch_size, count)
            batch, given = batch_of(pictures, start, end)
            trace = space.trace(batch)
            for number in range(start, end):
                kept = slice(number * each, (number + 1) * each)
                tokens[kept] = len(trace.prefix) + _drawn(patches, each, (seed, number))
            rows = slice(start * each, end * each)
            _keep(trace, chosen, tokens[rows].reshape(end - start, each), states[:, rows], lengths[:, rows])
            files += [_thumbnail(picture, at_least(size, "size", 1)) for picture in _shown(trace)]
            labels += [_known_class(space, label, own_class_names(pictures)) for label in given]
            answers += trace.output.argmax(dim=-1).tolist()
            marks += [picture_mark(picture) for picture in _shown(trace)]
            names += [trace.image_names[i] if i < len(trace.image_names) else "" for i in range(end - start)]
            bar.update(end - start)
    return StateBank(
        states=states,
        lengths=lengths,
        pictures=np.repeat(np.arange(count, dtype=np.int32), each),
        tokens=tokens,
        labels=np.asarray(labels, np.int32),
        answers=np.asarray(answers, np.int32),
        marks=np.asarray(marks, np.uint64),
        picture_bytes=np.frombuffer(b"".join(files), np.uint8),
        picture_ends=np.cumsum([len(file) for file in files]).astype(np.uint32),
        blocks=tuple(chosen),
        grid=adapter.grid,
        prefix=tuple(adapter.prefix),
        names=tuple(names),
        class_names=tuple(space.class_names),
        model_name=space.name,
        fingerprint=known_fingerprint(space.model),
    )


def _known_class(space: ClassSpace, label: Any, names: Sequence[str] | None) -> int:
    """The model's class of a label; -1 where there is none, or the model does not have it."""
    try:
        return -1 if label is None else label_index(space.class_names, label, names)
    except (TypeError, ValueError):
        return -1


def _drawn(patches: int, each: int, seed: tuple[int, int]) -> Array:
    """Which patches of a picture are kept, in order; they depend on the picture's number alone."""
    if each == patches:
        return np.arange(patches)
    return np.sort(np.random.default_rng(seed).choice(patches, each, replace=False))


def _keep(trace: Trace, blocks: list[int], tokens: Array, states: Array, lengths: Array) -> None:
    """Put the directions and lengths of tokens ``[B, e]`` of every block into ``[L', B * e, D]`` and ``[L', B * e]``."""
    places = torch.from_numpy(tokens).long().to(trace.output.device)
    rows = torch.arange(trace.n_images, device=places.device).unsqueeze(1)
    with torch.no_grad():
        found = trace.vectors_at(((block, "residual") for block in blocks), torch.float32)
        for place, vectors in enumerate(found):
            chosen = vectors[rows, places].flatten(0, 1)
            length = chosen.norm(dim=-1)
            states[place] = (chosen / length.clamp_min(1e-12).unsqueeze(-1)).half().cpu().numpy()
            lengths[place] = length.cpu().numpy()


def _shown(trace: Trace) -> Array:
    """The pictures of a batch as the model saw them, ``[B, height, width, 3]``."""
    if trace.pictures is None:
        raise ValueError("these pixels cannot be shown as pictures; give pictures, or pixels of three channels")
    return trace.pictures


def picture_mark(picture: Array) -> int:
    """A hash of a picture's pixels."""
    return int.from_bytes(hashlib.sha256(np.ascontiguousarray(picture).tobytes()).digest()[:8], "little")


def _thumbnail(picture: Array, size: int) -> bytes:
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
