"""What a tour can point at, and what it can wait for: ``vocabulary.json``, and the state that views share.

The front end's tables are generated from the same file (``js/tour.mjs``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from classspace_widgets.state import STATE

OPERATORS = (">=", "<=", "!=", ">", "<", "=")
"""Comparisons of a condition; longer ones first, as they are looked for."""
_ORDERED = ("int", "percent")


@dataclass(frozen=True)
class Target:
    """A control that a step can point at.

    Attributes
    ----------
    selector : str
        Finds it in an explorer.
    help : str
    model : bool
        Whether it is only there with a model at hand: a kernel, or a page that carries it.
    """

    selector: str
    help: str
    model: bool = False


@dataclass(frozen=True)
class Fact:
    """Something that a condition can ask of the explorer.

    Attributes
    ----------
    kind : str
        ``"int"``, ``"percent"``, ``"class"``, ``"class or none"``, ``"ints"``, ``"head"``, ``"yes or no"``, ``"text"`` or ``"choice"``.
    help : str
    choices : tuple of str
        What a choice may be.
    model : bool
        Whether it can only come about with a model at hand.
    state : str
        Name of the value of the shared state, where it is one: a step can begin with it, too.
    """

    kind: str
    help: str
    choices: tuple[str, ...] = ()
    model: bool = False
    state: str = ""

    @property
    def operators(self) -> tuple[str, ...]:
        """How it can be compared."""
        return OPERATORS if self.kind in _ORDERED else ("=", "!=")


_KINDS = {
    "class_index": "class",
    "compare_index": "class or none",
    "head": "head",
}
_BY_STATE_KIND = {"bool": "yes or no"}


def _read() -> tuple[dict[str, Target], dict[str, Fact]]:
    listed = json.loads(Path(__file__).with_name("vocabulary.json").read_text(encoding="utf-8"))
    targets = {name: Target(**entry) for name, entry in listed["targets"].items()}
    facts = {
        entry.address: Fact(
            _KINDS.get(name, _BY_STATE_KIND.get(entry.kind, entry.kind)), entry.help, entry.choices, state=name
        )
        for name, entry in STATE.items()
        if entry.address and name not in ("open_tour", "tour_step")
    }
    for name, entry in listed["facts"].items():
        facts[name] = Fact(**{**entry, "choices": tuple(entry.get("choices", ()))})
    return targets, facts


TARGETS, FACTS = _read()
"""Controls, and what can be asked, by name."""
