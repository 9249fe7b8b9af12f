"""Find a thing by its name, and say what is close when there is none."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Sequence
from typing import Any


def close_matches(name: str, names: Sequence[str]) -> str:
    """``"; close matches: a, b"``, or nothing when nothing is close."""
    folded = {known.lower(): known for known in reversed(names)}
    found = difflib.get_close_matches(name.lower(), list(folded), n=3, cutoff=0.5)
    found += [key for key in folded if name.lower() in key and key not in found][: 3 - len(found)]
    return f"; close matches: {', '.join(folded[key] for key in found)}" if found else ""


def items_of(value: Any) -> tuple[list[Any], bool]:
    """The items of a sequence, array or tensor, or the single item itself; and whether there was only that.

    Examples
    --------
    >>> items_of("fish"), items_of(range(2))
    ((['fish'], True), ([0, 1], False))
    """
    if hasattr(value, "tolist"):
        value = value.reshape(-1).tolist() if getattr(value, "ndim", 0) else value.tolist()
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value], True
    return list(value), False


def whole_number(value: Any, what: str, low: int, high: int) -> int:
    """A whole number in ``low..high``; anything else raises, True and False too.

    Examples
    --------
    >>> whole_number(1.5, "block", 1, 12)
    Traceback (most recent call last):
    TypeError: block must be a whole number in 1..12, got 1.5
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    number = _integer(value)
    if number is None:
        raise TypeError(f"{what} must be a whole number in {low}..{high}, got {value!r}")
    if not low <= number <= high:
        raise ValueError(f"{what} must be in {low}..{high}, got {number}")
    return number


def at_least(value: Any, what: str, low: int) -> int:
    """A whole number of at least ``low``; anything else raises."""
    number = _integer(value)
    if number is None:
        raise TypeError(f"{what} must be a whole number of at least {low}, got {value!r}")
    if number < low:
        raise ValueError(f"{what} must be at least {low}, got {number}")
    return number


def class_index(names: Sequence[str], wanted: Any) -> int:
    """Index of a class given by index or by name.

    Parameters
    ----------
    names : sequence of str
        Names of all C classes.
    wanted : int or str

    Raises
    ------
    ValueError
        For an unknown name (with close matches) or an index outside 0..C-1.
    TypeError
        For anything else.

    Examples
    --------
    >>> class_index(["fish", "boat"], "boat")
    1
    >>> class_index(["fish", "boat"], "bot")
    Traceback (most recent call last):
    ValueError: no class is called 'bot'; close matches: boat
    """
    if isinstance(wanted, str):
        if wanted in names:
            return list(names).index(wanted)
        raise ValueError(f"no class is called {wanted!r}{close_matches(wanted, names)}")
    index = _integer(wanted)
    if index is None:
        raise TypeError(f"a class must be an index or a name, got {type(wanted).__name__}")
    if not 0 <= index < len(names):
        raise ValueError(f"class must be in 0..{len(names) - 1}, got {index}")
    return index


def _integer(value: Any) -> int | None:
    """A whole number as Python's own; None for anything else, True and False too."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None
