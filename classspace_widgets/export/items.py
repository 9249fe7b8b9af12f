"""What may stand in a page - text, a figure, a view, a gallery of views - and what each is to the page."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from classspace_widgets.export.page import Figure, Mount, bokeh_figure
from classspace_widgets.snapshot.source import snapshot_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Part = str | Figure | Mount | list[Mount]


@runtime_checkable
class Mountable(Protocol):
    """A session or one of its views: it tells what of it a page shows."""

    def _as_mount(self) -> Mount: ...


def as_part(item: Any) -> Part:
    """An item of a page as what stands in it; a list is a gallery of views."""
    if isinstance(item, str):
        return item
    if isinstance(item, (list, tuple)):
        return [as_mount(entry) for entry in item]
    if type(item).__module__.split(".")[0] == "bokeh":
        return bokeh_figure(item)
    return as_mount(item)


def as_mount(item: Any) -> Mount:
    """A view, a session, a snapshot or a trace, as it is to be shown; a trace is read once, here."""
    if isinstance(item, Mountable):
        return item._as_mount()
    snapshot = snapshot_of(item)
    if snapshot is None:
        raise TypeError(
            f"expected an Explorer, a view, a Session, a Snapshot, a Trace, a Bokeh figure or text, got {type(item).__name__}"
        )
    return Mount(snapshot)


def mounts_in(part: Part) -> list[Mount]:
    """The views of a part."""
    return part if isinstance(part, list) else [part] if isinstance(part, Mount) else []


class OncePerSession:
    """A change of views whose work is done once for all views of a session."""

    def __init__(self, change: Callable[[Mount], Mount]) -> None:
        self._change = change
        self._changed: dict[str, Mount] = {}

    def __call__(self, part: Part) -> Part:
        """The part with every view in it changed."""
        if isinstance(part, list):
            return [self._one(mount) for mount in part]
        return self._one(part) if isinstance(part, Mount) else part

    def _one(self, mount: Mount) -> Mount:
        if not mount.session:
            return self._change(mount)
        if mount.session not in self._changed:
            self._changed[mount.session] = self._change(mount)
        return replace(self._changed[mount.session], view=mount.view, options=mount.options, tours=mount.tours)
