"""What a snapshot and its views may ask of a live kernel.

`capture.live.LiveSource` answers; a snapshot from a file has no source.  An answer is a generator, so that a long
computation can tell how far it is and be cancelled between its steps: it yields `Progress` and returns an `Answer`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from classspace_widgets.snapshot.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from classspace_widgets.snapshot.container import Array
    from classspace_widgets.snapshot.meta import PayloadMode

    Steps = Generator["Progress", None, "Answer"]

__all__ = ["Answer", "Progress", "Source", "snapshot_of"]


@dataclass(frozen=True)
class Progress:
    """How far a request is: ``fraction`` in [0, 1], and what is being done, in a few words."""

    fraction: float
    text: str = ""


@dataclass(frozen=True)
class Answer:
    """What goes back to the browser, and what the session should show from now on.

    Attributes
    ----------
    result : dict
        JSON data.
    part : bytes, optional
        A container of arrays (of kind ``"part"``).
    snapshot : Snapshot, optional
        Another picture, to be shown instead of the one that is shown.
    intervened : Snapshot, optional
        The pass with interventions, to be shown beside it.
    other : Snapshot, optional
        A second picture, whose states interventions may take.
    """

    result: dict[str, Any] = field(default_factory=dict)
    part: bytes | None = None
    snapshot: Snapshot | None = None
    intervened: Snapshot | None = None
    other: Snapshot | None = None


class Source(Protocol):
    """A live kernel, as a snapshot knows it: the traced picture and the model behind it."""

    def answer(self, kind: str, params: dict[str, Any], buffers: Sequence[Any] = ()) -> Steps:
        """Answer a view's request; ``docs/snapshot_format.md`` lists the kinds."""
        ...

    def show(self, picture: Any, *, name: str = "") -> Snapshot:
        """Trace another picture with the same model and options, and answer about that one from now on."""
        ...

    def beside(self, picture: Any, *, name: str = "") -> Snapshot:
        """Trace another picture with the same model and options, for a source of its own."""
        ...

    def take_states_of(self, other: Source | None) -> None:
        """The second picture, whose states interventions may take; refused where they do not fit."""
        ...

    def recapture(self, snapshot: Snapshot, *, classes: Sequence[int] | None, payload: PayloadMode) -> Snapshot:
        """The same picture with another payload."""
        ...

    def increments(self) -> dict[str, Array]:
        """The arrays of payload ``increments``, from which the size of a page is foretold."""
        ...

    def model_name(self) -> str:
        """A name of the model that another model does not have: a hash of its weights."""
        ...

    def model(self) -> bytes:
        """The model as a container, for the engine of a page; refused where a page could not run it."""
        ...

    def embedding(self) -> Array:
        """The picture's embedding ``[T, D]``, from which a page's passes start."""
        ...

    def intervened(
        self, interventions: Any, *, label: str = "", payload: str | None = None, classes: Sequence[int] | None = None
    ) -> Snapshot:
        """The pass over the same picture with interventions."""
        ...


def snapshot_of(shown: object, **options: Any) -> Snapshot | None:
    """The snapshot of what has one: itself, what a view or a session shows, or a trace's, taken now as ``options`` say."""
    if isinstance(shown, Snapshot):
        return shown
    found = getattr(shown, "snapshot", None)
    found = found(**options) if callable(found) else found
    return found if isinstance(found, Snapshot) else None
