"""Curves over blocks with intervals and random control, bars, and the overview of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from bokeh.layouts import column, row
from bokeh.models import (
    ColumnDataSource,
    Div,
    HoverTool,
    Range1d,
)

from classspace_widgets.plots.explanation import plot_explanation
from classspace_widgets.plots.files import figures_in
from classspace_widgets.plots.heat import plot_heat_table
from classspace_widgets.plots.style import (
    COLOURS,
    INK,
    MARKERS,
    add_chance,
    check_result,
    count_blocks,
    crosshair_span,
    escape,
    series_colours,
    share_crosshair,
    styled_figure,
)
from classspace_widgets.studies.results import StudyResult, rows_where

if TYPE_CHECKING:
    from classspace_widgets.studies.results import StudyResults

# By study: the column whose values get a panel each, and the column whose values get a curve each.
LAYOUT: Mapping[str, tuple[str | None, str]] = {
    "identifiability": ("stream", "tokens"),
    "identifiability_change": ("measure", "tokens"),
    "place_difference": (None, "stream"),
    "similarity_change": ("stream", "tokens"),
    "residual_composition": ("tokens", "source"),
    "class_value_agreement": (None, "stream"),
    "key_value_agreement": ("stream", "tokens"),
    "memory_compositionality": ("stream", "tokens"),
    "decisions": ("measure", "tokens"),
    "outliers": ("measure", "tokens"),
}


WIDTH = 380
# Four panels with their legend fit the 1240 pixels that a report's page is wide.
ROW_WIDTH = 1200


def plot_result(
    result: StudyResult,
    *,
    where: Mapping[str, Any] | None = None,
    panel: str | None = None,
    series: str | None = None,
    class_name: str | None = None,
    width: int | None = None,
    height: int = 300,
) -> Any:
    """A figure of a result, or several side by side.

    Parameters
    ----------
    result : StudyResult
    where : mapping, optional
        Only rows where a column has a value or one of a list, such as ``{"tokens": "[CLS]"}``.
    panel, series : str, optional
        Columns that divide rows into panels and curves; ``series="outcome"`` compares correct with misclassified pictures.
    class_name : str, optional
        Only pictures of one class, by its name.
    width : int, optional
        Approximate width of one panel with its axes, in pixels; by default 380, less where a row would not fit a page.
    height : int

    Returns
    -------
    bokeh figure, or row of figures

    Raises
    ------
    ValueError
        For a class that was not measured, an unknown column, or several values at one point of a curve.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> from classspace_widgets.studies import run_study
    >>> results = run_study(ClassSpace.bundled(), ScenesDataset(2, seed=2), ["identifiability"], progress=False)
    >>> type(plot_result(results["identifiability"], where={"stream": "residual"})).__name__
    'figure'
    """
    check_result(result)
    given_width, width = width, width or WIDTH
    if {"curves", "paper"} <= set(result.tables) and class_name is None and not where:
        return plot_explanation(result, width=width, height=height)
    table = result.table
    if class_name is not None:
        table = rows_where(result.tables.get("by_class", table), class_name=class_name)
        if len(table) == 0:
            raise ValueError(f"{result.name}: no picture of class {class_name!r} was measured")
    table = rows_where(table, **(where or {}))
    if "outcome" in table.columns and not (where and "outcome" in where):
        table = table[table["outcome"] != "all"] if series == "outcome" else table[table["outcome"] == "all"]
    if len(table) == 0:
        note = " ".join(result.notes) or "No token was counted."
        return Div(text=f"<p style='color:{INK}'>{escape(result.title)}: {escape(note)}</p>", width=2 * width)
    if "block" not in table.columns:
        return _without_blocks(result, table, width=width, height=height)
    default_panel, default_series = LAYOUT.get(result.name, (None, _first_label(table)))
    panel, series = panel or default_panel, series or default_series
    if panel == series:
        panel = None
    _check_unique(result, table, panel, series)
    if given_width is None and panel is not None:
        width = min(width, ROW_WIDTH // table[panel].nunique())
    return _panels(result, table, panel, series, width=width, height=height)


def plot_overview(results: StudyResults | Mapping[str, StudyResult], *, width: int = 340, height: int = 260) -> Any:
    """All results of a run as one dashboard, with a shared crosshair over the blocks.

    Parameters
    ----------
    results : StudyResults, or mapping of name to StudyResult
    width, height : int
        Of one panel, in pixels.

    Returns
    -------
    bokeh column

    Raises
    ------
    ValueError
        If there is no result.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> from classspace_widgets.studies import run_study
    >>> results = run_study(ClassSpace.bundled(), ScenesDataset(2, seed=2), ["identifiability"], progress=False)
    >>> type(plot_overview(results)).__name__
    'Column'
    """
    if not isinstance(results, Mapping):
        raise TypeError(f"expected StudyResults, got {type(results).__name__}; plot_result draws a single one")
    if not len(results):
        raise ValueError("there are no results to show")
    crosshair = crosshair_span()
    parts: list[Any] = []
    for result in results.values():
        parts.append(
            Div(
                text=f"<h3 style='margin:.6em 0 .1em;color:{INK}'>{escape(result.title)}</h3>"
                f"<p style='margin:0;color:{INK}'>{escape(result.quantity)}</p>",
                width=3 * width,
            )
        )
        plotted = plot_result(result, width=width, height=height)
        for fig in figures_in(plotted):
            share_crosshair(fig, crosshair)
        parts.append(plotted)
    return column(*parts)


def _panels(
    result: StudyResult, table: pd.DataFrame, panel: str | None, series: str, *, width: int, height: int
) -> Any:
    crosshair = crosshair_span()
    names = list(dict.fromkeys(table[series].astype(str)))
    panels = [(None, table)] if panel is None else [(p, table[table[panel] == p]) for p in dict.fromkeys(table[panel])]
    x_range = Range1d(float(table["block"].min()) - 0.3, float(table["block"].max()) + 0.3)
    values = table[[c for c in ("value", "low", "high") if c in table.columns]].to_numpy(float)
    bounds = values.ravel() if result.chance is None else np.append(values, result.chance)
    low, high = float(np.nanmin(bounds)), float(np.nanmax(bounds))
    room = 0.06 * (high - low or 1.0)
    y_range = Range1d(low - room, high + room)
    colours = series_colours(names)
    figures = []
    glyphs: list[dict[str, Any]] = []
    for place, (name, part) in enumerate(panels):
        # One legend, beside the last panel, where it hides no data; a click hides a curve in every panel.
        last = place == len(panels) - 1
        size = {"frame_width": width - 64, "frame_height": height - 76, "x_range": x_range, "y_range": y_range}
        title = result.title if name is None else str(name) if len(panels) > 1 else f"{result.title}, {name}"
        fig = styled_figure(title, legend="right" if last else "center", **size)
        fig.legend.visible = last
        count_blocks(fig)
        # The panels share one scale: only the first shows its numbers.
        fig.yaxis.visible = place == 0
        fig.yaxis.axis_label = result.title
        drawn = [
            d
            for i, label in enumerate(names)
            for d in _curve(
                fig, part[part[series].astype(str) == label], label, colours[label], i, several="twins" in result.tables
            )
        ]
        glyphs.append(dict(drawn))
        if result.chance is not None:
            glyphs[-1]["chance"] = add_chance(fig, result.chance)
        fig.legend.click_policy = "hide"
        share_crosshair(fig, crosshair)
        figures.append(fig)
    for others in glyphs[:-1]:
        for name, renderer in others.items():
            if name in glyphs[-1]:
                glyphs[-1][name].js_link("visible", renderer, "visible")
    return figures[0] if len(figures) == 1 else row(*figures)


def _curve(
    fig: Any, part: pd.DataFrame, label: str, colour: str, number: int, *, several: bool
) -> list[tuple[str, Any]]:
    """Draw one curve and its control, with the range over twins if there are ``several``; returns the renderers by name."""
    renderers: list[tuple[str, Any]] = []
    marker = MARKERS[number % len(MARKERS)]
    for weights in ("trained", "random"):
        rows = part[part["weights"] == weights].sort_values("block")
        if len(rows) == 0:
            continue
        shown = rows.assign(label=label, of="model" if weights == "trained" else "random control")
        for edge in ("low", "high"):
            if edge not in shown.columns:
                shown = shown.assign(**{edge: np.nan})
        # Columns, not the frame: the way in which Bokeh reads frames is deprecated in pandas 3.
        source = ColumnDataSource({str(name): shown[name].to_numpy() for name in shown.columns})
        if weights == "random":
            line = {"line_dash": "dashed", "line_alpha": 0.8, "line_width": 1.5}
            if several and shown["low"].notna().any():
                span = {"color": colour, "fill_alpha": 0.07, "legend_label": f"{label}, random"}
                renderers.append((f"{label} random range", fig.varea("block", "low", "high", source=source, **span)))
            drawn = fig.line("block", "value", source=source, color=colour, legend_label=f"{label}, random", **line)
            points = fig.scatter("block", "value", source=source, color=colour, size=4, fill_alpha=0, marker=marker)
        else:
            if shown["low"].notna().any():
                band = fig.varea(
                    "block", "low", "high", source=source, color=colour, fill_alpha=0.18, legend_label=label
                )
                renderers.append((f"{label} band", band))
            drawn = fig.line("block", "value", source=source, color=colour, line_width=2, legend_label=label)
            points = fig.scatter("block", "value", source=source, color=colour, size=6, marker=marker)
        # A click on the legend hides the points together with their line.
        drawn.js_link("visible", points, "visible")
        renderers.append((f"{label} {weights}", drawn))
        fig.add_tools(HoverTool(renderers=[points], tooltips=_tooltips(shown), attachment="horizontal"))
    return renderers


def _tooltips(shown: pd.DataFrame) -> list[tuple[str, str]]:
    tips = [("", "@label (@of)"), ("block", "@block"), ("value", "@value{0.0000}")]
    if shown["low"].notna().any():
        tips.append(("interval", "@low{0.0000} to @high{0.0000}"))
    tips += [(p, f"@{p}{{0.0000}}") for p in ("p_tokens", "p_pictures") if p in shown.columns]
    if "count" in shown.columns:
        tips.append(("counted", "@count{0,0}"))
    return tips


def _without_blocks(result: StudyResult, table: pd.DataFrame, *, width: int, height: int) -> Any:
    if {"condition", "measure"} <= set(table.columns):
        return plot_heat_table(result, table=table, width=width + 120)
    label = _first_label(table)
    names = list(dict.fromkeys(table[label].astype(str)))
    fig = styled_figure(result.title, legend="right", width=width, height=height, x_range=names, y_range=(0, 1.05))
    for number, (weights, part) in enumerate(table.groupby("weights", sort=False)):
        shift = -0.18 + 0.36 * number if table["weights"].nunique() > 1 else 0.0
        places = [(str(n), shift) for n in part[label]]
        data = {"x": places, "top": part["value"], "low": part.get("low", part["value"] * np.nan)}
        source = ColumnDataSource(data | {"high": part.get("high", part["value"] * np.nan), "value": part["value"]})
        colour = COLOURS[0] if weights == "trained" else INK
        bars = fig.vbar(
            x="x", top="top", width=0.32, source=source, color=colour, fill_alpha=0.75, legend_label=str(weights)
        )
        fig.segment(x0="x", x1="x", y0="low", y1="high", source=source, color=INK, line_width=2)
        tips = [("value", "@value{0.0000}"), ("interval", "@low{0.0000} to @high{0.0000}")]
        fig.add_tools(HoverTool(renderers=[bars], tooltips=tips))
    fig.legend.click_policy = "hide"
    return fig


def _first_label(table: pd.DataFrame) -> str:
    skipped = {"weights", "block", "outcome", "value", "low", "high", "count"}
    labels = [c for c in table.columns if c not in skipped and not pd.api.types.is_numeric_dtype(table[c])]
    return labels[0] if labels else "weights"


def _check_unique(result: StudyResult, table: pd.DataFrame, panel: str | None, series: str) -> None:
    keys = [k for k in ("weights", panel, series, "block") if k is not None]
    missing = [k for k in keys if k not in table.columns]
    if missing:
        raise ValueError(f"{result.name} has no column {missing[0]!r}; its columns are {', '.join(table.columns)}")
    repeated = table.duplicated(keys)
    if repeated.any():
        labels = [c for c in table.columns if c not in keys and not pd.api.types.is_numeric_dtype(table[c])]
        varying = [c for c in labels if table[c].nunique() > 1]
        raise ValueError(
            f"{result.name}: several values at one point; choose one of each with where={{...}} for {', '.join(varying)}"
        )
