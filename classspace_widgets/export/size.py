"""How large a page will be, known before anything is computed for it; and which classes fit."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.export import front_end
from classspace_widgets.export.page import STYLE
from classspace_widgets.export.portable import VALUES_LIMIT, carried
from classspace_widgets.lookup import class_index
from classspace_widgets.snapshot.container import unpack
from classspace_widgets.snapshot.select import INCREMENTS, by_point, per_class, readings
from classspace_widgets.snapshot.still import data_uri, has_pillow, picture_of, still_address, with_readable_picture

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from classspace_widgets.export.page import Mount
    from classspace_widgets.export.portable import Payload
    from classspace_widgets.snapshot.container import Array
    from classspace_widgets.snapshot.snapshot import Snapshot

SAMPLE = 1 << 16
"""Bytes of each of four samples by which a large array's packed size is judged."""
FRAME = 1_500
"""Bytes of a page's own HTML and policy, as they were measured."""
PLACE = 1_500
"""Bytes of a view's place, words and map, beside its still picture."""
MAX_RANKED = 50
"""Classes that are taken at most from a snapshot of every class: their ranks are still to be counted."""
SUMMARY = 0.75
"""What packing leaves of top classes, their logits and the log-sum-exp, where they are not there yet to be tried."""


def packed_size(array: Array) -> float:
    """Bytes that an array takes in a page: in planes of bytes, gzipped, in base64."""
    values, size = np.ascontiguousarray(array).reshape(-1), array.dtype.itemsize
    count = SAMPLE // size
    samples = [values]
    if len(values) > 4 * count:
        samples = [values[start : start + count] for start in np.linspace(0, len(values) - count, 4).astype(int)]
    packed = sum(len(zlib.compress(s.view(np.uint8).reshape(-1, size).T.tobytes(), 9)) for s in samples)
    return packed * 4 / 3 * len(values) / max(sum(len(s) for s in samples), 1)


def snapshot_size(snapshot: Snapshot) -> float:
    """Bytes that a snapshot takes in a page."""
    return sum(packed_size(array) for array in snapshot.arrays.values()) + _meta_size(snapshot)


def still_size(snapshot: Snapshot) -> float:
    """Bytes of a view's place in a page: a still picture, by itself and under a map, and words."""
    if not has_pillow():
        return PLACE + len(still_address(snapshot))
    picture = picture_of(with_readable_picture(snapshot))
    if picture is None:
        return PLACE
    picture = picture.resize((224, max(1, round(224 * picture.height / picture.width))))
    return PLACE + 2 * len(data_uri(picture, quality=70))


def _meta_size(snapshot: Snapshot) -> float:
    return len(zlib.compress(json.dumps(snapshot.meta).encode(), 9)) * 4 / 3


def estimate_bytes(snapshots: Sequence[Snapshot]) -> int:
    """Size of a page with these snapshots, before it is made: within a fifth of what is written.

    Large arrays are judged by samples.

    Parameters
    ----------
    snapshots : sequence of Snapshot

    Returns
    -------
    int
        Bytes.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> snapshot = ClassSpace.bundled().trace(gallery()[0].picture).snapshot()
    >>> estimate_bytes([snapshot]) < 1_000_000
    True
    """
    pinned = any(s.meta.get("intervention") for s in snapshots)
    return round(page_size(pinned=pinned) + sum(snapshot_size(s) + still_size(s) for s in snapshots))


def models_size(containers: Collection[bytes]) -> int:
    """Bytes that models, and what runs them, take in a page."""
    if not containers:
        return 0
    weights = sum(packed_size(array) for container in containers for array in unpack(container)[1].values())
    return round(weights) + len(front_end.engine()) + len(front_end.later("actions"))


def tours_size(mounts: Sequence[Mount]) -> int:
    """Bytes that guided tours, and what tells them, take in a page."""
    told = [len(json.dumps(mount.options["tours"])) for mount in mounts if "tours" in mount.options]
    return sum(told) + len(front_end.later("tour")) if told else 0


def page_size(*, pinned: bool = False) -> int:
    """Bytes of a page without its views; with ``pinned``, of one that has intervened passes."""
    scripts = [front_end.runtime(), front_end.later("page"), *([front_end.later("actions")] if pinned else [])]
    return sum(map(len, scripts)) + len(STYLE) + FRAME


@dataclass(frozen=True)
class Forecast:
    """What a view will take in a page, by what it will carry.

    Attributes
    ----------
    snapshot : Snapshot
        As it is now.
    wanted : list of int or None
        Classes that are asked for; None for all.
    payload : Payload
        As `export_html` takes it.
    copies : int
        The view and its pinned states.
    sizes : dict of str to float
        Packed bytes of the arrays that are there now.
    meta : float
        Packed bytes of the meta data.
    """

    snapshot: Snapshot
    wanted: list[int] | None
    payload: Payload
    copies: int
    sizes: dict[str, float]
    meta: float

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        classes: list[int] | None,
        payload: Payload,
        *,
        copies: int = 1,
    ) -> Forecast:
        """Try on the arrays that are there, and on increments where they would be taken."""
        arrays = snapshot.arrays
        mode = carried(snapshot, classes, payload.mode)[0]
        if mode == "increments" and "increments" not in arrays and snapshot.source is not None:
            arrays = {**arrays, **snapshot.source.increments()}
        sizes = {name: packed_size(array) for name, array in arrays.items()}
        return cls(snapshot, classes, payload, copies, sizes, _meta_size(snapshot))

    @property
    def nbytes(self) -> float:
        """Bytes in the page, but for the still picture."""
        snapshot, sizes = self.snapshot, dict(self.sizes)
        mode, k = carried(snapshot, self.wanted, self.payload.mode)
        if mode is not None:
            share = k / len(snapshot.meta["classes"]["kept"])
            for name in set(per_class(snapshot.meta)) & set(sizes):
                sizes[name] *= share
            values = snapshot.arrays["value_raw"].nbytes * share if "value_raw" in sizes else 0
            if mode == "classes" and values > VALUES_LIMIT:
                del sizes["value_raw"]
            if mode != "increments":
                for name in INCREMENTS:
                    sizes.pop(name, None)
            shown = snapshot.arrays["sigma"].size
            if mode != "all" and "top" not in sizes:
                best = min(5, snapshot.meta["classes"]["count"])
                sizes |= {"top": 2 * best * shown * SUMMARY, "top_logits": 2 * best * shown, "lse": 4 * shown}
            if mode != "all" and "ranks" not in sizes:
                sizes["ranks"] = 2 * k * shown * SUMMARY
        if self.payload.streams is not None:
            share = len(snapshot.points.of_streams(self.payload.streams)) / len(snapshot.arrays["sigma"])
            sizes |= {name: sizes[name] * share for name in by_point(snapshot.meta) if name in sizes}
        if self.payload.ranks_only:
            for name in readings(snapshot.meta):
                sizes.pop(name, None)
        return self.copies * (sum(sizes.values()) + self.meta)

    @property
    def shrinks(self) -> bool:
        """Whether it carries every class without having been asked to: then it may carry fewer."""
        mode = carried(self.snapshot, self.wanted, self.payload.mode)[0]
        now = self.snapshot.meta["payload"]["mode"]
        return (
            self.wanted is None
            and self.payload.mode == "auto"
            and (mode == "increments" or now in ("all", "increments"))
        )


def choose_classes(
    views: Sequence[Forecast], looked_at: Sequence[Sequence[int]], room: float
) -> list[list[int] | None] | None:
    """Classes for every view, so that all of them fit: None where a view is left as it is.

    Those that are looked at come first, then those that the snapshot carries exactly: they cost nothing to compute.

    Parameters
    ----------
    views : sequence of Forecast
    looked_at : sequence of sequence of int
        Classes that each view shows, and its picture's label.
    room : float
        Bytes that there are for all of them.

    Returns
    -------
    list of (list of int or None), or None
        None where not even one class of each fits.
    """
    orders = [
        list(dict.fromkeys([*seen, *_carried_best_first(view.snapshot)])) if view.shrinks else None
        for view, seen in zip(views, looked_at, strict=True)
    ]
    longest = max((len(order) for order in orders if order), default=0)
    for count in range(longest, 0, -1):
        chosen = [None if order is None else order[:count] for order in orders]
        tried = (view if c is None else replace(view, wanted=c) for view, c in zip(views, chosen, strict=True))
        if sum(view.nbytes for view in tried) <= room:
            return chosen
    return None


def _carried_best_first(snapshot: Snapshot) -> list[int]:
    """Classes that a snapshot carries exactly, the predicted ones first; where it carries all, the likeliest."""
    kept = set(snapshot.meta["classes"]["kept"])
    best = [c for c in snapshot.predicted if c in kept]
    return best if snapshot.meta["payload"]["mode"] == "classes" else best[:MAX_RANKED]


def looked_at(snapshot: Snapshot, state: dict[str, Any]) -> list[int]:
    """Classes that a view shows, and its picture's label."""
    shown = [state.get("class_index"), state.get("compare_index"), snapshot.meta["image"]["label"]]
    return [class_index(snapshot.class_names, c) for c in shown if c is not None]
