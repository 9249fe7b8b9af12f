"""Bokeh figures of study results: curves with bands and their random control, heat tables, and an overview.

Every function returns ordinary Bokeh objects. Backgrounds are transparent and inks are of middle lightness, so that a
figure is legible on light and dark pages alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from bokeh.layouts import column, row
from bokeh.models import (
    ColumnDataSource,
    CrosshairTool,
    Div,
    HoverTool,
    LabelSet,
    Legend,
    LinearColorMapper,
    Range1d,
    Span,
)
from bokeh.plotting import figure

from classspace_widgets.studies.results import StudyResult, rows_where

if TYPE_CHECKING:
    from classspace_widgets.studies.results import StudyResults

INK = "#7a808a"
GRID = "#8c929c"
# Told apart by people who see colours differently, and of middle lightness (after Okabe and Ito, and Tol).
COLOURS = ("#2f86d1", "#d5701a", "#1a9e77", "#b8529a", "#98881f", "#7a6fd0", "#c9473d")
MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex", "star")
HEAT = ("#0d3b66", "#1d5a8c", "#2f79ad", "#4f97c4", "#7db3d3", "#a9cbdf", "#d3e2ea")[::-1]

# What is set side by side and what is one curve, by study.
LAYOUT: Mapping[str, tuple[str | None, str]] = {
    "identifiability": ("stream", "tokens"),
    "identifiability_change": ("measure", "tokens"),
    "place_difference": (None, "stream"),
    "similarity_change": ("stream", "tokens"),
    "residual_composition": ("tokens", "source"),
    "class_value_agreement": (None, "stream"),
    "key_value_agreement": ("stream", "tokens"),
    "memory_compositionality": ("stream", "tokens"),
}


def plot_result(
    result: StudyResult,
    *,
    where: Mapping[str, Any] | None = None,
    panel: str | None = None,
    series: str | None = None,
    class_name: str | None = None,
    width: int = 380,
    height: int = 300,
) -> Any:
    """A figure of a result, or several side by side.

    Parameters
    ----------
    result : StudyResult
    where : mapping, optional
        Only rows where a column has a value or one of a list, such as ``{"tokens": "[CLS]"}``.
    panel, series : str, optional
        Columns that tell panels and curves apart; ``series="outcome"`` sets correct against misclassified pictures.
    class_name : str, optional
        Only pictures of one class, by its name.
    width, height : int
        Of one panel, in pixels.

    Returns
    -------
    bokeh figure, or row of figures
    """
    table = result.table
    if class_name is not None:
        table = rows_where(result.tables.get("by_class", table), class_name=class_name)
        if len(table) == 0:
            raise ValueError(f"{result.name}: no picture of class {class_name!r} was measured")
    table = rows_where(table, **(where or {}))
    if "outcome" in table.columns and not (where and "outcome" in where):
        table = table[table["outcome"] != "all"] if series == "outcome" else table[table["outcome"] == "all"]
    if len(table) == 0:
        note = " ".join(result.notes) or "Nothing was counted."
        return Div(text=f"<p style='color:{INK}'>{_escape(result.title)}: {_escape(note)}</p>", width=2 * width)
    if "block" not in table.columns:
        return _without_blocks(result, table, width=width, height=height)
    default_panel, default_series = LAYOUT.get(result.name, (None, _first_label(table)))
    panel, series = panel or default_panel, series or default_series
    if panel == series:
        panel = None
    _check_unique(result, table, panel, series)
    return _panels(result, table, panel, series, width=width, height=height)


def plot_overview(results: StudyResults | Mapping[str, StudyResult], *, width: int = 340, height: int = 260) -> Any:
    """All results of a run as one dashboard, with a shared crosshair over the blocks.

    Returns
    -------
    bokeh column
    """
    if not len(results):
        raise ValueError("there is no result to show")
    crosshair = _crosshair()
    parts: list[Any] = []
    for result in results.values():
        parts.append(
            Div(
                text=f"<h3 style='margin:.6em 0 .1em;color:{INK}'>{_escape(result.title)}</h3>"
                f"<p style='margin:0;color:{INK}'>{_escape(result.quantity)}</p>",
                width=3 * width,
            )
        )
        plotted = plot_result(result, width=width, height=height)
        for fig in figures_in(plotted):
            _share_crosshair(fig, crosshair)
        parts.append(plotted)
    return column(*parts)


def figures_in(plotted: Any) -> list[Any]:
    """The figures inside a Bokeh layout."""
    if isinstance(plotted, figure):
        return [plotted]
    return [fig for child in getattr(plotted, "children", []) for fig in figures_in(child)]


def save_figure(plotted: Any, path: str | Path) -> Path:
    """Write a figure or layout as ``.html`` (offline), ``.png`` or ``.svg``; the last two need a browser.

    Raises
    ------
    RuntimeError
        Where no browser can be driven; says what to install.
    """
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    target = Path(path)
    kind = target.suffix.lower()
    if kind not in (".html", ".png", ".svg"):
        raise ValueError(f"expected a path ending in .html, .png or .svg, got {target.name!r}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind == ".html":
        target.write_text(file_html(plotted, INLINE, target.stem), encoding="utf-8")
        return target
    from bokeh.io import export_png, export_svg

    try:
        if kind == ".svg":
            for fig in figures_in(plotted):
                fig.output_backend = "svg"
            export_svg(plotted, filename=str(target))
        else:
            export_png(plotted, filename=str(target))
    except Exception as error:  # selenium raises many kinds; the remedy is the same
        raise RuntimeError(
            f"cannot write {target.name}: Bokeh needs Selenium and a browser for pictures ({error}); "
            "pip install selenium and Firefox or Chromium, or save .html"
        ) from error
    return target


def _panels(
    result: StudyResult, table: pd.DataFrame, panel: str | None, series: str, *, width: int, height: int
) -> Any:
    crosshair = _crosshair()
    names = list(dict.fromkeys(table[series]))
    panels = [(None, table)] if panel is None else [(p, table[table[panel] == p]) for p in dict.fromkeys(table[panel])]
    x_range = Range1d(float(table["block"].min()) - 0.3, float(table["block"].max()) + 0.3)
    values = table[[c for c in ("value", "low", "high") if c in table.columns]].to_numpy(float)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = 0.06 * (high - low or 1.0)
    y_range = Range1d(low - room, high + room)
    figures = []
    glyphs: list[dict[str, Any]] = []
    for place, (name, part) in enumerate(panels):
        # One legend, beside the last panel, where it hides no data; a click hides a curve in every panel.
        last = place == len(panels) - 1
        size = {"width": width + 190 * last, "height": height, "x_range": x_range, "y_range": y_range}
        fig = _figure(result.title if name is None else str(name), legend="right" if last else "center", **size)
        fig.legend.visible = last
        fig.xaxis.axis_label = "block"
        fig.yaxis.axis_label = result.title if place == 0 else ""
        drawn = [d for i, label in enumerate(names) for d in _curve(fig, part[part[series] == label], str(label), i)]
        glyphs.append(dict(drawn))
        fig.legend.click_policy = "hide"
        _share_crosshair(fig, crosshair)
        figures.append(fig)
    for others in glyphs[:-1]:
        for name, renderer in others.items():
            if name in glyphs[-1]:
                glyphs[-1][name].js_link("visible", renderer, "visible")
    return figures[0] if len(figures) == 1 else row(*figures)


def _curve(fig: Any, part: pd.DataFrame, label: str, number: int) -> list[tuple[str, Any]]:
    """Draw one curve and its control; returns the renderers by what they show."""
    made: list[tuple[str, Any]] = []
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    for weights in ("trained", "random"):
        rows = part[part["weights"] == weights].sort_values("block")
        if len(rows) == 0:
            continue
        shown = rows.assign(label=label, of="model" if weights == "trained" else "random control")
        for edge in ("low", "high"):
            if edge not in shown.columns:
                shown = shown.assign(**{edge: np.nan})
        # Columns rather than the frame: Bokeh's own way of reading frames is deprecated in pandas 3.
        source = ColumnDataSource({str(name): shown[name].to_numpy() for name in shown.columns})
        if weights == "random":
            line = {"line_dash": "dashed", "line_alpha": 0.8, "line_width": 1.5}
            drawn = fig.line("block", "value", source=source, color=colour, legend_label=f"{label}, random", **line)
            points = fig.scatter("block", "value", source=source, color=colour, size=4, fill_alpha=0, marker=marker)
        else:
            if shown["low"].notna().any():
                band = fig.varea(
                    "block", "low", "high", source=source, color=colour, fill_alpha=0.18, legend_label=label
                )
                made.append((f"{label} band", band))
            drawn = fig.line("block", "value", source=source, color=colour, line_width=2, legend_label=label)
            points = fig.scatter("block", "value", source=source, color=colour, size=6, marker=marker)
        # Points leave with their line when the legend is clicked.
        drawn.js_link("visible", points, "visible")
        made.append((f"{label} {weights}", drawn))
        fig.add_tools(HoverTool(renderers=[points], tooltips=_tooltips(shown), attachment="horizontal"))
    return made


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
    fig = _figure(result.title, legend="right", width=width, height=height, x_range=names, y_range=(0, 1.05))
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


def plot_heat_table(result: StudyResult, *, table: pd.DataFrame | None = None, width: int = 500) -> Any:
    """Conditions against measures as a heat table with its numbers written in.

    Parameters
    ----------
    result : StudyResult
        With columns ``condition``, ``measure``, ``tokens`` and ``value``, such as of attention perturbation.
    table : DataFrame, optional
        Only these rows; by default all pictures.
    width : int

    Returns
    -------
    bokeh figure
    """
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
        "ink": ["#ffffff" if v > 0.55 else "#10161d" for v in table["value"]],
    }
    source = ColumnDataSource(data)
    fig = _figure(
        result.title, width=width, height=90 + 44 * len(rows), x_range=list(dict.fromkeys(columns)), y_range=rows[::-1]
    )
    fig.grid.visible = False
    colour = {"field": "value", "transform": LinearColorMapper(palette=HEAT, low=0, high=1)}
    cells = fig.rect("x", "y", 0.97, 0.94, source=source, fill_color=colour, line_color=None)
    labels = LabelSet(
        x="x", y="y", text="text", source=source, text_color="ink", text_align="center", text_baseline="middle"
    )
    fig.add_layout(labels)
    tips = [("", "@y, @x"), ("value", "@value{0.0000}"), ("interval", "@low{0.0000} to @high{0.0000}")]
    fig.add_tools(HoverTool(renderers=[cells], tooltips=tips))
    fig.xaxis.major_label_orientation = 0.6
    return fig


def _figure(title: str, *, legend: str = "center", **options: Any) -> Any:
    fig = figure(title=title, tools="pan,wheel_zoom,box_zoom,reset,save", toolbar_location="above", **options)
    fig.toolbar.logo = None
    fig.toolbar.autohide = True
    fig.background_fill_color = fig.border_fill_color = None
    fig.outline_line_color = None
    fig.title.text_color = INK
    fig.axis.axis_label_text_color = fig.axis.major_label_text_color = INK
    fig.axis.axis_line_color = fig.axis.major_tick_line_color = fig.axis.minor_tick_line_color = INK
    fig.axis.axis_label_text_font_style = "normal"
    fig.grid.grid_line_color, fig.grid.grid_line_alpha = GRID, 0.25
    box = Legend(background_fill_alpha=0, border_line_alpha=0, label_text_color=INK, label_text_font_size="9pt")
    box.spacing, box.padding, box.glyph_height, box.inactive_fill_alpha = 0, 4, 14, 0.3
    fig.add_layout(box, legend)
    return fig


def _crosshair() -> Span:
    return Span(dimension="height", line_color=INK, line_dash="dotted", line_width=1)


def _share_crosshair(fig: Any, span: Span) -> None:
    fig.toolbar.tools = [t for t in fig.toolbar.tools if not isinstance(t, CrosshairTool)]
    fig.add_tools(CrosshairTool(overlay=span, dimensions="height"))


def _first_label(table: pd.DataFrame) -> str:
    skipped = {"weights", "block", "outcome", "value", "low", "high", "count"}
    labels = [c for c in table.columns if c not in skipped and not pd.api.types.is_numeric_dtype(table[c])]
    return labels[0] if labels else "weights"


def _check_unique(result: StudyResult, table: pd.DataFrame, panel: str | None, series: str) -> None:
    keys = [k for k in ("weights", panel, series, "block") if k is not None]
    missing = [k for k in keys if k not in table.columns]
    if missing:
        raise ValueError(f"{result.name} has no column {missing[0]!r}; there are {', '.join(table.columns)}")
    doubled = table.duplicated(keys)
    if doubled.any():
        labels = [c for c in table.columns if c not in keys and not pd.api.types.is_numeric_dtype(table[c])]
        several = [c for c in labels if table[c].nunique() > 1]
        raise ValueError(
            f"{result.name}: several values at one point; choose one of each with where={{...}} for {', '.join(several)}"
        )


def _escape(text: str) -> str:
    import html

    return html.escape(text)


__all__: Sequence[str] = ("figures_in", "plot_heat_table", "plot_overview", "plot_result", "save_figure")
