"""Snapshots that work where there is no kernel: with every class, or with some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from classspace_widgets.lookup import class_index, items_of
from classspace_widgets.snapshot.select import classes_note, select_classes
from classspace_widgets.snapshot.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from classspace_widgets.snapshot.meta import PayloadMeta, PayloadMode

MODES = ("auto", "all", "classes", "increments")
VALUES_LIMIT = 200_000
"""Bytes of head values up to which they travel with a few classes."""
MAX_BYTES = 20_000_000
"""Bytes of a page, unless told otherwise: most mail servers take as much."""


@dataclass(frozen=True)
class Payload:
    """How much of each picture an exported page carries.

    Parameters
    ----------
    mode : str
        ``"auto"``: every class, exactly where the model has few, in float16 where it has many; with ``classes`` of
        `export_html`, only these. Or a payload of `capture.capture`: ``"all"``, ``"classes"``, ``"increments"``.
    streams : sequence of str, optional
        With ``classes``: carry ranks, top classes and probabilities of these streams only (``"attention"``, ``"mid"``,
        ``"mlp"``, ``"residual"``; parallel blocks: ``"block"``, ``"residual"``).
    ranks_only : bool
        With ``classes``: carry exact ranks and top classes only, which is smallest.
    max_bytes : int
        The largest page; its size is known within a fifth before anything is computed. Where every class would be larger,
        fewer are carried. A page that was asked for with ``classes`` or a mode and would be larger is refused; the
        message says what would be smaller.

    Examples
    --------
    >>> Payload(streams=["residual"]).max_bytes
    20000000
    """

    mode: str = "auto"
    streams: Sequence[str] | None = None
    ranks_only: bool = False
    max_bytes: int = MAX_BYTES

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"payload must be one of {MODES}, or a Payload, got {self.mode!r}")


def numbers(snapshot: Snapshot, classes: Sequence[int | str] | None) -> list[int] | None:
    """Numbers of classes, each once."""
    if classes is None:
        return None
    return list(dict.fromkeys(class_index(snapshot.class_names, c) for c in items_of(classes)[0]))


def carried(snapshot: Snapshot, wanted: Sequence[int] | None, mode: str) -> tuple[PayloadMode | None, int]:
    """How `portable` makes a snapshot (None: it stays as it is), and of how many classes exactly."""
    now, kept = snapshot.meta["payload"]["mode"], len(snapshot.meta["classes"]["kept"])
    if wanted is None and mode == "auto" and now in ("all", "increments"):
        return None, kept
    if snapshot.source is None:
        return (None, kept) if wanted is None else ("classes", len(wanted))
    automatic = "classes" if wanted is not None else "increments"
    chosen = cast("PayloadMode", automatic if mode == "auto" else mode)
    count = snapshot.meta["classes"]["count"]
    some = {
        "all": count,
        "classes": len(wanted or []) or min(10, count),
        "increments": len(wanted or []) + min(5, count),
    }
    return chosen, some[chosen]


def portable(snapshot: Snapshot, classes: Sequence[int | str] | None = None, mode: str = "auto") -> Snapshot:
    """A snapshot that works without a kernel: all classes, or only ``classes``.

    A live snapshot is captured anew from its trace, but for classes that it carries exactly already; one without a kernel
    can only lose classes.
    """
    wanted = numbers(snapshot, classes)
    new, _ = carried(snapshot, wanted, mode)
    source = snapshot.source
    if new is None and (source is not None or (wanted is None and _complete(snapshot))):
        return snapshot
    at_hand = snapshot.meta["payload"]["mode"] == "classes" and set(wanted or [-1]) <= set(
        snapshot.meta["classes"]["kept"]
    )
    if source is not None and new is not None and not (new == "classes" and at_hand):
        made = source.recapture(snapshot, classes=wanted, payload=new)
        made.source = source
        if new == "classes":
            made.meta["payload"]["note"] = classes_note(made)
        return without_large_values(made)
    if wanted is not None:
        made = select_classes(snapshot, wanted)
        made.source = source
        return without_large_values(made)
    payload_meta: PayloadMeta = {
        **snapshot.meta["payload"],
        "note": classes_note(snapshot),
    }  # a page has no kernel to ask
    return Snapshot({**snapshot.meta, "payload": payload_meta}, snapshot.arrays)


def _complete(snapshot: Snapshot) -> bool:
    """Whether it promises no kernel: it carries every class, or was made for a page and says what it carries."""
    payload = snapshot.meta["payload"]
    return payload["mode"] != "classes" or "points" in payload or "ranks_only" in payload


def without_large_values(snapshot: Snapshot) -> Snapshot:
    """A snapshot of some classes without the values of its heads, by source token, where these are large.

    They weigh most and are missed least: which patches a head reads from cannot be shown without them.
    """
    arrays = dict(snapshot.arrays)
    if snapshot.meta["payload"]["mode"] != "classes" or "value_raw" not in arrays:
        return snapshot
    if arrays["value_raw"].nbytes > VALUES_LIMIT:
        del arrays["value_raw"]
    return Snapshot(snapshot.meta, arrays, source=snapshot.source)
