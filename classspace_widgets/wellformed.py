"""Whether meta data and arrays of a container fit one another, so that whoever reads a file can rely on them.

Every check raises `ValueError` in words; readers turn it into their own error (`files.refusing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    Array = np.ndarray[Any, np.dtype[Any]]

NOBODY = 0xFFFFFFFF
"""Stands in a memory atlas where a class has fewer neurons than others."""


class Fields:
    """Reads values out of nested JSON objects by dotted names, and says which one is not what it must be."""

    def __init__(self, meta: Any) -> None:
        if not isinstance(meta, dict):
            raise ValueError("its meta data are no JSON object")
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
        value = self.value(path)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{path} must be a number, got {_short(value)}")
        return float(value)

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


def shaped(arrays: dict[str, Array], name: str, shape: Sequence[int | None], kinds: str) -> Array:
    """An array of a shape (None: any length) and of one of some kinds of numbers (``f`` floats, ``ui`` whole numbers)."""
    if name not in arrays:
        raise ValueError(f"it lacks {name}")
    array = arrays[name]
    fits = len(shape) == array.ndim and all(w is None or n == w for n, w in zip(array.shape, shape, strict=True))
    if not fits or array.dtype.kind not in kinds:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"array {name!r} must have shape [{wanted}], got {list(array.shape)} of {array.dtype}")
    return array


def below(array: Array, name: str, limit: int, *, nobody: int | None = None) -> None:
    """Whole numbers of an array must be in ``0..limit-1``; ``nobody`` stands for none."""
    held = array if nobody is None else array[array != nobody]
    if held.size and (int(held.min()) < 0 or int(held.max()) >= limit):
        raise ValueError(f"array {name!r} must hold numbers in 0..{limit - 1}, got {held.min()}..{held.max()}")


def check_snapshot(meta: Any, arrays: dict[str, Array]) -> None:
    """Whether a container is a whole snapshot: see ``docs/snapshot_format.md`` for what it checks."""
    said = Fields(meta)
    blocks, heads = said.whole("model.blocks", 0), said.whole("model.heads", 0)
    parallel = said.one_of("model.layout", ("sequential", "parallel")) == "parallel"
    said.text("model.name")
    tokens = said.whole("tokens.count", 1)
    shown = tokens + said.flag("tokens.pooled")
    n, s = 1 + blocks * (1 if parallel else 2), 1 + blocks * (2 if parallel else 4)
    grid, prefix = said.wholes("tokens.grid", 1), said.texts("tokens.prefix")
    if len(grid) != 2 or len(prefix) + grid[0] * grid[1] != tokens:
        raise ValueError(f"{len(prefix)} prefix tokens and a grid of {grid} are not {tokens} tokens")
    said.whole("tokens.output", 0, shown - 1)
    if said.has("tokens.removed"):
        said.wholes("tokens.removed", 0, tokens - 1)
    count = said.whole("classes.count", 1)
    kept = said.wholes("classes.kept", 0, count - 1)
    if len(said.texts("classes.names")) != count or not kept or len(set(kept)) != len(kept):
        raise ValueError(f"classes.names must name {count} classes, and classes.kept hold some of them, each once")
    mode = said.one_of("payload.mode", ("all", "classes", "increments"))
    said.text("payload.note")
    ranks_only = said.has("payload.ranks_only") and said.flag("payload.ranks_only")
    points = said.wholes("payload.points", 0, s - 1) if said.has("payload.points") else range(s)
    _check_rest(said, s)
    k, p = len(kept), len(points)
    if mode == "all" and k != count:
        raise ValueError(f"payload.mode is 'all', and {k} of {count} classes are kept")
    shaped(arrays, "sigma", (s, shown), "f")
    for name in ("offset", "output_logits"):
        shaped(arrays, name, (count,), "f")
    if not ranks_only:
        shaped(arrays, "raw", (k, n, shown), "f")
    if mode != "all":
        below(shaped(arrays, "ranks", (k, p, shown), "u"), "ranks", count)
        top = shaped(arrays, "top", (p, shown, None), "u")
        below(top, "top", count)
        shaped(arrays, "top_logits", top.shape, "f")
    if mode != "all" and not ranks_only:
        shaped(arrays, "lse", (p, shown), "f")
    if mode == "increments":
        width = shaped(arrays, "increments", (n, shown, None), "f").shape[2]
        shaped(arrays, "increment_scale", (n,), "f")
        shaped(arrays, "embedding", (count, width), "f")
        said.number("embedding_scale")
    rows = len(said.wholes("attention.rows", 0, shown - 1)) if "attention" in arrays else None
    optional: dict[str, tuple[tuple[int | None, ...], str]] = {
        "attention": ((blocks, heads, rows, tokens), "u"),
        "head_raw": ((k, blocks, heads, rows), "f"),
        "value_raw": ((k, blocks, heads, tokens), "f"),
        "attention_bias_raw": ((k, blocks), "f"),
        "image": ((None,), "u"),
        "mask": ((said.whole("image.height", 0), said.whole("image.width", 0)), "u"),
        "maps": ((len(said.objects("maps")) if "maps" in arrays else 0, shown), "f"),
    }
    for name, (shape, kinds) in optional.items():
        if name in arrays:
            shaped(arrays, name, shape, kinds)
    if "mask" in arrays:
        below(arrays["mask"], "mask", 1 + len(said.objects("objects")))


def _check_rest(said: Fields, points: int) -> None:
    """Values that no array depends on."""
    for path in ("image.name", "image.mime"):
        said.text(path)
    if said.value("image.label") is not None:
        said.whole("image.label", 0, said.value("classes.count") - 1)
    for thing in said.objects("objects"):
        thing.text("name")
    if said.has("maps"):
        for thing in said.objects("maps"):
            thing.text("name")
            thing.text("label")
    said.texts("caveats")
    said.wholes("unreachable", 0, points - 1)
    if said.value("intervention") is not None:
        said.text("intervention.label")
    said.value("exactness.logits")
    said.text("exactness.note")


def check_atlas(meta: Any, arrays: dict[str, Array]) -> None:
    """Whether a container is a whole memory atlas."""
    said = Fields(meta)
    said.text("model.name")
    widths, grid = said.wholes("widths", 0), said.wholes("grid", 1)
    if len(widths) != 2 or len(grid) != 2:
        raise ValueError(f"widths and grid must be two numbers each, got {widths} and {grid}")
    n = said.whole("model.blocks", 0) * sum(widths)
    classes, pictures = len(said.texts("classes.names")), said.whole("pictures.count", 0)
    labels = said.wholes("pictures.labels", -1)
    if len(labels) not in (0, pictures):
        raise ValueError(f"{len(labels)} labels cannot belong to {pictures} pictures")
    top = shaped(arrays, "top", (n, None), "u")
    below(top, "top", classes)
    shaped(arrays, "top_cosine", top.shape, "f")
    values = shaped(arrays, "values", (classes, 2, None), "u")
    below(values, "values", n, nobody=NOBODY)
    shaped(arrays, "values_cosine", values.shape, "f")
    if pictures:
        patch = shaped(arrays, "patch", (n, None), "u")
        below(patch, "patch", pictures * grid[0] * grid[1])
        shaped(arrays, "coefficient", patch.shape, "f")
        ends = shaped(arrays, "picture_ends", (pictures,), "u").astype(np.int64)
        size = len(shaped(arrays, "picture_bytes", (None,), "u"))
        if (np.diff(ends, prepend=0) < 0).any() or ends[-1] != size:
            raise ValueError(f"the ends of its {pictures} pictures do not divide {size} bytes")
