"""The notebook's display of importance maps and perturbation curves."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from classspace_widgets.describe import FEW, name_of, table

if TYPE_CHECKING:
    from classspace_widgets.explain.perturbation import PerturbationCurves
    from classspace_widgets.explain.result import TokenImportance


def importance_html(found: TokenImportance) -> str:
    """Importance as maps: a row for each of the first pictures, the classes side by side."""
    from classspace_widgets.snapshot.filmstrip import map_row
    from classspace_widgets.snapshot.still import data_uri

    rows = []
    for i, maps in enumerate(found.image_maps[:2, :FEW].float().cpu().numpy()):
        names = [name_of(found.class_names, c) for c in found.classes[i, :FEW].tolist()]
        picture = None if found.pictures is None else found.pictures[i]
        words = html.escape(f"importance for {', '.join(names)}")
        row = data_uri(map_row(picture, list(maps), names, title=f"importance, method {found.method}"), quality=90)
        rows.append(f'<div><img src="{row}" alt="{words}"></div>')
    return f"<div>{''.join(rows)}<small>{html.escape(repr(found))}</small></div>"


def curves_html(curves: PerturbationCurves) -> str:
    """Areas under perturbation curves, over all pictures."""
    better = {"negative": "higher is better", "positive": "lower is better"}
    rows = [
        (
            f"{order} ({better[order]})",
            *(f"{curves.area(order, m).mean().item():.3f}" for m in ("accuracy", "probability")),
        )
        for order in curves.correct
    ]
    count = len(next(iter(curves.correct.values())))
    title = f"Area under perturbation curves, mean of {count} picture{'s' * (count != 1)}"
    return table(title, rows, ("order", "accuracy", "probability"), small=repr(curves))
