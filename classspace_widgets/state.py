"""What the views of a session share: names, choices, defaults, and where each value travels.

The one list is ``state.json``.  `Session` makes its traits from it, exported pages carry what it names, and the front
end's types are generated from it (``js/state.mjs``); nothing here needs anywidget.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One value of the shared state.

    Attributes
    ----------
    name : str
        Of the trait in Python, and of the signal in the browser.
    kind : str
        ``"int"``, ``"int or null"``, ``"ints"``, ``"pair or null"``, ``"share"`` (a number in 0..1), ``"bool"``,
        ``"text"`` or ``"choice"``.
    default : Any
    help : str
    choices : tuple of str
        What a choice may be.
    address : str
        Its name in the address of an exported page; empty for looks, which are the reader's own.
    linked : bool
        Whether `link` links it unless told otherwise.
    linkable : bool
        Whether `link` can link it.
    """

    name: str
    kind: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    address: str = ""
    linked: bool = False
    linkable: bool = True


def _read() -> dict[str, Entry]:
    listed = json.loads(Path(__file__).with_name("state.json").read_text(encoding="utf-8"))
    return {
        name: Entry(name, **{**entry, "choices": tuple(entry.get("choices", ()))}) for name, entry in listed.items()
    }


STATE = _read()
"""What a person sets, in the views or from Python, by name."""

CHOICES = {name: entry.choices for name, entry in STATE.items() if entry.choices}
"""The choices of those that are one of several words."""
