"""Figures as files, and the figures inside a layout."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bokeh.plotting import figure

from classspace_widgets.files import write_whole


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


def save_figure(plotted: Any, path: str | Path) -> Path:
    """Write a figure or layout as ``.html`` (offline), ``.png`` or ``.svg``; the last two need a browser.

    Parameters
    ----------
    plotted : bokeh figure, row or column
    path : path
        Its ending says what is written.

    Returns
    -------
    Path

    Raises
    ------
    RuntimeError
        Where no browser can be driven; says what to install.

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
            place = str(Path(folder) / f"figure{kind}")
            if kind == ".svg":
                for fig in figures_in(plotted):
                    fig.output_backend = "svg"
                export_svg(plotted, filename=place)
            else:
                export_png(plotted, filename=place)
            drawn = Path(place).read_bytes()
    except Exception as error:  # selenium raises many kinds; the remedy is the same
        raise RuntimeError(
            f"cannot write {target.name}: Bokeh needs Selenium and a browser for pictures ({error}); "
            "pip install selenium and Firefox or Chromium, or save .html"
        ) from error
    return write_whole(target, drawn)
