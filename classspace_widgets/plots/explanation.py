"""Perturbation curves of every method of token importance, with the random order, and a table of scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, HoverTool, Range1d

from classspace_widgets.plots.heat import plot_heat_table
from classspace_widgets.plots.style import COLOURS, INK, MARKERS, check_result, styled_figure
from classspace_widgets.studies.results import StudyResult, rows_where

if TYPE_CHECKING:
    from collections.abc import Sequence

TITLES = {
    "negative": "least important first (higher is better)",
    "positive": "most important first (lower is better)",
}


def plot_explanation(
    result: StudyResult,
    *,
    measure: str = "accuracy",
    methods: Sequence[str] | None = None,
    width: int = 380,
    height: int = 300,
) -> Any:
    """Perturbation curves of `ExplanationStudy` in both orders, with intervals, and below them areas and mask scores.

    Parameters
    ----------
    result : StudyResult
        Of `ExplanationStudy`.
    measure : str
        ``"accuracy"`` or ``"probability"``.
    methods : sequence of str, optional
        Only these; by default all, with the random order as a dashed line.
    width, height : int
        Of one panel, in pixels.

    Returns
    -------
    bokeh column

    Raises
    ------
    ValueError
        For an unknown measure or method.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> from classspace_widgets.studies import ExplanationStudy, run_study
    >>> study = ExplanationStudy(methods=["gradient"], steps=3)
    >>> results = run_study(ClassSpace.bundled(), ScenesDataset(2, seed=2), study, progress=False)
    >>> type(plot_explanation(results["explanation"])).__name__
    'Column'
    """
    if measure not in ("accuracy", "probability"):
        raise ValueError(f"measure must be 'accuracy' or 'probability', got {measure!r}")
    check_result(result, tables=("curves", "paper"))
    curves = rows_where(result.tables["curves"], outcome="all")
    known = list(dict.fromkeys(curves["method"]))
    chosen = known if methods is None else list(methods)
    unknown = [m for m in chosen if m not in known]
    if unknown:
        raise ValueError(f"methods must be among {', '.join(known)}, got {unknown[0]!r}")
    total = curves["kept"].max()
    y_range = Range1d(-0.03, 1.03)
    figures: list[tuple[Any, dict[tuple[str, str], Any]]] = []
    for order, title in TITLES.items():
        last = order == "positive"
        fig = styled_figure(
            title,
            legend="right" if last else "center",
            frame_width=width - 64,
            frame_height=height - 76,
            x_range=Range1d(1.02, -0.02),
            y_range=y_range,
        )
        fig.legend.visible = last
        fig.xaxis.axis_label = "share of image tokens kept"
        fig.yaxis.visible = not last
        fig.yaxis.axis_label = measure
        drawn = {}
        for number, method in enumerate(chosen):
            for weights in ("trained", "random"):
                part = rows_where(curves, method=method, measure=f"{order} {measure}", weights=weights)
                if len(part):
                    drawn[method, weights] = _curve(fig, part.sort_values("kept"), method, weights, number, total)
        fig.legend.click_policy = "hide"
        for key, renderer in drawn.items():
            for _, others in figures:
                if key in others:
                    renderer.js_link("visible", others[key], "visible")
        figures.append((fig, drawn))
    scores = rows_where(result.table, outcome="all", method=chosen)
    scores = scores.assign(condition=scores["method"], tokens="output").drop(columns="method")
    as_result = StudyResult(result.name, "Areas and agreement with the objects' masks", {"main": scores})
    table = plot_heat_table(as_result, table=scores, width=2 * width + 190)
    return column(row(*[fig for fig, _ in figures]), table)


def _curve(fig: Any, part: pd.DataFrame, method: str, weights: str, number: int, total: int) -> Any:
    control = method == "random"
    colour = INK if control else COLOURS[number % len(COLOURS)]
    label = method if weights == "trained" else f"{method}, random weights"
    names = ("value", "low", "high")
    source = ColumnDataSource(
        {name: part[name].to_numpy() for name in names}
        | {"share": (part["kept"] / total).to_numpy(), "kept": part["kept"].to_numpy(), "label": [label] * len(part)}
    )
    if weights == "trained" and part["low"].notna().any():
        fig.varea("share", "low", "high", source=source, color=colour, fill_alpha=0.12, legend_label=label)
    dash = "dashed" if control or weights == "random" else "solid"
    line = fig.line("share", "value", source=source, color=colour, line_width=2, line_dash=dash, legend_label=label)
    marker = MARKERS[number % len(MARKERS)]
    points = fig.scatter("share", "value", source=source, color=colour, size=5, marker=marker)
    line.js_link("visible", points, "visible")
    tips = [
        ("", "@label"),
        ("tokens kept", "@kept"),
        ("value", "@value{0.000}"),
        ("interval", "@low{0.000} to @high{0.000}"),
    ]
    fig.add_tools(HoverTool(renderers=[points], tooltips=tips, attachment="horizontal"))
    return line
