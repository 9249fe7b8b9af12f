"""Studies read through fitted lenses: which lens is whose, and what a study keeps of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from classspace_widgets.lens import FittedLens
from classspace_widgets.models.fingerprint import model_fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from classspace_widgets.space.space import ClassSpace

    GivenLens = FittedLens | Callable[[ClassSpace], FittedLens] | None

_KINDS = {"class": "image", "context": "image", "pooled": "image"}
"""Kinds of tokens of those token groups that are not called like their kind."""


@dataclass(frozen=True)
class LensUsed:
    """What a study keeps of the lens that it is read through: words for its result, and where there is no reading.

    Attributes
    ----------
    kind, question : str
    pictures : int
        On which it was fitted.
    unread : frozenset of (stream, block, kind of tokens)
    """

    kind: str
    question: str
    pictures: int
    unread: frozenset[tuple[str, int, str]]

    @classmethod
    def of(cls, lens: FittedLens) -> LensUsed:
        """That of a lens."""
        unread = frozenset((p.stream, p.block, kind) for p in lens.points for kind in lens.undefined(p))
        return cls(lens.kind, lens.question, lens.n_pictures, unread)

    def reads(self, points: Iterable[tuple[str, int]], group: str) -> bool:
        """Whether it has a reading of a token group at all these points, each a stream and a block."""
        return not any((stream, block, _KINDS.get(group, group)) in self.unread for stream, block in points)

    @property
    def note(self) -> str:
        """What a reader of a result must know."""
        return (
            f"Read through a {self.kind} lens, fitted on {self.pictures} pictures, instead of the final norm and the class "
            f"embedding: {self.question}. Values are missing where it has no map."
        )


def lenses_of(spaces: dict[str, ClassSpace], lens: GivenLens) -> dict[str, FittedLens]:
    """The lens of each model by name, checked and on its device; empty for the logit lens."""
    if lens is None:
        return {}
    if isinstance(lens, FittedLens):
        if len(spaces) > 1:
            raise ValueError(
                f"a {lens.kind} lens belongs to the weights that it was fitted on, and random twins have others; give what fits one "
                f"for each: lens=lambda space: space.fit_lens({lens.kind!r}, pictures)"
            )
        found = dict.fromkeys(spaces, lens)
    elif callable(lens):
        found = {name: lens(space) for name, space in spaces.items()}
    else:
        found = dict.fromkeys(spaces, lens)
    for name, space in spaces.items():
        if not isinstance(found[name], FittedLens):
            raise TypeError(
                f"lens must be a fitted lens, or a function that gives one, got {type(found[name]).__name__}; "
                "space.fit_lens('jacobian', pictures) makes one"
            )
        found[name].require_complete("ranks")
        found[name].check(space.class_names, space.adapter.prefix, space.adapter.points, model_fingerprint(space.model))
    return {name: fitted.to(spaces[name].device) for name, fitted in found.items()}
