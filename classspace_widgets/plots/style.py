"""The style of figures: transparent backgrounds, lines of medium lightness, colours that colour-blind readers can tell apart."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.models import BasicTicker, CrosshairTool, Legend, Span
from bokeh.plotting import figure

from classspace_widgets.studies.results import StudyResult

INK = "#7a808a"
GRID = "#8c929c"
# Distinct for colour-blind readers, and of medium lightness (after Okabe and Ito, and Tol).
COLOURS = ("#2f86d1", "#d5701a", "#1a9e77", "#b8529a", "#98881f", "#7a6fd0", "#c9473d", "#0f97a8", "#9a6a3f", "#5f9a35")
# The same colours as in the widgets: attention and MLP outputs, tokens on the object and on its context.
FIXED_COLOURS = {"attention": "#0f97a8", "mlp": "#d5701a", "[CLS]": "#2f86d1", "class": "#1a9e77", "context": "#9a6a3f"}
MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex", "star")
FONT = "system-ui, sans-serif"
HEAT = ("#0d3b66", "#1d5a8c", "#2f79ad", "#4f97c4", "#7db3d3", "#a9cbdf", "#d3e2ea")[::-1]
# From blue through transparent to red, as in the live views: legible on light and dark pages.
SIGNED = tuple(
    f"{'#2166ac' if step < 0 else '#b2182b' if step else '#888888'}{round(255 * (0.1 + 0.9 * abs(step) / 32)):02x}"
    for step in range(-32, 33)
)


def check_result(result: Any, *, columns: tuple[str, ...] = (), tables: tuple[str, ...] = ()) -> None:
    """Raise unless this is a `StudyResult` with these columns and tables."""
    if not isinstance(result, StudyResult):
        hint = "; results['...'] is one, plot_overview draws all" if isinstance(result, Mapping) else ""
        raise TypeError(f"expected a StudyResult, got {type(result).__name__}{hint}")
    missing = [t for t in tables if t not in result.tables]
    missing += [c for c in columns if not missing and c not in result.table.columns]
    if missing:
        raise ValueError(f"the result of {result.name} has no {' and no '.join(missing)}; plot_result draws any result")


def styled_figure(title: str, *, legend: str = "center", **options: Any) -> Any:
    """An empty figure in the common style; ``legend`` is the legend's place; ``"right"`` is outside the plot."""
    fig = figure(title=title, tools="pan,wheel_zoom,box_zoom,reset,save", toolbar_location="above", **options)
    fig.toolbar.logo = None
    fig.toolbar.autohide = True
    fig.background_fill_color = fig.border_fill_color = None
    fig.outline_line_color = None
    fig.title.text_color = INK
    fig.title.text_font = fig.axis.axis_label_text_font = fig.axis.major_label_text_font = FONT
    fig.axis.axis_label_text_color = fig.axis.major_label_text_color = INK
    fig.axis.axis_line_color = fig.axis.major_tick_line_color = INK
    fig.axis.minor_tick_line_color = None
    fig.axis.axis_label_text_font_style = "normal"
    fig.grid.grid_line_color, fig.grid.grid_line_alpha = GRID, 0.25
    box = Legend(background_fill_alpha=0, border_line_alpha=0, label_text_color=INK, label_text_font_size="9pt")
    box.label_text_font = FONT
    box.spacing, box.padding, box.glyph_height, box.inactive_fill_alpha = 0, 4, 14, 0.3
    fig.add_layout(box, legend)
    return fig


def count_blocks(fig: Any) -> None:
    """Label the horizontal axis with blocks, in whole numbers."""
    fig.xaxis.axis_label = "block"
    fig.xaxis.ticker = BasicTicker(min_interval=1)


def add_chance(fig: Any, value: float) -> Any:
    """Draw a dotted horizontal line at the value of chance, with an entry in the legend; returns its renderer."""
    line = {"line_color": INK, "line_dash": "dotted", "line_width": 1.5}
    return fig.hspan(y=[value], legend_label=f"chance {value:.2f}", **line)


def series_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name: its fixed colour if it has one, else the next free one."""
    free = [c for c in COLOURS if c not in FIXED_COLOURS.values()] + list(FIXED_COLOURS.values())
    others = [name for name in names if name not in FIXED_COLOURS]
    return {name: FIXED_COLOURS.get(name) or free[others.index(name) % len(free)] for name in names}


def crosshair_span() -> Span:
    """A vertical line that several figures share."""
    return Span(dimension="height", line_color=INK, line_dash="dotted", line_width=1)


def share_crosshair(fig: Any, span: Span) -> None:
    """Give a figure the shared crosshair."""
    fig.toolbar.tools = [t for t in fig.toolbar.tools if not isinstance(t, CrosshairTool)]
    fig.add_tools(CrosshairTool(overlay=span, dimensions="height"))


def escape(text: str) -> str:
    """Text as HTML."""
    return html.escape(text)
