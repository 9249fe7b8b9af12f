"""Snapshots with less in them: fewer classes, or less of each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from classspace_widgets.snapshot import lenses
from classspace_widgets.snapshot.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from classspace_widgets.snapshot.container import Array
    from classspace_widgets.snapshot.meta import ClassesMeta, SnapshotMeta

PER_CLASS = ("raw", "ranks", "head_raw", "value_raw", "attention_bias_raw", "flow", "flow_bias")
"""Arrays with a row for every class that is kept, beside those of lenses."""
INCREMENTS = ("increments", "increment_scale", "embedding")
"""Arrays of payload ``increments``, from which the readings of every class follow."""
READINGS = ("raw", "lse", "head_raw", "value_raw", "attention_bias_raw", "flow", "flow_bias")
"""Arrays of readings: all but ranks and top classes, beside those of lenses."""


def per_class(meta: SnapshotMeta) -> list[str]:
    """Names of all arrays with a row for every class that is kept."""
    return [*PER_CLASS, *lenses.lens_arrays(meta, lenses.PER_CLASS)]


def readings(meta: SnapshotMeta) -> list[str]:
    """Names of all arrays of readings."""
    return [*READINGS, *lenses.lens_arrays(meta, ("logits", "lse"))]


def by_point(meta: SnapshotMeta) -> dict[str, int]:
    """Arrays that have only the chosen stream points where these are some, and the axis of the points."""
    summaries = ["top", "top_logits", "lse", *lenses.lens_arrays(meta, lenses.SUMMARY)]
    return {"ranks": 1} | dict.fromkeys(lenses.lens_arrays(meta, lenses.PER_CLASS), 1) | dict.fromkeys(summaries, 0)


def select_classes(snapshot: Snapshot, classes: Sequence[int]) -> Snapshot:
    """The same snapshot with fewer classes."""
    kept = snapshot.meta["classes"]["kept"]
    lost = [snapshot.class_names[c] for c in classes if c not in kept and "increments" not in snapshot.arrays]
    if lost:
        raise ValueError(
            f"the snapshot does not carry {', '.join(lost[:5])}, and has no model behind it; "
            "export from a live trace, or save the snapshot with classes=[...]"
        )
    arrays = dict(snapshot.arrays)
    if snapshot.meta["payload"]["mode"] == "all":
        arrays |= _lens_summaries(snapshot)
    places = [kept.index(c) if c in kept else None for c in classes]
    for name in lenses.lens_arrays(snapshot.meta, lenses.PER_CLASS):
        if name in arrays:
            arrays[name] = lenses.chosen_rows(arrays[name], places)
    if all(c in kept for c in classes):
        rows = [kept.index(c) for c in classes]
        for name in PER_CLASS:
            if name in arrays:
                arrays[name] = np.ascontiguousarray(arrays[name][rows])
    else:  # Increments give the readings of every class, but not those of its heads.
        arrays["raw"] = np.stack([snapshot.raw(c) for c in classes])
        for name in PER_CLASS[1:]:
            arrays.pop(name, None)
    if "ranks" not in arrays:
        small = np.uint16 if len(snapshot.class_names) <= 65_535 else np.uint32
        arrays["ranks"] = snapshot.counted_ranks(classes).astype(small)
    if "top" not in arrays:
        arrays |= _summary(snapshot)
    for name in INCREMENTS:
        arrays.pop(name, None)
    about: ClassesMeta = {**snapshot.meta["classes"], "kept": list(classes), "all": False}
    meta: SnapshotMeta = {**snapshot.meta, "classes": about}
    meta["payload"] = {**snapshot.meta["payload"], "mode": "classes"}
    made = Snapshot(meta, arrays)
    made.meta["payload"]["note"] = classes_note(made)
    return made


def select_streams(snapshot: Snapshot, streams: Sequence[str] | None = None, *, ranks_only: bool = False) -> Snapshot:
    """A snapshot of some classes with less of each: ranks and top classes of some streams only, or without readings.

    Parameters
    ----------
    snapshot : Snapshot
        Of payload ``"classes"``.
    streams : sequence of str, optional
        Whose ranks, top classes and probabilities stay: of ``"attention"``, ``"mid"``, ``"mlp"`` and ``"residual"``
        (parallel blocks: ``"block"``, ``"residual"``).  Logits and contributions of every stream are sums of the same
        few readings and stay all.
    ranks_only : bool
        Leave the readings out: no logits, probabilities, contributions and heads, only exact ranks and top classes.

    Raises
    ------
    ValueError
        For an unknown stream, or a snapshot that carries every class.
    """
    if streams is None and not ranks_only:
        return snapshot
    if snapshot.meta["payload"]["mode"] != "classes":
        raise ValueError(
            "streams and ranks_only make a page of some classes smaller; pass classes=[...] too "
            "(a page of every class counts its ranks from readings, which serve all streams)"
        )
    arrays, payload = dict(snapshot.arrays), snapshot.meta["payload"].copy()
    if "points" in payload or "ranks_only" in payload:
        raise ValueError("this snapshot was made smaller already; start from the trace or from the whole snapshot")
    note = payload["note"]
    if streams is not None:
        points = snapshot.points.of_streams(streams)
        for name, axis in by_point(snapshot.meta).items():
            if name in arrays:
                arrays[name] = arrays[name].take(points, axis=axis)
        names = [streams] if isinstance(streams, str) else list(streams)
        payload["streams"], payload["points"] = names, points
        note += f" Ranks, top classes and probabilities are there for these streams alone: {', '.join(names)}."
    if ranks_only:
        for name in readings(snapshot.meta):
            arrays.pop(name, None)
        payload["ranks_only"] = True
        note += " Ranks and top classes alone: no logits, probabilities or contributions."
    payload["note"] = note
    return Snapshot({**snapshot.meta, "payload": payload}, arrays, source=snapshot.source)


def classes_note(snapshot: Snapshot) -> str:
    """How many classes a page of the snapshot carries, in words."""
    kept = snapshot.meta["classes"]["kept"]
    return f"{len(kept)} of {len(snapshot.class_names)} classes travel with this page."


def _summary(snapshot: Snapshot) -> dict[str, Array]:
    """Top classes and log-sum-exp of every point, counted from a snapshot that carries every class."""
    found: dict[str, list[Array]] = {"top": [], "top_logits": [], "lse": []}
    for _, logits in snapshot.scan():
        order = np.argsort(-logits, axis=-1, kind="stable")[..., :5]
        peak = logits.max(axis=-1)
        found["top"].append(order.astype(np.uint16 if logits.shape[-1] <= 65_535 else np.uint32))
        found["top_logits"].append(np.take_along_axis(logits, order, axis=-1).astype(np.float32))
        found["lse"].append((peak + np.log(np.exp(logits - peak[..., None]).sum(axis=-1))).astype(np.float32))
    return {name: np.concatenate(parts, axis=1) for name, parts in found.items()}


def _lens_summaries(snapshot: Snapshot) -> dict[str, Array]:
    """Top classes and log-sum-exp of every point through each lens, of a snapshot that carries every class."""
    arrays = snapshot.arrays
    order = np.argsort(snapshot.meta["classes"]["kept"])
    found: dict[str, Array] = {}
    for number in range(len(snapshot.meta.get("lenses", []))):
        logits, ranks = (arrays.get(lenses.lens_array(number, part)) for part in lenses.PER_CLASS)
        if logits is not None and ranks is not None:
            made = lenses.summary(logits[order], ranks[order])
            found |= {lenses.lens_array(number, part): array for part, array in made.items()}
    return found
