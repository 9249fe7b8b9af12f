"""`export_html`, and the form in which an explorer is saved in a notebook."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classspace_widgets._version import __version__
from classspace_widgets.export import page
from classspace_widgets.export.portable import lighter, numbers, portable, reduced
from classspace_widgets.export.size import Foreseen, fitting, looked_at, snapshot_size, still_size
from classspace_widgets.files import write_whole
from classspace_widgets.progress import progress_bar
from classspace_widgets.snapshot.filmstrip import filmstrip, with_lines
from classspace_widgets.snapshot.snapshot import Snapshot
from classspace_widgets.snapshot.still import caption, with_readable_picture
from classspace_widgets.state import STATE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from classspace_widgets.progress import Bar
    from classspace_widgets.snapshot.meta import SnapshotMeta

__all__ = ["ExportedPage", "estimate_bytes", "export_html"]

log = logging.getLogger(__name__)

MAX_BYTES = 20_000_000
SAVED_LIMIT = 2_000_000
# What a saved notebook runs to show the working page, between the live view and the picture. Of the three, only the
# first that can be shown is: the view, the page, the picture; and the note that the view's model is gone is hidden.
_SAVED_SCRIPT = """
(() => {
  const { page, title, height } = PARTS;
  const output = ":is(.jp-OutputArea-child, .output_area)";
  const view = `${output}:has(.csw-view)`;
  const saved = `${output}:has(.csw-saved)`;
  const style = document.createElement("style");
  style.textContent =
    `${view} + ${saved}, ${view} + ${saved} + ${output}, ${output}:has(.csw-saved iframe) + ${output},` +
    `${output}:has(+ ${output} .csw-saved) .jupyter-widgets:not(:has(*)) { display: none; }`;
  const place = document.createElement("div");
  place.className = "csw-saved";
  place.append(style);
  if (page) {
    const frame = document.createElement("iframe");
    Object.assign(frame, { title, loading: "lazy", srcdoc: page });
    frame.sandbox = "allow-scripts";
    frame.style.cssText = `width:100%;height:${height}px;border:0`;
    place.append(frame);
  }
  (element[0] ?? element).append(place);  // the classic notebook's is jQuery's
})();
""".strip()


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


def export_html(
    items: Any,
    path: str | os.PathLike[str],
    *,
    title: str = "",
    text: str = "",
    classes: Sequence[int | str] | None = None,
    payload: str = "auto",
    streams: Sequence[str] | None = None,
    ranks_only: bool = False,
    pins: Mapping[str, Any] | None = None,
    theme: str = "auto",
    max_bytes: int = MAX_BYTES,
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
    classes : sequence of int or str, optional
        Carry only these classes (exact ranks, small files).  By default every class stays live, or, where that would be
        larger than ``max_bytes``, those that are looked at and the likeliest ones: the notes say which.
    payload : str
        ``"auto"``: every class, exactly where the model has few, in float16 where it has many; or a payload of
        `capture.capture`.
    streams : sequence of str, optional
        With ``classes``: carry ranks, top classes and probabilities of these streams only (``"attention"``, ``"mid"``,
        ``"mlp"``, ``"residual"``; parallel blocks: ``"block"``, ``"residual"``).
    ranks_only : bool
        With ``classes``: carry exact ranks and top classes only, which is smallest.
    pins : mapping of str to intervention, or several, optional
        What-if states to keep in the page, by the name that its panel shows: the pass is run now, for every explorer of
        the page (`interventions` lists what there is).  Those of an explorer (`Session.pins`) go with it in any case.
    theme : str
        ``"auto"``, ``"light"`` or ``"dark"``.
    max_bytes : int
        The size is known within a fifth before anything is computed.  A page that was asked for with ``classes`` or
        ``payload`` and would be larger is refused; the message says what would be smaller.
    progress : bool
        Show a progress bar after a second.

    Returns
    -------
    ExportedPage

    Raises
    ------
    ValueError
        If the page would be larger than ``max_bytes`` whatever it carries, or as it was asked for; if a class is not carried and no model is at hand, if a state is
        pinned and no model is at hand, for an unknown stream, or for ``streams`` or ``ranks_only`` without ``classes``.

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
    with progress_bar(100, "page", "%", show=progress) as bar:
        listed = items if isinstance(items, (list, tuple)) else [items]
        # A step for every snapshot that is read, for every pass that is run for a pin, and for packing each of them.
        views = [view for item in listed for view in _views(item)]
        passes = len(views) + sum(len({**_pins(view), **(pins or {})}) for view in views)
        step = 100 / max(2 * passes, 1)
        listed = [_each_view(item, _snapshot_once) for item in listed]
        fitted = _fitted(listed, classes, payload, pins or {}, streams, ranks_only, max_bytes)
        parts: list[Any] = [text] if text else []
        for item in listed:
            with bar.part(step * len(_views(item))):
                parts.append(_part(item, classes, payload, fitted))
        shared = _OncePerSession(lambda mount: _reduce(_pin(mount, pins or {}, bar, step), streams, ranks_only))
        parts = [_each(p, shared) for p in parts]
        mounts = [m for p in parts for m in (p if isinstance(p, list) else [p]) if isinstance(m, page.Mount)]
        snapshots = [m.snapshot for m in mounts]
        travelling = {id(s): s for m in mounts for s in (m.snapshot, *m.pinned)}
        estimate = estimate_bytes(list(travelling.values()))
        log.info("the page will be about %.1f MB", estimate / 1e6)
        if estimate > max_bytes:
            raise _too_large(estimate, max_bytes)
        notes = tuple(dict.fromkeys(note for s in snapshots for note in said(s)))
        if not title:
            title = page_title(snapshots)
        footer = f"Made with classspace-widgets {__version__}. This page makes no network request."
        with bar.part(100 - bar.done):
            text_out = page.render(parts, title=title, script=_runtime(), theme=theme, footer=footer)
        data = text_out.encode("utf-8", errors="replace")
    write_whole(path, data)
    return ExportedPage(Path(path), len(data), notes)


def _too_large(estimate: float, max_bytes: int) -> ValueError:
    return ValueError(
        f"the page would be about {estimate / 1e6:.1f} MB, more than max_bytes={max_bytes / 1e6:.1f} MB; "
        "pass classes=[...] to carry only some classes, with them streams=['residual'] or ranks_only=True to carry "
        "less of each, or a larger max_bytes"
    )


def _fitted(
    listed: Sequence[Any],
    classes: Sequence[int | str] | None,
    payload: str,
    pins: Mapping[str, Any],
    streams: Sequence[str] | None,
    ranks_only: bool,
    max_bytes: int,
) -> dict[int, tuple[list[int], int]]:
    """Classes that fit for every view whose page would be too large, by its identity; refuses what cannot fit."""
    views = [view for item in listed for view in _views(item) if not _is_figure(view)]
    if payload == "as it is" or not views:
        return {}
    seen: dict[int, Any] = {id(getattr(view, "session", view)): view for view in views}
    foreseen = []
    for view in seen.values():
        snapshot = _snapshot(view)
        copies = 1 + len({**_pins(view), **pins})
        wanted = numbers(snapshot, classes)
        foreseen.append(Foreseen.of(snapshot, wanted, payload, copies=copies, streams=streams, ranks_only=ranks_only))
    base = _page_size() + sum(still_size(_snapshot(view)) for view in views)
    total = base + sum(view.nbytes for view in foreseen)
    if total <= max_bytes:
        return {}
    shown = [looked_at(f.snapshot, _state(view)) for f, view in zip(foreseen, seen.values(), strict=True)]
    chosen = fitting(foreseen, shown, 0.95 * max_bytes - base) if any(f.shrinks for f in foreseen) else None
    if chosen is None:
        raise _too_large(total, max_bytes)
    found = {owner: (c, max_bytes) for owner, c in zip(seen, chosen, strict=True) if c is not None}
    return {id(view): found[owner] for view in views if (owner := id(getattr(view, "session", view))) in found}


def said(snapshot: Snapshot) -> list[str]:
    """What a view of the snapshot can and cannot show, and how exactly."""
    notes = [snapshot.meta["payload"]["note"]]
    exactness = snapshot.meta.get("exactness", {})
    if exactness.get("logits") == "approximate":
        notes.append(f"Approximate: {exactness['note']}.")
    return notes


class _OncePerSession:
    """A change of mounts whose work is done once for all views of a session."""

    def __init__(self, change: Callable[[page.Mount], page.Mount]) -> None:
        self.change = change
        self.made: dict[str, page.Mount] = {}

    def __call__(self, mount: page.Mount) -> page.Mount:
        if not mount.session:
            return self.change(mount)
        if mount.session not in self.made:
            self.made[mount.session] = self.change(mount)
        made = self.made[mount.session]
        return replace(made, view=mount.view, options=mount.options)


def _each(part: Any, change: Callable[[page.Mount], page.Mount]) -> Any:
    """A part of a page with every mount in it changed."""
    if isinstance(part, list):
        return [_each(entry, change) for entry in part]
    return change(part) if isinstance(part, page.Mount) else part


def _reduce(mount: page.Mount, streams: Sequence[str] | None, ranks_only: bool) -> page.Mount:
    """A mount whose snapshots carry less of every class."""
    made, *pinned = (reduced(s, streams=streams, ranks_only=ranks_only) for s in (mount.snapshot, *mount.pinned))
    state = dict(mount.state)
    if ranks_only and state.get("reading") not in (None, "rank", "top1", "attention", "map"):
        state["reading"] = "identifiability"
    return replace(mount, snapshot=made, pinned=tuple(pinned), state=state)


def _pin(part: page.Mount, pins: Mapping[str, Any], bar: Bar, step: float) -> page.Mount:
    """A mount with what-if states computed: its own, and those asked for."""
    pins = {**part.pins, **pins}
    if not pins:
        return part
    snapshot = part.snapshot
    if snapshot.source is None:
        raise ValueError("to pin what-if states the model must be at hand; this snapshot was loaded from a file")
    mode, kept = snapshot.meta["payload"]["mode"], snapshot.meta["classes"]["kept"]
    states = []
    for name, given in pins.items():
        with bar.part(step):
            made = snapshot.source.intervened(
                given, label=name, payload=mode, classes=kept if mode == "classes" else None
            )
            states.append(lighter(made))
    return replace(part, pinned=tuple(states))


def saved_form(view: Any, form: str) -> list[dict[str, str]]:
    """What shows a view where there is no kernel: the working page in a frame, and a picture through the depth.

    A trusted notebook, and a page converted from one, run the script that puts the page into a frame and hides the
    picture.  A notebook that is not trusted yet, and whatever takes scripts out, is left with the picture.  Neither is
    HTML: where that is cleaned, the source of what is not allowed in it is shown as text.

    Parameters
    ----------
    view : View or Session
    form : str
        ``"page"`` or ``"picture"``; a page of more than 2 MB becomes a picture.

    Returns
    -------
    list of dict
        The script's output and the picture's, by MIME type.
    """
    if form not in ("page", "picture"):
        raise ValueError(f"saved_form must be 'page', 'picture' or 'none', got {form!r}")
    mount = _mount(view, None, "as it is")
    class_index = mount.state.get("class_index", mount.snapshot.predicted[0])
    words, hint = caption(mount.snapshot, class_index), "A still picture: run the cell for the live view."
    parts: dict[str, Any] = {}
    if form == "page" and estimate_bytes([mount.snapshot]) <= SAVED_LIMIT:
        hint = "A still picture: run the cell, or trust this notebook, for the working view."
        parts = {
            "page": page.render([mount], title=page_title([mount.snapshot]), script=_runtime()),
            "title": mount.view,
            "height": 980 if mount.view == "Explorer" else 460,
        }
    # In a page converted from the notebook the script stands in one of the page: it must not hold "</script".
    script = _SAVED_SCRIPT.replace("PARTS", json.dumps(parts).replace("<", "\\u003c"))
    picture = _saved_picture(mount.snapshot, class_index, (words, hint))
    return [
        {"application/javascript": script, "text/plain": ""},
        {"image/png": picture, "text/plain": f"{words}\n{hint}"},
    ]


def _saved_picture(snapshot: Snapshot, class_index: int, lines: Sequence[str]) -> str:
    """The class through the depth of the model, in at most nine pictures over lines of text: a PNG in base64."""
    from PIL import Image

    depth = snapshot.n_blocks
    blocks = sorted({round(i * depth / min(depth, 8)) for i in range(min(depth, 8) + 1)}) if depth else [0]
    picture = with_lines(filmstrip(with_readable_picture(snapshot), class_index, blocks=blocks), lines)
    buffer = io.BytesIO()
    picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


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
    return round(_page_size() + sum(snapshot_size(s) + still_size(s) for s in snapshots))


def _page_size() -> int:
    """Bytes of a page without its views."""
    return len(_runtime()) + len(page.STYLE) + 1_500


def page_title(snapshots: Sequence[Snapshot]) -> str:
    """A title from what is shown."""
    if not snapshots:
        return "Class embedding space"
    first = snapshots[0]
    return f"{first.class_names[first.predicted[0]]} in {first.meta['model']['name']}"


def _part(item: Any, classes: Sequence[int | str] | None, payload: str, fitted: Mapping[int, Any]) -> Any:
    if isinstance(item, str):
        return item
    if isinstance(item, (list, tuple)):
        return [_mount(entry, classes, payload, fitted) for entry in item]
    if _is_figure(item):
        return page.bokeh_figure(item)
    return _mount(item, classes, payload, fitted)


def _is_figure(item: Any) -> bool:
    return type(item).__module__.split(".")[0] == "bokeh"


def _each_view(item: Any, change: Callable[[Any], Any]) -> Any:
    """An item of a page with every view in it changed."""
    if isinstance(item, (list, tuple)):
        return [_each_view(entry, change) for entry in item]
    return item if isinstance(item, str) or _is_figure(item) else change(item)


def _snapshot_once(view: Any) -> Any:
    """A trace as a snapshot, read once; anything else as it is."""
    return _snapshot(view) if callable(getattr(view, "snapshot", None)) else view


def _snapshot(view: Any) -> Snapshot:
    """What a view shows."""
    session = getattr(view, "session", view)
    found = view if isinstance(view, Snapshot) else getattr(session, "snapshot", None)
    found = found() if callable(found) else found
    if not isinstance(found, Snapshot):
        raise TypeError(
            f"expected an Explorer, a view, a Session, a Snapshot, a Trace, a Bokeh figure or text, got {type(view).__name__}"
        )
    return found


def _state(view: Any) -> dict[str, Any]:
    """The state of a view's session; empty for what has none."""
    session = getattr(view, "session", view)
    return {name: getattr(session, name) for name in STATE} if hasattr(session, "has_trait") else {}


def _views(item: Any) -> list[Any]:
    """What of an item is read into snapshots: text is not."""
    return list(item) if isinstance(item, (list, tuple)) else [] if isinstance(item, str) else [item]


def _pins(item: Any) -> Mapping[str, Any]:
    """States that were pinned in a view."""
    session = getattr(item, "session", item)
    return (getattr(session, "pins", None) or {}) if hasattr(session, "has_trait") else {}


def _mount(
    item: Any, classes: Sequence[int | str] | None, payload: str, fitted: Mapping[int, Any] | None = None
) -> page.Mount:
    some, room = (fitted or {}).get(id(item), (classes, 0))
    made = portable(_snapshot(item), some, payload)
    if room:
        made = _told(made, room)
    session, state = getattr(item, "session", item), _opening(made, _state(item))
    if not hasattr(session, "has_trait"):
        return page.Mount(made, state=state)
    links = [{**entry, "other": entry["other"].removeprefix("anywidget:")} for entry in session._links]
    name, options = session.model_id or f"closed {id(session)}", dict(getattr(item, "options", {}) or {})
    view = getattr(item, "view", "Explorer")
    return page.Mount(made, view, state, options, pins=_pins(item), session=name, links=links)


def _told(snapshot: Snapshot, room: int) -> Snapshot:
    """A snapshot whose note says that not every class fits, and which ones travel."""
    kept, names = snapshot.meta["classes"]["kept"], snapshot.class_names
    note = (
        f"{len(kept)} of {len(names)} classes travel with this page, for all of them would be larger than "
        f"max_bytes={room / 1e6:.1f} MB: {', '.join(names[c] for c in kept)}."
    )
    meta: SnapshotMeta = {**snapshot.meta, "payload": {**snapshot.meta["payload"], "note": note}}
    return Snapshot(meta, snapshot.arrays, source=snapshot.source)


def _opening(snapshot: Snapshot, state: dict[str, Any]) -> dict[str, Any]:
    """The state that a page opens in: of a class that it carries."""
    kept = snapshot.meta["classes"]["kept"]
    if snapshot.meta["payload"]["mode"] == "classes" and state.get("class_index", snapshot.predicted[0]) not in kept:
        return {**state, "class_index": kept[0]}
    return state


def _runtime() -> str:
    path = Path(__file__).resolve().parents[1] / "static" / "widget.js"
    if not path.is_file():
        raise FileNotFoundError(
            "the front end widget.js has not been built; in a checkout run: npm --prefix js ci && npm --prefix js run build"
        )
    return path.read_text(encoding="utf-8")
