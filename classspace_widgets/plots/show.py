"""Figures in a notebook: each brings what it needs, so that it works offline and without ``output_notebook``."""

from __future__ import annotations

import html
from typing import Any

from bokeh.models import Row

from classspace_widgets.export.packed import packed_scripts
from classspace_widgets.export.page import bokeh_figure

# A frame of the same colour scheme as its page lets the notebook's background through, in dark themes too.
_HEAD = "<!doctype html><meta charset=utf-8><style>body { margin: 0; }</style>"
_TEXT_HEIGHT = 64
_AROUND = 96
"""Title, tools and axes around a plot whose frame has a height of its own."""


class ShownFigure:
    """A figure that shows itself in a notebook, in a frame of its own.

    Made by `show_figure`.

    Attributes
    ----------
    figure : bokeh figure or layout
    height : int
        Of the frame, in pixels.
    """

    def __init__(self, figure: Any, height: int) -> None:
        self.figure = figure
        self.height = height

    def __repr__(self) -> str:
        return f"ShownFigure({type(self.figure).__name__}, {self.height} px high)"

    def _repr_html_(self) -> str:
        pieces = bokeh_figure(self.figure)
        page = f"{_HEAD}{pieces.html}{packed_scripts([*pieces.library, *pieces.scripts])}"
        return (
            f'<iframe srcdoc="{html.escape(page)}" sandbox="allow-scripts allow-downloads" title="figure" '
            f'style="width:100%;height:{self.height}px;border:0;color-scheme:light"></iframe>'
        )


def show_figure(plotted: Any, *, height: int | None = None) -> ShownFigure:
    """A figure as the output of a notebook cell: offline, with hover, zoom and legend still working.

    Bokeh's own ``show`` needs ``output_notebook`` first, which fetches BokehJS from the network.

    Parameters
    ----------
    plotted : bokeh figure or layout
        As the functions of this package return it.
    height : int, optional
        Of the frame in pixels; by default what the figures take.

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


def _height(part: Any) -> int:
    heights = [_height(child) for child in getattr(part, "children", [])]
    if heights:
        return max(heights) if isinstance(part, Row) else sum(heights)
    inner = getattr(part, "frame_height", None)
    return int(inner + _AROUND if inner else getattr(part, "height", None) or _TEXT_HEIGHT)
