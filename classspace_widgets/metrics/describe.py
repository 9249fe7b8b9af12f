"""The notebook's display of contributions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from classspace_widgets.describe import FEW, name_of, table
from classspace_widgets.points import block_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from classspace_widgets.metrics.contributions import Contributions
    from classspace_widgets.metrics.decision import Decision
    from classspace_widgets.metrics.flow import Flow
    from classspace_widgets.metrics.norms import TokenNorms


def contributions_html(shares: Contributions) -> str:
    """Contributions to the first class at the first token of the first picture, by block, with their sum."""
    values = shares.values[0, :, 0, 0].tolist()
    points = shares.points
    rows: list[Sequence[str]] = [(block_name(0), f"{values[0]:+.3f}")]
    rows += [
        (block_name(block), *(f"{values[points.increment(name, block)]:+.3f}" for name in points.sublayers))
        for block in points.blocks
    ]
    rows += [("offset", f"{shares.offset[0].item():+.3f}"), ("total", f"{shares.total()[0, 0, 0].item():+.3f}")]
    name = name_of(shares.class_names, shares.classes[0]) if shares.classes else "the first class"
    head = ("", "attention", "MLP") if points.sequential else ("", "block")
    title = f"Contributions ({shares.reading}) to the class logit of {name}: first picture, first token"
    return table(title, rows, head, small=repr(shares))


def flow_html(found: Flow) -> str:
    """Where the logit of the first class stands in the first picture: prefix tokens, image tokens, biases, at every point."""
    places = found.by_place()
    rows = [
        (point.name, *(f"{places[name][n, 0, 0].item():+.3f}" for name in places))
        for n, point in enumerate(found.points)
    ]
    title = f"Where the class logit of {name_of(found.class_names, found.classes[0])} stands: first picture"
    return table(title, rows, ("", "prefix tokens", "image tokens", "biases"), small=repr(found))


def decision_html(found: Decision) -> str:
    """How the answer of the first picture stands at every point, and where it is decided."""
    rows = []
    for n, point in enumerate(found.points):
        first = name_of(found.class_names, int(found.first[n, 0, -1]))
        numbers = [f"{getattr(found, name)[n, 0, -1].item():.3f}" for name in ("tau", "entropy", "margin")]
        here = "decided" if n == int(found.decided_at[0, -1]) else ""
        rows.append((point.name, first, *numbers, here))
    label = name_of(found.class_names, int(found.labels[0]))
    title = f"When the answer is decided ({found.lens} lens): first picture, read for {label}"
    head = ("", "first class", "Kendall's tau", "entropy", "margin", "")
    return table(title, rows, head, small=repr(found))


def norms_html(found: TokenNorms) -> str:
    """The longest tokens, or that there is none; with what is known of them."""
    rows = [
        (
            f"picture {row['image']}, block {row['block']}",
            f"row {row['row']}, column {row['column']}",
            f"{row['norm']:.1f}",
            "" if math.isnan(row["received"]) else f"{row['received']:.1%}",
        )
        for row in found.table().head(FEW).to_dict("records")
    ]
    head = ("", "patch", "length, in medians", "attention received") if rows else ()
    return table(found.text(), rows, head, small=repr(found))
