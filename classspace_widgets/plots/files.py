"""Figures as files, and the figures inside a layout."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bokeh.plotting import figure

from classspace_widgets.files import write_whole
from classspace_widgets.snapshot.paper import PaperFigure

SCREEN_DPI = 96
"""Pixels per inch on screen, as in CSS, which Bokeh follows."""


def figures_in(plotted: Any) -> list[Any]:
    """The figures inside a Bokeh layout.

    Parameters
    ----------
    plotted : bokeh figure, row or column

    Returns
    -------
    list of bokeh figure

    Examples
    --------
    >>> from bokeh.layouts import row
    >>> from bokeh.plotting import figure
    >>> len(figures_in(row(figure(), figure())))
    2
    """
    if isinstance(plotted, figure):
        return [plotted]
    return [fig for child in getattr(plotted, "children", []) for fig in figures_in(child)]


def save_figure(plotted: Any, path: str | Path, *, dpi: float | None = None) -> Path:
    """Write a figure: rows of maps as ``.png``, ``.svg`` or ``.pdf``; Bokeh's as ``.html`` (offline), ``.png`` or ``.svg``.

    Bokeh's PNG and SVG need a browser that Selenium can drive: ``pip install "classspace-widgets[figures]"``, and Chromium
    or Firefox.

    Parameters
    ----------
    plotted : PaperFigure, or bokeh figure, row or column
    path : path
        Its ending chooses the format.
    dpi : float, optional
        Pixels per inch: by default 300 for rows of maps, and 96 for Bokeh's PNG, which is the size on screen.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        For an ending that this kind of figure does not support.
    RuntimeError
        If Bokeh finds no browser; the message says what to install.

    Examples
    --------
    >>> import tempfile
    >>> from bokeh.plotting import figure
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(figure(), f"{folder}/curve.html").name
    'curve.html'
    """
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    if isinstance(plotted, PaperFigure):
        return plotted.save(path, dpi=300 if dpi is None else dpi)
    target = Path(path)
    kind = target.suffix.lower()
    if kind not in (".html", ".png", ".svg"):
        raise ValueError(f"expected a path ending in .html, .png or .svg, got {target.name!r}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind == ".html":
        return write_whole(target, file_html(plotted, INLINE, target.stem).encode("utf-8", errors="replace"))
    from bokeh.io import export_png, export_svg

    try:
        with TemporaryDirectory() as folder:
            picture = str(Path(folder) / f"figure{kind}")
            if kind == ".svg":
                for fig in figures_in(plotted):
                    fig.output_backend = "svg"
                export_svg(plotted, filename=picture)
            else:
                export_png(plotted, filename=picture, scale_factor=(dpi or SCREEN_DPI) / SCREEN_DPI)
            content = Path(picture).read_bytes()
    except Exception as error:  # Selenium raises errors of many types; the remedy is the same
        raise RuntimeError(
            f"cannot write {target.name}: Bokeh needs Selenium and a browser for pictures ({error}); "
            'pip install "classspace-widgets[figures]" and install Firefox or Chromium, or save .html'
        ) from error
    return write_whole(target, content)
