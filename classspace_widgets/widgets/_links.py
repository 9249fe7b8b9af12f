"""A link between two sessions, as the browser follows it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classspace_widgets.widgets.session import Session

_NUMBERS = itertools.count(1)


class Link:
    """Two sessions whose traits are kept equal, in the browser; made by `link`, undone by `close`.

    With ``states`` the second is also the second picture of the first: its states can be dragged onto the first's tokens.
    """

    def __init__(self, first: Session, second: Session, names: tuple[str, ...], *, states: bool = False) -> None:
        self.first, self.second, self.names = first, second, names
        self._entry: dict[str, Any] = {
            "id": next(_NUMBERS),
            "other": f"anywidget:{second.model_id}",
            "names": list(names),
        }
        if states:
            self._entry["states"] = True
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
