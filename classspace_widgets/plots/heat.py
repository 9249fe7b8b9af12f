"""Heat tables: conditions or methods against measures, with a number in every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from bokeh.models import ColumnDataSource, HoverTool, LabelSet, LinearColorMapper

from classspace_widgets.plots.style import HEAT, check_result, styled_figure
from classspace_widgets.studies.results import rows_where

if TYPE_CHECKING:
    from classspace_widgets.studies.results import StudyResult


def plot_heat_table(result: StudyResult, *, table: pd.DataFrame | None = None, width: int = 500) -> Any:
    """Conditions against measures as a heat table with a number in every cell.

    Parameters
    ----------
    result : StudyResult
        With columns ``condition``, ``measure``, ``tokens`` and ``value``, such as that of attention perturbation.
    table : DataFrame, optional
        Only these rows; by default those of all pictures.
    width : int
        Minimum width in pixels; many columns need more.

    Returns
    -------
    bokeh figure

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> from classspace_widgets.studies import run_study
    >>> results = run_study(ClassSpace.bundled(), ScenesDataset(2, seed=2), "token_removal", progress=False)
    >>> type(plot_heat_table(results["token_removal"])).__name__
    'figure'
    """
    check_result(result, columns=("condition", "measure") if table is None else ())
    if table is None:
        table = rows_where(result.table, outcome="all") if "outcome" in result.table.columns else result.table
    tokens = table["tokens"].astype(str) if "tokens" in table.columns else pd.Series("", index=table.index)
    weights = table["weights"].where(table["weights"] != "trained", "")
    columns = [
        " ".join(p for p in (m if t in ("output", "") else t, w) if p)
        for m, t, w in zip(table["measure"].astype(str), tokens, weights, strict=True)
    ]
    rows = list(dict.fromkeys(table["condition"].astype(str)))
    data = {
        "x": columns,
        "y": table["condition"].astype(str),
        "value": table["value"],
        "low": table.get("low", table["value"] * np.nan),
        "high": table.get("high", table["value"] * np.nan),
        "text": [f"{v:.3f}" for v in table["value"]],
        "text_color": ["#ffffff" if v > 0.55 else "#10161d" for v in table["value"]],
    }
    source = ColumnDataSource(data)
    fig = styled_figure(
        result.title,
        width=max(width, 150 + 58 * len(set(columns))),  # 58 pixels hold a number of a column
        height=90 + 44 * len(rows),
        x_range=list(dict.fromkeys(columns)),
        y_range=rows[::-1],
    )
    fig.grid.visible = False
    colour = {"field": "value", "transform": LinearColorMapper(palette=HEAT, low=0, high=1)}
    cells = fig.rect("x", "y", 0.97, 0.94, source=source, fill_color=colour, line_color=None)
    labels = LabelSet(
        x="x", y="y", text="text", source=source, text_color="text_color", text_align="center", text_baseline="middle"
    )
    fig.add_layout(labels)
    tips = [("", "@y, @x"), ("value", "@value{0.0000}"), ("interval", "@low{0.0000} to @high{0.0000}")]
    fig.add_tools(HoverTool(renderers=[cells], tooltips=tips))
    fig.xaxis.major_label_orientation = 0.6
    return fig
