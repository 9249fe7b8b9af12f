"""Snapshots that work where there is no kernel: with every class, or narrowed to some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from classspace_widgets.lookup import class_index
from classspace_widgets.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

VALUES_LIMIT = 200_000
"""Bytes of head values up to which they travel with a few classes."""


def portable(snapshot: Snapshot, classes: Sequence[int | str] | None = None, payload: str = "auto") -> Snapshot:
    """A snapshot that works without a kernel: all classes, or only ``classes``.

    A live snapshot is captured anew from its trace; one without a kernel can only be narrowed.
    """
    if payload == "as it is":
        return snapshot
    if classes is None and payload == "auto" and snapshot.meta["payload"]["mode"] in ("all", "increments"):
        return snapshot
    wanted = [class_index(snapshot.class_names, c) for c in classes] if classes is not None else None
    if snapshot.source is not None:
        mode = payload if payload != "auto" else ("classes" if wanted is not None else "increments")
        made: Snapshot = snapshot.source.recapture(snapshot, classes=wanted, payload=mode)
        made.source = snapshot.source
        return lighter(made)
    return snapshot if wanted is None else lighter(narrowed(snapshot, wanted))


def lighter(snapshot: Snapshot) -> Snapshot:
    """Without what weighs most and is missed least where only some classes travel: which patches a head reads from."""
    arrays = dict(snapshot.arrays)
    if snapshot.meta["payload"]["mode"] != "classes" or "value_raw" not in arrays:
        return snapshot
    if arrays["value_raw"].nbytes > VALUES_LIMIT:
        del arrays["value_raw"]
    return Snapshot(snapshot.meta, arrays, source=snapshot.source)


def narrowed(snapshot: Snapshot, classes: Sequence[int]) -> Snapshot:
    """The same snapshot with fewer classes."""
    kept = snapshot.meta["classes"]["kept"]
    lost = [snapshot.class_names[c] for c in classes if c not in kept]
    if lost:
        raise ValueError(
            f"the snapshot does not carry {', '.join(lost[:5])}, and has no model behind it; "
            "export from a live trace, or save the snapshot with classes=[...]"
        )
    import numpy as np

    rows = [kept.index(c) for c in classes]
    arrays = dict(snapshot.arrays)
    for name in ("raw", "ranks", "head_raw", "value_raw", "attention_bias_raw"):
        if name in arrays:
            arrays[name] = np.ascontiguousarray(arrays[name][rows])
    if "ranks" not in arrays:
        small = np.uint16 if len(snapshot.class_names) <= 65_535 else np.uint32
        arrays["ranks"] = np.stack([snapshot.ranks(c) for c in classes]).astype(small)
        arrays |= _summary(snapshot)
    for name in ("increments", "increment_scale", "embedding"):
        arrays.pop(name, None)
    meta = {**snapshot.meta, "classes": {**snapshot.meta["classes"], "kept": list(classes), "all": False}}
    meta["payload"] = {
        "mode": "classes",
        "note": f"{len(classes)} of {len(snapshot.class_names)} classes travel with this view.",
    }
    return Snapshot(meta, arrays)


def _summary(snapshot: Snapshot) -> dict[str, Any]:
    """Top classes and log-sum-exp of every point, counted from a snapshot that carries every class."""
    import numpy as np

    logits = np.stack([snapshot.logits(c) for c in range(len(snapshot.class_names))], axis=-1)
    order = np.argsort(-logits, axis=-1, kind="stable")[..., :5]
    peak = logits.max(axis=-1)
    return {
        "top": order.astype(np.uint16),
        "top_logits": np.take_along_axis(logits, order, axis=-1).astype(np.float32),
        "lse": (peak + np.log(np.exp(logits - peak[..., None]).sum(axis=-1))).astype(np.float32),
    }
