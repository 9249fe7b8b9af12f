"""The second picture of a session: a session of its own, whose states can be dragged onto the first one's tokens.

The browser finds it as it finds linked sessions: an entry of the first session's ``_links``, marked ``states``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from classspace_widgets.snapshot.source import snapshot_of
from classspace_widgets.state import STATE
from classspace_widgets.widgets._links import Link

if TYPE_CHECKING:
    from classspace_widgets.widgets.session import Session

OWN = ("tokens", "shown", "side_by_side", "source_block", "target_block")
NAMES = tuple(name for name, entry in STATE.items() if entry.linkable and name not in OWN)
"""What a second picture follows, so that both maps can be compared: all but what belongs to one picture."""


class Other:
    """The second picture of a session, if it has one.

    Parameters
    ----------
    first : Session
    kind : type
        `Session`: every session has a class of its own, made of that one.
    """

    def __init__(self, first: Session, kind: type[Session]) -> None:
        self._first, self._kind = first, kind
        self._link: Link | None = None
        self._owned = False
        self.session: Session | None = None

    def set(self, data: Any, **captured: Any) -> None:
        """Show another second picture, or none; raises where its states do not fit, and changes nothing then."""
        source = self._first.snapshot.source
        if data is None:
            self.close()
            if source is not None:
                source.take_states_of(None)
            return
        if source is None:
            raise RuntimeError(
                "a second picture needs the model, and this session's snapshot came from a file; give the session a trace"
            )
        data = getattr(data, "session", data)
        given = data if isinstance(data, self._kind) else None
        if given is self._first:
            raise ValueError("the second picture must be another session; to drag within a picture none is needed")
        snapshot = given.snapshot if given else snapshot_of(data, **captured) or source.beside(data)
        if snapshot.source is None:
            raise ValueError(
                "a second picture needs its states, and a snapshot from a file has only readings; give other=space.trace(...)"
            )
        source.take_states_of(snapshot.source)
        self.close()
        self.session, self._owned = given or self._kind(snapshot), given is None
        # A session that others show as well keeps its own state.
        self._link = Link(self._first, self.session, NAMES if self._owned else (), states=True)
        self.session.observe(self._another, "_snapshot")

    def refit(self) -> None:
        """The first picture is another one: the second is kept where its states fit that one's model."""
        if self.session is None:
            return
        source, other = self._first.snapshot.source, self.session.snapshot.source
        try:
            if source is None or other is None:
                raise ValueError("no model")
            source.take_states_of(other)
        except ValueError:
            self.close()

    def close(self) -> None:
        """Forget the second picture."""
        session, self.session = self.session, None
        if session is None:
            return
        session.unobserve(self._another, "_snapshot")
        if self._link is not None:
            self._link.close()
        if self._owned:
            session.close()
        self._first._forget_states_of_other()

    def _another(self, _change: Any) -> None:
        """The second session shows another picture."""
        self.refit()
        self._first._forget_states_of_other()
