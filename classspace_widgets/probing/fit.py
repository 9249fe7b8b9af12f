"""Fitting ridge probes on a data set, and their accuracy compared with that of the lens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.images import Prepared
from classspace_widgets.lens.readout import pools
from classspace_widgets.probing.ridge import RidgeProbes, RidgeSums
from classspace_widgets.progress import over, progress_bar, quiet

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from classspace_widgets.points import Point
    from classspace_widgets.space.space import ClassSpace


PICTURES_AT_ONCE = 192
"""Pictures that are added to the sums together. Every addition reads and writes all sums, which are large: with fewer
pictures that dominates, with more their vectors fill the memory."""


def probe_points(space: ClassSpace, streams: Iterable[str] = ("residual",)) -> tuple[Point, ...]:
    """All stream points of the given streams, in order; the embedding (block 0) belongs to the residual stream.

    Parameters
    ----------
    space : ClassSpace
    streams : iterable of str
        ``"residual"``, ``"attention"``, ``"mid"``, ``"mlp"``; parallel blocks: ``"residual"``, ``"block"``.

    Returns
    -------
    tuple of Point

    Raises
    ------
    ValueError
        For an unknown stream.

    Examples
    --------
    >>> [point.name for point in probe_points(ClassSpace.bundled(), ["mlp"])[:2]]
    ['block 1 MLP', 'block 2 MLP']
    """
    return tuple(space.points[number] for number in space.points.of_streams(streams))


def fit_probes(
    space: ClassSpace,
    dataset: Any,
    *,
    streams: Iterable[str] = ("residual",),
    per_position: bool = True,
    tokens: Sequence[int] | None = None,
    k_shot: int | None = None,
    penalty: float = 1.0,
    batch_size: int = 32,
    workers: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> RidgeProbes:
    """Fit linear probes of all blocks in one pass over the data.

    Parameters
    ----------
    space : ClassSpace
    dataset : Any
        As in `studies.run_study`.
    streams : iterable of str
        ``"residual"``, ``"attention"``, ``"mid"``, ``"mlp"``.
    per_position : bool
        True: a probe for every token, as in the paper; False: one for all tokens of a stream point.
    tokens : sequence of int, optional
        Only these tokens, such as ``[0]`` for [CLS].
    k_shot : int, optional
        At most this many pictures of each class, drawn at random (10 in the paper).
    penalty : float
        Weight of the squared norm, at least 0.
    batch_size : int
        Pictures in a forward pass.
    workers : int
        Threads that read pictures ahead; 0 for none.
    seed : int
        Seed of the k-shot draw.
    progress : bool
        Show a progress bar after a second.

    Returns
    -------
    RidgeProbes

    Raises
    ------
    ValueError
        For an unknown stream or token, too few pictures for the classes, or sums that do not fit into memory.

    Notes
    -----
    The sums take ``8 S Q D (D + C)`` bytes, at most 8 GB; the error beyond that says what to do.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> probes = fit_probes(ClassSpace.bundled(), ScenesDataset(24, seed=2), tokens=[0], progress=False)
    >>> probes.weights.shape  # S stream points, Q positions, D, C
    torch.Size([9, 1, 128, 24])
    """
    sums = collect_sums(
        space,
        dataset,
        streams=streams,
        per_position=per_position,
        tokens=tokens,
        k_shot=k_shot,
        batch_size=batch_size,
        workers=workers,
        seed=seed,
        progress=progress,
    )
    with quiet(not progress):
        fitted = sums.solve(penalty)
    return RidgeProbes(fitted.points, fitted.weights, fitted.bias, penalty, tuple(tokens or ()))


def collect_sums(
    space: ClassSpace,
    dataset: Any,
    *,
    streams: Iterable[str] = ("residual",),
    per_position: bool = True,
    tokens: Sequence[int] | None = None,
    k_shot: int | None = None,
    batch_size: int = 32,
    workers: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> RidgeSums:
    """The sums behind `fit_probes`, to solve with several penalties or to merge with sums of other data.

    Parameters
    ----------
    space, dataset, streams, per_position, tokens, k_shot, batch_size, workers, seed, progress
        As in `fit_probes`.

    Returns
    -------
    RidgeSums

    Raises
    ------
    ValueError
        For an unknown stream or token, or sums that do not fit into memory.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> space = ClassSpace.bundled()
    >>> first, second = (collect_sums(space, ScenesDataset(24, seed=s), tokens=[0], progress=False) for s in (2, 3))
    >>> first.merge(second).solve(penalty=10.0).penalty
    10.0
    """
    points = probe_points(space, streams)
    total = len(space.adapter.prefix) + space.adapter.grid[0] * space.adapter.grid[1]
    chosen = list(range(total)) if tokens is None else [int(t) for t in tokens]
    if not chosen or not all(0 <= t < total for t in chosen):
        raise ValueError(f"tokens must be in 0..{total - 1}, at least one, got {chosen[:5]}")
    positions = len(chosen) if per_position else 1
    width, n_classes = space.adapter.width, int(space.lens.offset.shape[0])
    needed = 8 * len(points) * positions * width * (width + n_classes)
    if needed > 8 << 30:
        raise ValueError(
            f"the sums of {len(points)} stream points x {positions} positions would take {needed / 2**30:.0f} GB; choose "
            "tokens=[...], fewer streams, or per_position=False"
        )
    indices, batches = _batches(space, dataset, k_shot, batch_size, workers, seed)
    sums = RidgeSums.empty(points, positions, width, n_classes, space.device)
    waiting: list[list[Tensor]] = [[] for _ in points]
    seen: list[Tensor] = []

    def add() -> None:
        """Add the waiting vectors to the sums."""
        with torch.inference_mode():
            for at, kept in enumerate(waiting):
                if kept:
                    sums.add(at, torch.cat(kept), torch.cat(seen))
                kept.clear()
        seen.clear()

    with progress_bar(len(indices), "probes", "picture", show=progress) as bar:
        for pixels, labels in batches:
            trace = space.trace_pixels(Prepared(pixels))
            with torch.inference_mode():
                for kept, vectors in zip(waiting, trace.vectors_at(points, torch.float32), strict=True):
                    kept.append(vectors[:, chosen])
            seen.append(labels)
            if sum(len(some) for some in seen) >= PICTURES_AT_ONCE:
                add()
            bar.update(len(labels))
        add()
    return sums


def probe_accuracy(
    space: ClassSpace,
    probes: RidgeProbes,
    dataset: Any,
    *,
    batch_size: int = 32,
    workers: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Accuracy of probes and of the lens, by block, stream and token group.

    Parameters
    ----------
    space : ClassSpace
    probes : RidgeProbes
    dataset : Any
        As in `studies.run_study`, with pictures that were not used for the fit.
    batch_size, workers, progress
        As in `fit_probes`.

    Returns
    -------
    DataFrame
        Columns ``block``, ``stream``, ``tokens`` (``"[CLS]"`` or ``"image"``), ``reading`` (``"probe"`` or
        ``"lens"``), ``value``, ``count``, and ``used``: False for image tokens of the last block in a model that answers from
        its prefix tokens and does not use them.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> space = ClassSpace.bundled()
    >>> probes = fit_probes(space, ScenesDataset(24, seed=2), tokens=[0], progress=False)
    >>> accuracy = probe_accuracy(space, probes, ScenesDataset(8, seed=3), progress=False)
    >>> sorted(set(accuracy["reading"]))
    ['lens', 'probe']
    """
    import pandas as pd

    prefix = len(space.adapter.prefix)
    hits: dict[tuple[int, str, str, str], list[float]] = {}
    indices, batches = _batches(space, dataset, None, batch_size, workers, 0)
    count = -(-len(indices) // batch_size)
    for pixels, labels in over(batches, count, "probe accuracy", "batch", show=progress):
        trace = space.trace_pixels(Prepared(pixels))
        chosen = list(probes.positions) or list(range(trace.n_tokens))
        # In some models the first token is a register, not [CLS].
        has_cls = space.adapter.prefix[:1] == ("[CLS]",)
        groups = {"[CLS]": [i for i, t in enumerate(chosen) if t == 0 and has_cls]}
        groups["image"] = [i for i, t in enumerate(chosen) if t >= prefix]
        with torch.inference_mode():
            for (block, stream), vectors in zip(
                probes.points, trace.vectors_at(probes.points, torch.float32), strict=True
            ):
                picked = vectors[:, chosen]
                for reading, scores in (
                    ("probe", probes.scores(picked, block, stream)),
                    ("lens", space.lens.logits(picked)),
                ):
                    correct = (scores.argmax(dim=-1) == labels.unsqueeze(1)).double().cpu().numpy()
                    for group, positions in groups.items():
                        if positions:
                            total = hits.setdefault((block, stream, group, reading), [0.0, 0.0])
                            total[0] += float(correct[:, positions].sum())
                            total[1] += correct[:, positions].size
    rows = [(*key, correct / count, int(count)) for key, (correct, count) in hits.items()]
    table = pd.DataFrame(rows, columns=["block", "stream", "tokens", "reading", "value", "count"])
    last = (table["block"] == space.points.n_blocks) & (table["tokens"] == "image")
    table["used"] = ~last | pools(space.adapter.pooling)
    return table


def _batches(
    space: ClassSpace, dataset: Any, k_shot: int | None, batch_size: int, workers: int, seed: int
) -> tuple[list[int], Iterable[tuple[Tensor, Tensor]]]:
    from classspace_widgets.data.batches import LabelledPictures

    if batch_size < 1 or (k_shot is not None and k_shot < 1):
        raise ValueError(f"batch_size and k_shot must be at least 1, got {batch_size} and {k_shot}")
    pictures = LabelledPictures(space, dataset)
    indices = list(range(len(pictures)))
    if k_shot is not None:
        indices = _draw(pictures.data, pictures.prepare, k_shot, seed)
    batches = pictures.batches(batch_size, indices=indices, workers=workers)
    return indices, ((batch.pixels, batch.labels) for batch in batches)


def _draw(data: Any, prepare: Any, k_shot: int, seed: int) -> list[int]:
    """Positions of at most ``k_shot`` random pictures of each class; labels come from the data set's list if it has one."""
    from classspace_widgets.data.prepare import Item

    listed = getattr(data, "labels", None)
    order = np.random.default_rng(seed).permutation(len(data))
    taken: dict[int, int] = {}
    chosen = []
    for index in order.tolist():
        if listed is not None:
            label = int(listed[index])
        else:
            item = prepare(index)
            if not isinstance(item, Item):
                continue
            label = item.label
        if taken.get(label, 0) < k_shot:
            taken[label] = taken.get(label, 0) + 1
            chosen.append(index)
    return sorted(chosen)
