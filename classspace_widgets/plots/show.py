"""Figures in a notebook: each contains its own BokehJS, so that it works offline and without ``output_notebook``."""

from __future__ import annotations

import html
from typing import Any

from bokeh.models import Row, Title

from classspace_widgets.export.packed import packed_scripts
from classspace_widgets.export.page import bokeh_figure

# Where a frame and its page have the same colour scheme, the notebook's background shows through, in dark themes too.
_HEAD = "<!doctype html><meta charset=utf-8><style>body { margin: 0; }</style>"
# In pixels, measured in Chromium: a heading with a line of text; title, tools and axes around a plot's frame.
_TEXT_HEIGHT = 64
_AROUND_FRAME = 96


class ShownFigure:
    """A figure as a notebook shows it, in its own frame.

    Made by `show_figure`.

    Attributes
    ----------
    figure : bokeh figure or layout
    height : int
        Height of the frame in pixels.
    """

    def __init__(self, figure: Any, height: int) -> None:
        self.figure = figure
        self.height = height

    def __repr__(self) -> str:
        return f"ShownFigure({type(self.figure).__name__}, {self.height} px high)"

    def _repr_html_(self) -> str:
        parts = bokeh_figure(self.figure)
        page = f"{_HEAD}{parts.html}{packed_scripts([*parts.library, *parts.scripts])}"
        # Where frames are taken out, as in a notebook that is not trusted, what it covers is left.
        return (
            f'<div style="position:relative"><p style="position:absolute">{html.escape(_words(self.figure))}</p>'
            f'<iframe srcdoc="{html.escape(page)}" sandbox="allow-scripts allow-downloads" title="figure" '
            f'style="position:relative;width:100%;height:{self.height}px;border:0;color-scheme:light;background:#fff">'
            "</iframe></div>"
        )


def show_figure(plotted: Any, *, height: int | None = None) -> ShownFigure:
    """A figure as the output of a notebook cell: offline, with hover, zoom and legend still working.

    Bokeh's own ``show`` needs ``output_notebook`` first, which fetches BokehJS from the network.

    Parameters
    ----------
    plotted : bokeh figure or layout
        From any ``plot_`` function, or your own.
    height : int, optional
        Height of the frame in pixels; by default that of the figures.

    Returns
    -------
    ShownFigure
        About 0.5 MB in a saved notebook.

    Examples
    --------
    >>> from bokeh.plotting import figure
    >>> show_figure(figure(height=300))
    ShownFigure(figure, 310 px high)
    """
    return ShownFigure(plotted, _height(plotted) + 10 if height is None else height)


def _words(figure: Any) -> str:
    """What stands where the figure cannot be shown: its titles, and what to do."""
    titles = [model.text for model in figure.references() if isinstance(model, Title) and model.text]
    named = ", ".join(dict.fromkeys(sorted(titles))) or "no title"
    return f"An interactive figure ({named}): run the cell, or trust this notebook, to see it."


def _height(part: Any) -> int:
    heights = [_height(child) for child in getattr(part, "children", [])]
    if heights:
        return max(heights) if isinstance(part, Row) else sum(heights)
    inner = getattr(part, "frame_height", None)
    return int(inner + _AROUND_FRAME if inner else getattr(part, "height", None) or _TEXT_HEIGHT)
