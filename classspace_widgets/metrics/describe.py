"""How contributions introduce themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classspace_widgets.describe import name_of, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from classspace_widgets.metrics.contributions import Contributions


def contributions_html(shares: Contributions) -> str:
    """Contributions to the first class at the first token of the first picture, by block, with their sum."""
    values = shares.values[0, :, 0, 0].tolist()
    size = 2 if shares.layout == "sequential" else 1
    rows: list[Sequence[str]] = [("embedding", f"{values[0]:+.3f}")]
    rows += [
        (f"block {n // size + 1}", *(f"{v:+.3f}" for v in values[n + 1 : n + 1 + size]))
        for n in range(0, len(values) - 1, size)
    ]
    rows += [("offset", f"{shares.offset[0].item():+.3f}"), ("total", f"{shares.total()[0, 0, 0].item():+.3f}")]
    name = name_of(shares.class_names, shares.classes[0]) if shares.classes else "the first class"
    head = ("", "attention", "MLP") if size == 2 else ("", "block")
    title = f"Contributions ({shares.reading}) to the class logit of {name}: first picture, first token"
    return table(title, rows, head, small=repr(shares))
