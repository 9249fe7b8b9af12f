"""How objects introduce themselves: one line of text, and a small table in a notebook."""

from __future__ import annotations

import html
import inspect
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


FEW = 5
"""Classes, places or vectors that other tables show."""


def short_repr(thing: Any) -> str:
    """A dataclass in one line: tensors by dtype and shape, long parts by their length."""
    parts = ", ".join(f"{f.name}={short(getattr(thing, f.name))}" for f in fields(thing) if f.repr)
    return f"{type(thing).__name__}({parts})"


def short(value: Any) -> str:
    """A value in a few words: tensors by dtype and shape, what is long by its length."""
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')} [{', '.join(str(n) for n in shape)}]"
    if shape is not None and hasattr(value, "columns"):
        return f"table of {shape[0]} rows"
    if hasattr(value, "named_parameters"):
        return type(value).__name__
    if isinstance(value, dict) and value:
        inner = ", ".join(f"{k}: {short(v)}" for k, v in value.items())
        return f"{{{inner}}}" if len(inner) <= 120 else f"{{{len(value)} entries}}"
    if isinstance(value, tuple) and value and all(isinstance(row, tuple) and len(row) > 2 for row in value):
        return f"{type(value[0][0]).__name__} [{len(value)}, {len(value[0])}]"
    if isinstance(value, (list, tuple)) and value:
        inner = ", ".join(short(v) for v in value) + "," * (len(value) == 1)
        return f"({inner})" if len(inner) <= 60 else f"({short(value[0])}, ... {len(value)} in all)"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def options_text(thing: Any) -> str:
    """An object by its options, as far as they differ from what they are by default."""
    given: dict[str, Any] = {}
    for kind in type(thing).__mro__:
        own = vars(kind).get("__init__")
        for name, option in inspect.signature(own).parameters.items() if inspect.isfunction(own) else ():
            value = getattr(thing, name, option.default)
            if option.kind is option.KEYWORD_ONLY and value != option.default:
                given.setdefault(name, value)
    return f"{type(thing).__name__}({', '.join(f'{name}={short(value)}' for name, value in given.items())})"


def name_of(names: Sequence[str], wanted: int) -> str:
    """Name of a class, or "class 7" where it has none."""
    return names[wanted] if 0 <= wanted < len(names) else f"class {wanted}"


def few(names: Sequence[str], count: int = 3) -> str:
    """The first few names."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def table(title: str, rows: Iterable[Sequence[str]], head: Sequence[str] = (), *, small: str = "") -> str:
    """A small HTML table under a title, with a line of small print."""
    left = "style='text-align:left'"

    def row(cells: Sequence[str], kinds: Sequence[str]) -> str:
        inner = (f"<{kind} {left}>{html.escape(cell)}</{kind}>" for cell, kind in zip(cells, kinds, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    body = "".join(row(cells, ["th", *["td"] * (len(cells) - 1)]) for cells in rows)
    top = row(head, ["th"] * len(head)) if head else ""
    note = f"<small>{html.escape(small)}</small>" if small else ""
    return f"<div><b>{html.escape(title)}</b><table>{top}{body}</table>{note}</div>"
