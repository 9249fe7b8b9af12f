"""Link two sessions - two pictures, two models - in the browser."""

from __future__ import annotations

import itertools
from typing import Any

from classspace_widgets.state import STATE
from classspace_widgets.widgets.session import Session

LINKABLE = tuple(name for name, entry in STATE.items() if entry.linkable)
DEFAULT = tuple(name for name, entry in STATE.items() if entry.linked)
_NUMBERS = itertools.count(1)


class Link:
    """Two sessions whose traits are kept equal, in the browser; made by `link`, undone by `close`."""

    def __init__(self, first: Session, second: Session, names: tuple[str, ...]) -> None:
        self.first, self.second, self.names = first, second, names
        self._entry = {"id": next(_NUMBERS), "other": f"anywidget:{second.model_id}", "names": list(names)}
        first._links = [*first._links, self._entry]
        first._linked = [*first._linked, second]

    def __repr__(self) -> str:
        return f"Link({', '.join(self.names)})"

    def close(self) -> None:
        """Undo the link."""
        entries = [(entry, other) for entry, other in zip(self.first._links, self.first._linked, strict=True)]
        kept = [pair for pair in entries if pair[0] != self._entry]
        self.first._links = [entry for entry, _ in kept]
        self.first._linked = [other for _, other in kept]


def link(first: Any, second: Any, *names: str) -> Link:
    """Link two sessions (or views), so that what is picked in one is picked in the other.

    The link lives in the browser (it also works where the kernel is gone), and the kernel hears of both.

    Parameters
    ----------
    first, second : Session or View
    *names : str
        Traits to link; by default class, block, sublayer, stream, reading and contribution.

    Returns
    -------
    Link
        ``close()`` it to undo the link.

    Raises
    ------
    TypeError
        For anything but sessions or views.
    ValueError
        For a trait that cannot be linked.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> from classspace_widgets.widgets import Explorer
    >>> trace, other = (ClassSpace.bundled(name).trace(gallery()[0].picture) for name in ("default", "contrast"))
    >>> link(Explorer(trace), Explorer(other), "class_index", "block")
    Link(class_index, block)
    """
    sessions = [getattr(item, "session", item) for item in (first, second)]
    for item in sessions:
        if not isinstance(item, Session):
            raise TypeError(f"expected two sessions or views, got {type(item).__name__}")
    unknown = set(names) - set(LINKABLE)
    if unknown:
        raise ValueError(f"cannot link {sorted(unknown)}; linkable: {', '.join(LINKABLE)}")
    return Link(sessions[0], sessions[1], names or DEFAULT)
