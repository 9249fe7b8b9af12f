"""`export_html`: from views to one HTML file."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classspace_widgets._version import __version__
from classspace_widgets.export import front_end
from classspace_widgets.export.items import OncePerSession, as_part, mounts_in
from classspace_widgets.export.live import NOTE, with_model
from classspace_widgets.export.page import page_title, render
from classspace_widgets.export.portable import Payload, numbers, portable, without_large_values
from classspace_widgets.export.size import (
    Forecast,
    choose_classes,
    estimate_bytes,
    looked_at,
    models_size,
    page_size,
    still_size,
    tours_size,
)
from classspace_widgets.export.tours import touring, with_tours
from classspace_widgets.files import write_whole
from classspace_widgets.progress import progress_bar
from classspace_widgets.snapshot.select import select_streams
from classspace_widgets.snapshot.snapshot import Snapshot
from classspace_widgets.tours import as_tours

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from classspace_widgets.export.items import Part
    from classspace_widgets.export.page import Mount
    from classspace_widgets.progress import Bar
    from classspace_widgets.snapshot.meta import SnapshotMeta

__all__ = ["ExportedPage", "export_html"]

log = logging.getLogger(__name__)

FILLED = 0.95
"""Share of the allowed size that classes are chosen to fill: sizes are forecast within a few per cent."""
OF_RANKS = ("rank", "top1", "decided", "norm", "received", "attention", "map")
"""What the patch map can show where ranks alone travel, beside identifiability."""


@dataclass(frozen=True)
class ExportedPage:
    """A page that was written: where, how large, and what it can show.

    Made by `export_html`.

    Attributes
    ----------
    path : Path
    nbytes : int
        Size of the file.
    notes : tuple of str
        What the page carries, and how exactly, in words.
    """

    path: Path
    nbytes: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.path}: {self.nbytes / 1e6:.2f} MB", *self.notes])


@dataclass(frozen=True)
class _Plan:
    """What every view is to carry, and how far the work is."""

    classes: Sequence[int | str] | None
    payload: Payload
    pins: Mapping[str, Any]
    bar: Bar
    step: float
    live: bool = False
    fitting: dict[str, list[int]] = field(default_factory=dict)
    """Classes of those views that cannot carry all of them, by `_owner`."""

    def read(self, mount: Mount) -> Mount:
        """A view with the classes that it is to carry, in a form that needs no kernel."""
        fitting = self.fitting.get(_owner(mount))
        made = portable(mount.snapshot, self.classes if fitting is None else fitting, self.payload.mode)
        if fitting is not None:
            made = _with_note(made, f"max_bytes={self.payload.max_bytes / 1e6:.1f} MB")
        return replace(mount, snapshot=made, state=_opening_state(made, mount.state))

    def finish(self, mount: Mount) -> Mount:
        """A view with its pinned passes, and of each as much as is to be carried; with its model, where that travels."""
        source = mount.snapshot.source
        made = _select(self._pin(mount), self.payload)
        return with_model(made, source) if self.live else made

    def _pin(self, mount: Mount) -> Mount:
        """A view with the passes of its own pins, and of those asked for."""
        pins = {**mount.pins, **self.pins}
        if not pins:
            return mount
        snapshot = mount.snapshot
        if snapshot.source is None:
            raise ValueError("to pin what-if states the model must be at hand; this snapshot was loaded from a file")
        mode, kept = snapshot.meta["payload"]["mode"], snapshot.meta["classes"]["kept"]
        classes = kept if mode == "classes" else None
        passes = []
        for name, given in pins.items():
            with self.bar.part(self.step):
                made = snapshot.source.intervened(given, label=name, payload=mode, classes=classes)
                passes.append(without_large_values(made))
        return replace(mount, pinned=tuple(passes))


def export_html(
    items: Any,
    path: str | os.PathLike[str],
    *,
    title: str = "",
    text: str = "",
    theme: str = "auto",
    classes: Sequence[int | str] | None = None,
    payload: str | Payload = "auto",
    pins: Mapping[str, Any] | None = None,
    live: bool = False,
    tour: Any = None,
    progress: bool = True,
) -> ExportedPage:
    """Write one self-contained HTML file.

    Parameters
    ----------
    items : Explorer, view, Session, Snapshot, Trace, Bokeh figure, str, or a list of them
        What the page shows, in reading order: text is Markdown, a nested list is a gallery.
    path : path
        The file to write; written whole or not at all.
    title : str
        The page's title; by default the first picture's model and class.
    text : str
        Markdown above the first item.  A link to ``#class=fish&block=5&tokens=66`` sets the first view's state, one to
        ``#1.block=5`` the second's; the page's address tells the state in the same words.
    theme : str
        ``"auto"``, ``"light"`` or ``"dark"``.
    classes : sequence of int or str, optional
        Carry only these classes (exact ranks, small files).  By default every class stays live, or, where that would be
        larger than 20 MB, those that are looked at and the likeliest ones: the notes say which.
    payload : str or Payload
        How much of each picture travels: ``"auto"`` is every class, exactly where the model has few, in float16 where it
        has many.  A `Payload` says more: the streams, only ranks, the largest size.
    pins : mapping of str to intervention, or several, optional
        What-if states to keep in the page, by the name that its panel shows: the pass is run now, for every explorer of
        the page (`interventions` lists what there is).  Those of an explorer (`Session.pins`) go with it in any case.
    live : bool
        Carry the model too, in float16, and what runs it: the page then takes new pictures and interventions itself, without a
        kernel or a network. For plain timm vision transformers (the bundled models are some); their weights make the page
        larger, by 4 MB for the default model.
    tour : str, path, Tour, or a list of them, optional
        Guided tours that the first explorer offers: names of those of the package (`tours.BUNDLED`), or Markdown files
        (see `tours.read_tour`).
    progress : bool
        Show a progress bar after a second.

    Returns
    -------
    ExportedPage

    Raises
    ------
    ValueError
        If the page would be larger than allowed whatever it carries, or as it was asked for; if a class is not carried,
        a state is pinned, or the page is to be live, and no model is at hand; for an unknown stream, or for some streams or only ranks without
        ``classes``; for a tour that asks for what the page does not have, with its line.
    UnsupportedModelError
        With ``live``, for a model that cannot run in a page; with the reason.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled().trace(gallery()[0].picture)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = export_html(["# A fish", trace], Path(folder) / "fish.html")
    >>> page.notes
    ('All 24 classes travel with this view: every class, block and token is live without a kernel.',)
    """
    listed = items if isinstance(items, (list, tuple)) else [items]
    payload = payload if isinstance(payload, Payload) else Payload(payload)
    pins, tours = pins or {}, as_tours(tour)
    with progress_bar(100, "page", "%", show=progress) as bar:
        parts = with_tours([as_part(item) for item in listed], tours)
        views = [mount for part in parts for mount in mounts_in(part)]
        # A step for every snapshot that is read, for every pass that is run for a pin, and for packing each of them.
        passes = len(views) + sum(len({**mount.pins, **pins}) for mount in views)
        step = 100 / max(2 * passes, 1)
        plan = _Plan(classes, payload, pins, bar, step, live, _fitting(views, classes, payload, pins))
        parts, left_out = touring(_carried_out(plan, parts), tours)
        mounts = [mount for part in parts for mount in mounts_in(part)]
        snapshots = [mount.snapshot for mount in mounts]
        travelling = {id(s): s for mount in mounts for s in (mount.snapshot, *mount.pinned)}
        models = {mount.model for mount in mounts if mount.model}
        estimate = estimate_bytes(list(travelling.values())) + models_size(models) + tours_size(mounts)
        log.info("the page will be about %.1f MB", estimate / 1e6)
        if estimate > payload.max_bytes:
            raise _too_large(estimate, payload.max_bytes)
        notes = tuple(dict.fromkeys(note for snapshot in snapshots for note in _notes(snapshot)))
        notes += (*((NOTE,) if models else ()), *left_out)
        footer = f"Made with classspace-widgets {__version__}. This page makes no network request."
        with bar.part(100 - bar.done):
            page = render(
                [text, *parts] if text else parts,
                title=title or page_title(snapshots),
                script=front_end.runtime(),
                later=front_end.later_in_page(mounts),
                engine=front_end.engine() if models else "",
                theme=theme,
                footer=footer,
            )
        data = page.encode("utf-8", errors="replace")
    write_whole(path, data)
    return ExportedPage(Path(path), len(data), notes)


def _carried_out(plan: _Plan, parts: Sequence[Part]) -> list[Part]:
    """The parts of a page with their views as planned; the views of a session are made once."""
    read, finish = OncePerSession(plan.read), OncePerSession(plan.finish)
    made = []
    for part in parts:
        with plan.bar.part(plan.step * len(mounts_in(part))):
            made.append(read(part))
    return [finish(part) for part in made]


def _too_large(estimate: float, max_bytes: int) -> ValueError:
    return ValueError(
        f"the page would be about {estimate / 1e6:.1f} MB, more than max_bytes={max_bytes / 1e6:.1f} MB; "
        "pass classes=[...] to carry only some classes, with them payload=Payload(streams=['residual']) or "
        "Payload(ranks_only=True) to carry less of each, or a larger Payload(max_bytes=...)"
    )


def _owner(mount: Mount) -> str:
    """Whose snapshot a view shows: several views of a session show one."""
    return mount.session or f"snapshot {id(mount.snapshot)}"


def _fitting(
    views: Sequence[Mount], classes: Sequence[int | str] | None, payload: Payload, pins: Mapping[str, Any]
) -> dict[str, list[int]]:
    """Where a page of every class would be too large: the classes that fit, by `_owner`; refuses what cannot fit."""
    if not views:
        return {}
    first = {_owner(mount): mount for mount in reversed(views)}
    owners = {owner: first[owner] for owner in dict.fromkeys(map(_owner, views))}
    forecasts = [
        Forecast.of(mount.snapshot, numbers(mount.snapshot, classes), payload, copies=1 + len({**mount.pins, **pins}))
        for mount in owners.values()
    ]
    pinned = bool(pins) or any(mount.pins or mount.pinned for mount in views)
    base = page_size(pinned=pinned) + sum(still_size(mount.snapshot) for mount in views)
    total = base + sum(view.nbytes for view in forecasts)
    if total <= payload.max_bytes:
        return {}
    shown = [looked_at(mount.snapshot, mount.state) for mount in owners.values()]
    room = FILLED * payload.max_bytes - base
    chosen = choose_classes(forecasts, shown, room) if any(view.shrinks for view in forecasts) else None
    if chosen is None:
        raise _too_large(total, payload.max_bytes)
    return {owner: some for owner, some in zip(owners, chosen, strict=True) if some is not None}


def _notes(snapshot: Snapshot) -> list[str]:
    """What a view of the snapshot can and cannot show, and how exactly."""
    notes = [snapshot.meta["payload"]["note"]]
    exactness = snapshot.meta["exactness"]
    if exactness["logits"] == "approximate":
        notes.append(f"Approximate: {exactness['note']}.")
    return notes


def _select(mount: Mount, payload: Payload) -> Mount:
    """A view whose snapshots carry as much of every class as is asked for."""
    made, *pinned = (
        select_streams(snapshot, payload.streams, ranks_only=payload.ranks_only)
        for snapshot in (mount.snapshot, *mount.pinned)
    )
    state = dict(mount.state)
    if payload.ranks_only and state.get("reading", "rank") not in OF_RANKS:
        state["reading"] = "identifiability"
    return replace(mount, snapshot=made, pinned=tuple(pinned), state=state)


def fitted(mount: Mount, max_bytes: int, limit: str) -> Mount | None:
    """A view with as many classes as a page of this size holds; None where it cannot hold even one.

    Parameters
    ----------
    mount : Mount
    max_bytes : int
    limit : str
        The size in words: of a view that carries fewer classes, the note says that all would be larger than this.
    """
    try:
        classes = _fitting([mount], None, Payload(max_bytes=max_bytes), {}).get(_owner(mount))
    except ValueError:
        return None
    if classes is None:
        return mount
    made = _with_note(portable(mount.snapshot, classes, "auto"), limit)
    return replace(mount, snapshot=made, state=_opening_state(made, mount.state))


def _with_note(snapshot: Snapshot, limit: str) -> Snapshot:
    """A snapshot whose note says that not every class fits, and which ones travel."""
    kept, names = snapshot.meta["classes"]["kept"], snapshot.class_names
    note = (
        f"{len(kept)} of {len(names)} classes travel with this page, for all of them would be larger than "
        f"{limit}: {', '.join(names[c] for c in kept)}."
    )
    meta: SnapshotMeta = {**snapshot.meta, "payload": {**snapshot.meta["payload"], "note": note}}
    return Snapshot(meta, snapshot.arrays, source=snapshot.source)


def _opening_state(snapshot: Snapshot, state: dict[str, Any]) -> dict[str, Any]:
    """The state that a page opens in: of a class that it carries."""
    kept = snapshot.meta["classes"]["kept"]
    if snapshot.meta["payload"]["mode"] == "classes" and state.get("class_index", snapshot.predicted[0]) not in kept:
        return {**state, "class_index": kept[0]}
    return state
