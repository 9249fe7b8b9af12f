"""Traits of the shared state, as ``state.json`` describes it."""

from __future__ import annotations

from typing import Any

import traitlets as t

from classspace_widgets.state import STATE


def state_trait(name: str) -> Any:
    """A synced trait for a value of the shared state."""
    entry = STATE[name]
    default, words = entry.default, {"help": entry.help}
    made = {
        "int": lambda: t.Int(default, **words),
        "int or null": lambda: t.Int(default, allow_none=True, **words),
        "ints": lambda: t.List(t.Int(), default, **words),
        "pair or null": lambda: t.List(t.Int(), default, allow_none=True, minlen=2, maxlen=2, **words),
        "share": lambda: t.Float(default, min=0.0, max=1.0, **words),
        "bool": lambda: t.Bool(default, **words),
        "text": lambda: t.Unicode(default, **words),
        "choice": lambda: t.Enum(entry.choices, default, **words),
    }
    return made[entry.kind]().tag(sync=True)
