"""Snapshots that work where there is no kernel: with every class, or narrowed to some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from classspace_widgets.lookup import class_index, items_of
from classspace_widgets.snapshot.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from classspace_widgets.snapshot.meta import ClassesMeta, PayloadMeta, PayloadMode, SnapshotMeta

VALUES_LIMIT = 200_000
"""Bytes of head values up to which they travel with a few classes."""


PER_CLASS = ("raw", "ranks", "head_raw", "value_raw", "attention_bias_raw")
"""Arrays with a row for every class that is kept."""


def numbers(snapshot: Snapshot, classes: Sequence[int | str] | None) -> list[int] | None:
    """Numbers of classes, each once."""
    if classes is None:
        return None
    return list(dict.fromkeys(class_index(snapshot.class_names, c) for c in items_of(classes)[0]))


def carried(snapshot: Snapshot, wanted: Sequence[int] | None, payload: str) -> tuple[PayloadMode | None, int]:
    """How `portable` makes a snapshot (None: it stays as it is), and of how many classes exactly."""
    now, kept = snapshot.meta["payload"]["mode"], len(snapshot.meta["classes"]["kept"])
    if payload == "as it is" or (wanted is None and payload == "auto" and now in ("all", "increments")):
        return None, kept
    if snapshot.source is None:
        return (None, kept) if wanted is None else ("classes", len(wanted))
    automatic = "classes" if wanted is not None else "increments"
    mode = cast("PayloadMode", automatic if payload == "auto" else payload)
    count = snapshot.meta["classes"]["count"]
    some = {
        "all": count,
        "classes": len(wanted or []) or min(10, count),
        "increments": len(wanted or []) + min(5, count),
    }
    return mode, some[mode]


def portable(snapshot: Snapshot, classes: Sequence[int | str] | None = None, payload: str = "auto") -> Snapshot:
    """A snapshot that works without a kernel: all classes, or only ``classes``.

    A live snapshot is captured anew from its trace, but for classes that it carries exactly already; one without a kernel
    can only be narrowed.
    """
    wanted = numbers(snapshot, classes)
    mode, _ = carried(snapshot, wanted, payload)
    source = snapshot.source
    if mode is None and (source is not None or payload == "as it is" or (wanted is None and _complete(snapshot))):
        return snapshot
    at_hand = snapshot.meta["payload"]["mode"] == "classes" and set(wanted or [-1]) <= set(
        snapshot.meta["classes"]["kept"]
    )
    if source is not None and mode is not None and not (mode == "classes" and at_hand):
        made = source.recapture(snapshot, classes=wanted, payload=mode)
        made.source = source
        if mode == "classes":
            made.meta["payload"]["note"] = _note(made)
        return lighter(made)
    if wanted is not None:
        made = narrowed(snapshot, wanted)
        made.source = source
        return lighter(made)
    payload_meta: PayloadMeta = {**snapshot.meta["payload"], "note": _note(snapshot)}  # a page has no kernel to ask
    return Snapshot({**snapshot.meta, "payload": payload_meta}, snapshot.arrays)


def _complete(snapshot: Snapshot) -> bool:
    """Whether it promises no kernel: it carries every class, or was made for a page and says what it carries."""
    said = snapshot.meta["payload"]
    return said["mode"] != "classes" or bool({"points", "ranks_only"} & set(said))


def lighter(snapshot: Snapshot) -> Snapshot:
    """Without what weighs most and is missed least where only some classes travel: which patches a head reads from."""
    arrays = dict(snapshot.arrays)
    if snapshot.meta["payload"]["mode"] != "classes" or "value_raw" not in arrays:
        return snapshot
    if arrays["value_raw"].nbytes > VALUES_LIMIT:
        del arrays["value_raw"]
    return Snapshot(snapshot.meta, arrays, source=snapshot.source)


def reduced(snapshot: Snapshot, *, streams: Sequence[str] | None = None, ranks_only: bool = False) -> Snapshot:
    """A snapshot of some classes with less of them: the ranks and top classes of some streams, or these alone.

    Parameters
    ----------
    snapshot : Snapshot
        Of payload ``"classes"``.
    streams : sequence of str, optional
        Whose ranks, top classes and probabilities stay: of ``"attention"``, ``"mid"``, ``"mlp"`` and ``"residual"``
        (parallel blocks: ``"block"``, ``"residual"``).  Logits and contributions of every stream are sums of the same
        few readings and stay all.
    ranks_only : bool
        Leave the readings out: no logits, probabilities, contributions and heads, exact ranks and top classes alone.

    Raises
    ------
    ValueError
        For an unknown stream, or a snapshot that carries every class.
    """
    if streams is None and not ranks_only:
        return snapshot
    if snapshot.meta["payload"]["mode"] != "classes":
        raise ValueError(
            "streams= and ranks_only=True make a page of some classes smaller; pass classes=[...] too "
            "(a page of every class counts its ranks from readings, which serve all streams)"
        )
    arrays, payload = dict(snapshot.arrays), snapshot.meta["payload"].copy()
    if "points" in payload or "ranks_only" in payload:
        raise ValueError("this snapshot was made smaller already; start from the trace or from the whole snapshot")
    note = payload["note"]
    if streams is not None:
        points = snapshot.points.of_streams(streams)
        arrays["ranks"] = arrays["ranks"][:, points]
        arrays |= {name: arrays[name][points] for name in ("top", "top_logits", "lse")}
        names = [streams] if isinstance(streams, str) else list(streams)
        payload["streams"], payload["points"] = names, points
        note += f" Ranks, top classes and probabilities are there for these streams alone: {', '.join(names)}."
    if ranks_only:
        for name in ("raw", "lse", "head_raw", "value_raw", "attention_bias_raw"):
            arrays.pop(name, None)
        payload["ranks_only"] = True
        note += " Ranks and top classes alone: no logits, probabilities or contributions."
    payload["note"] = note
    return Snapshot({**snapshot.meta, "payload": payload}, arrays, source=snapshot.source)


def narrowed(snapshot: Snapshot, classes: Sequence[int]) -> Snapshot:
    """The same snapshot with fewer classes."""
    kept = snapshot.meta["classes"]["kept"]
    lost = [snapshot.class_names[c] for c in classes if c not in kept and "increments" not in snapshot.arrays]
    if lost:
        raise ValueError(
            f"the snapshot does not carry {', '.join(lost[:5])}, and has no model behind it; "
            "export from a live trace, or save the snapshot with classes=[...]"
        )
    import numpy as np

    arrays = dict(snapshot.arrays)
    if all(c in kept for c in classes):
        rows = [kept.index(c) for c in classes]
        for name in PER_CLASS:
            if name in arrays:
                arrays[name] = np.ascontiguousarray(arrays[name][rows])
    else:  # Increments give the readings of every class, but not those of its heads.
        arrays["raw"] = np.stack([snapshot.raw(c) for c in classes])
        for name in ("ranks", "head_raw", "value_raw", "attention_bias_raw"):
            arrays.pop(name, None)
    if "ranks" not in arrays:
        small = np.uint16 if len(snapshot.class_names) <= 65_535 else np.uint32
        arrays["ranks"] = snapshot.counted_ranks(classes).astype(small)
    if "top" not in arrays:
        arrays |= _summary(snapshot)
    for name in ("increments", "increment_scale", "embedding"):
        arrays.pop(name, None)
    about: ClassesMeta = {**snapshot.meta["classes"], "kept": list(classes), "all": False}
    meta: SnapshotMeta = {**snapshot.meta, "classes": about}
    meta["payload"] = {**snapshot.meta["payload"], "mode": "classes"}
    made = Snapshot(meta, arrays)
    made.meta["payload"]["note"] = _note(made)
    return made


def _note(snapshot: Snapshot) -> str:
    kept = snapshot.meta["classes"]["kept"]
    return f"{len(kept)} of {len(snapshot.class_names)} classes travel with this page."


def _summary(snapshot: Snapshot) -> dict[str, Any]:
    """Top classes and log-sum-exp of every point, counted from a snapshot that carries every class."""
    import numpy as np

    found: dict[str, list[Any]] = {"top": [], "top_logits": [], "lse": []}
    for _, logits in snapshot.scan():
        order = np.argsort(-logits, axis=-1, kind="stable")[..., :5]
        peak = logits.max(axis=-1)
        found["top"].append(order.astype(np.uint16 if logits.shape[-1] <= 65_535 else np.uint32))
        found["top_logits"].append(np.take_along_axis(logits, order, axis=-1).astype(np.float32))
        found["lse"].append((peak + np.log(np.exp(logits - peak[..., None]).sum(axis=-1))).astype(np.float32))
    return {name: np.concatenate(parts, axis=1) for name, parts in found.items()}
