"""Link two sessions - two pictures, two models - in the browser."""

from __future__ import annotations

from typing import Any

from classspace_widgets.state import STATE
from classspace_widgets.widgets._links import Link
from classspace_widgets.widgets.session import Session

LINKABLE = tuple(name for name, entry in STATE.items() if entry.linkable)
DEFAULT = tuple(name for name, entry in STATE.items() if entry.linked)


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
