"""Pages that carry their model: its weights and the engine that runs it travel beside the snapshots."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from classspace_widgets.snapshot.snapshot import Snapshot

if TYPE_CHECKING:
    from classspace_widgets.export.page import Mount
    from classspace_widgets.snapshot.meta import SnapshotMeta
    from classspace_widgets.snapshot.source import Source

NOTE = "The model runs in this page: new pictures and interventions need no kernel and no network. Its weights are in float16."


def with_model(mount: Mount, source: Source | None) -> Mount:
    """A view that carries its model, and the embedding from which the passes of its picture start.

    Parameters
    ----------
    mount : Mount
    source : Source or None
        The live kernel behind the view's snapshot.

    Returns
    -------
    Mount

    Raises
    ------
    ValueError
        Where no model is at hand.
    UnsupportedModelError
        Where the engine does not know the model, with the reason.
    """
    source = needed(source)
    made = _at_output(mount.snapshot)
    arrays = {name: array for name, array in made.arrays.items() if name != "photo"}
    # The engine takes a new picture whole; it cuts no other part out of the photograph.
    image = {name: value for name, value in made.meta["image"].items() if name != "photo"}
    # What the kernel offered beyond the engine's answers is not offered in the page.
    meta = cast("SnapshotMeta", {**made.meta, "image": image, "offers": []})
    snapshot = with_start(Snapshot(meta, arrays, source=source), source)
    return replace(mount, snapshot=snapshot, model=source.model())


def needed(source: Source | None) -> Source:
    """The live kernel behind a snapshot; a `ValueError` where there is none."""
    if source is None:
        raise ValueError(
            "live=True needs the model at hand, but this snapshot was loaded from a file; give an Explorer or a Trace"
        )
    return source


def with_start(snapshot: Snapshot, source: Source) -> Snapshot:
    """A snapshot with the embedding from which a page's passes start."""
    return Snapshot(snapshot.meta, {**snapshot.arrays, "start": source.embedding()}, source=snapshot.source)


def _at_output(snapshot: Snapshot) -> Snapshot:
    """A snapshot with attention at the output token alone: the rest weighs most, and the model in the page computes it."""
    rows, output = snapshot.meta.get("attention", {"rows": []})["rows"], snapshot.meta["tokens"]["output"]
    if output not in rows:
        return snapshot
    place = rows.index(output)
    arrays = {name: array for name, array in snapshot.arrays.items() if name != "value_raw"}
    arrays["attention"] = arrays["attention"][:, :, place : place + 1]
    if "head_raw" in arrays:
        arrays["head_raw"] = arrays["head_raw"][..., place : place + 1]
    meta: SnapshotMeta = {**snapshot.meta, "attention": {"rows": [output], "encoding": "sqrt-u8"}}
    return Snapshot(meta, arrays, source=snapshot.source)
