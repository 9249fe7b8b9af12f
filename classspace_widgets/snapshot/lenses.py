"""Readings through fitted lenses in a snapshot: how their arrays are called, checked and cut.

A fitted lens has a map of its own at every stream point, so its readings do not follow from those of the increments: they
travel themselves, in the order of ``meta["lenses"]``, as ``lens0_logits``, ``lens0_ranks`` and so on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.validate import below, shaped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from classspace_widgets.snapshot.container import Array
    from classspace_widgets.snapshot.meta import SnapshotMeta
    from classspace_widgets.validate import Fields

PER_CLASS = ("logits", "ranks")
"""Parts of a lens with a row for every class that is kept."""
SUMMARY = ("top", "top_logits", "lse")
"""Parts of a lens that say something of all classes; where every class is kept they follow from the others."""
BEST = 5
"""Classes that a summary lists."""


def lens_array(number: int, part: str) -> str:
    """Name of an array of the lens with this number: ``lens0_logits``."""
    return f"lens{number}_{part}"


def lens_arrays(meta: SnapshotMeta, parts: Sequence[str]) -> list[str]:
    """Names of these arrays of all lenses that a snapshot carries."""
    return [lens_array(number, part) for number in range(len(meta.get("lenses", []))) for part in parts]


def lens_number(meta: SnapshotMeta, lens: str | int) -> int:
    """Number of a lens from its label or number; ``KeyError`` where the snapshot does not carry it."""
    labels = [entry["label"] for entry in meta.get("lenses", [])]
    if lens in labels:
        return labels.index(str(lens))
    if isinstance(lens, int) and 0 <= lens < len(labels):
        return lens
    there = f"it carries {', '.join(labels)}" if labels else "it carries none"
    raise KeyError(f"this snapshot has no lens {lens!r}, {there}; take it again with trace.snapshot(lenses=[lens])")


def missing(ranks: Array) -> int:
    """What stands in an array of ranks or classes where a lens has no map: the largest value of its type."""
    return int(np.iinfo(ranks.dtype).max)


def number_type(count: int) -> np.dtype[Any]:
    """The smallest type that holds ``0..count-1`` and a value that stands for none."""
    return np.min_scalar_type(count)


def chosen_rows(array: Array, rows: Sequence[int | None]) -> Array:
    """Rows of a lens's array by class; where there is none (None), NaN, or what stands for no rank."""
    made = array[[0 if row is None else row for row in rows]].copy()
    made[[row is None for row in rows]] = np.nan if array.dtype.kind == "f" else missing(array)
    return made


def summary(logits: Array, ranks: Array) -> dict[str, Array]:
    """Best classes, their logits and the log-sum-exp ``[S, T', ...]``, from those of every class ``[C, S, T']``."""
    hidden = ranks[0] == missing(ranks)
    order = np.moveaxis(np.argsort(ranks, axis=0, kind="stable")[:BEST], 0, -1)
    values = np.moveaxis(logits, 0, -1).astype(np.float32)
    found = order.astype(ranks.dtype)
    found[hidden] = missing(ranks)
    peak = values.max(axis=-1)
    total = peak + np.log(np.exp(values - peak[..., None]).sum(axis=-1))
    best = np.take_along_axis(values, order, axis=-1).astype(logits.dtype)
    return {"top": found, "top_logits": best, "lse": total.astype(np.float32)}


def check_lenses(fields: Fields, arrays: Mapping[str, Array], shape: tuple[int, int, int]) -> None:
    """Raise `ValueError` unless the lenses of a snapshot and their arrays, of ``shape`` [K, S, T'], fit one another."""
    if not fields.has("lenses"):
        return
    count, (_, points, tokens) = fields.whole("classes.count", 1), shape
    ranks_only = fields.has("payload.ranks_only") and fields.flag("payload.ranks_only")
    every = fields.one_of("payload.mode", ("all", "classes", "increments")) == "all"
    labels = [entry.text("label") for entry in fields.objects("lenses")]
    if len(set(labels)) != len(labels):
        raise ValueError(f"lenses must have a label each, got {labels}")
    for number, entry in enumerate(fields.objects("lenses")):
        entry.text("kind")
        entry.text("question")
        entry.whole("pictures", 1)
        if not ranks_only:
            shaped(arrays, lens_array(number, "logits"), shape, "f")
        if entry.value("classes") is not None:
            entry.wholes("classes", 0, count - 1)
            continue
        name = lens_array(number, "ranks")
        ranks = shaped(arrays, name, shape, "u")
        below(ranks, name, count, missing=missing(ranks))
        if every:
            continue
        name = lens_array(number, "top")
        top = shaped(arrays, name, (points, tokens, None), "u")
        below(top, name, count, missing=missing(top))
        shaped(arrays, lens_array(number, "top_logits"), top.shape, "f")
        if not ranks_only:
            shaped(arrays, lens_array(number, "lse"), (points, tokens), "f")
