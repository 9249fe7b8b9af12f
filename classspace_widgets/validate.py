"""Checks of what a file holds: values of its JSON, and shapes and ranges of its arrays.

Every check raises `ValueError` and says which value is wrong; readers turn it into their own error (`files.refusing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Array = np.ndarray[Any, np.dtype[Any]]


class Fields:
    """Reads values of nested JSON objects by dotted names (``"model.blocks"``), and says which one is wrong, and how."""

    def __init__(self, meta: Any) -> None:
        if not isinstance(meta, dict):
            raise ValueError("its meta data are not a JSON object")
        self.meta = meta

    def has(self, path: str) -> bool:
        """Whether a value is there."""
        *parents, last = path.split(".")
        value: Any = self.meta
        for key in parents:
            value = value.get(key) if isinstance(value, dict) else None
        return isinstance(value, dict) and last in value

    def value(self, path: str) -> Any:
        """Any value."""
        value: Any = self.meta
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                raise ValueError(f"it lacks {path}")
            value = value[key]
        return value

    def whole(self, path: str, low: int, high: int | None = None) -> int:
        """A whole number in ``low..high``."""
        return _whole(self.value(path), path, low, high)

    def wholes(self, path: str, low: int, high: int | None = None) -> list[int]:
        """A list of whole numbers in ``low..high``."""
        return [_whole(v, path, low, high) for v in self._list(path)]

    def text(self, path: str) -> str:
        """A text."""
        return _text(self.value(path), path)

    def texts(self, path: str) -> list[str]:
        """A list of texts."""
        return [_text(v, path) for v in self._list(path)]

    def flag(self, path: str) -> bool:
        """True or false."""
        value = self.value(path)
        if not isinstance(value, bool):
            raise ValueError(f"{path} must be true or false, got {_short(value)}")
        return value

    def number(self, path: str) -> float:
        """A number."""
        return _number(self.value(path), path)

    def numbers(self, path: str, count: int) -> list[float]:
        """A list of this many numbers."""
        found = [_number(value, path) for value in self._list(path)]
        if len(found) != count:
            raise ValueError(f"{path} must hold {count} numbers, got {len(found)}")
        return found

    def one_of(self, path: str, known: Sequence[str]) -> str:
        """One of some words."""
        value = self.value(path)
        if value not in known:
            raise ValueError(f"{path} must be one of {', '.join(known)}, got {_short(value)}")
        return str(value)

    def objects(self, path: str) -> list[Fields]:
        """A list of JSON objects."""
        found = self._list(path)
        if not all(isinstance(entry, dict) for entry in found):
            raise ValueError(f"{path} must hold JSON objects")
        return [Fields(entry) for entry in found]

    def named(self, path: str) -> dict[str, Any]:
        """A JSON object."""
        value = self.value(path)
        if not isinstance(value, dict):
            raise ValueError(f"{path} must be a JSON object, got {_short(value)}")
        return value

    def _list(self, path: str) -> list[Any]:
        value = self.value(path)
        if not isinstance(value, list):
            raise ValueError(f"{path} must be a list, got {_short(value)}")
        return value


def _whole(value: Any, path: str, low: int, high: int | None) -> int:
    if type(value) is not int or value < low or (high is not None and value > high):
        span = f"of at least {low}" if high is None else f"in {low}..{high}"
        raise ValueError(f"{path} must be a whole number {span}, got {_short(value)}")
    return value


def _number(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{path} must be a number, got {_short(value)}")
    return float(value)


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{path} must be text, got {_short(value)}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def skipped_pictures(found: Any) -> tuple[tuple[int, str], ...]:
    """Pairs of a picture's number and the reason why it was skipped."""
    pairs = isinstance(found, list) and all(
        isinstance(entry, list) and [type(part) for part in entry] == [int, str] and entry[0] >= 0 for entry in found
    )
    if not pairs:
        raise ValueError(f"skipped must hold pairs of a picture's number and the reason, got {_short(found)}")
    return tuple((number, why) for number, why in found)


def shaped(arrays: Mapping[str, Array], name: str, shape: Sequence[int | None], kinds: str) -> Array:
    """An array of a shape (None: any length) and of one of some kinds of numbers (``f`` floats, ``ui`` whole numbers)."""
    if name not in arrays:
        raise ValueError(f"it lacks {name}")
    array = arrays[name]
    fits = len(shape) == array.ndim and all(w is None or n == w for n, w in zip(array.shape, shape, strict=True))
    if not fits or array.dtype.kind not in kinds:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"array {name!r} must have shape [{wanted}], got {list(array.shape)} of {array.dtype}")
    return array


def below(array: Array, name: str, limit: int, *, missing: int | None = None) -> None:
    """Whole numbers of an array must be in ``0..limit-1``; but for ``missing``, which stands for none."""
    held = array if missing is None else array[array != missing]
    if held.size and (int(held.min()) < 0 or int(held.max()) >= limit):
        raise ValueError(f"array {name!r} must hold numbers in 0..{limit - 1}, got {held.min()}..{held.max()}")
