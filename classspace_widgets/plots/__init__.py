"""Figures: interactive ones of results (Bokeh), and rows of maps over their pictures for print.

The ``plot_`` functions return ordinary Bokeh objects: curves with bands and their random control, heat tables, an overview.
Their backgrounds are transparent and their lines of medium lightness, so that they are legible on light and dark pages.
The ``_strip`` functions return a `PaperFigure`, which is written as PNG, SVG or PDF and needs no browser.
"""

from classspace_widgets.explain.strips import importance_strip
from classspace_widgets.plots.contributions import plot_contributions, plot_heads
from classspace_widgets.plots.explanation import plot_explanation
from classspace_widgets.plots.files import save_figure
from classspace_widgets.plots.lenses import plot_lens_report
from classspace_widgets.plots.probes import plot_probes
from classspace_widgets.plots.report import write_report
from classspace_widgets.plots.results import plot_overview, plot_result
from classspace_widgets.plots.show import show_figure
from classspace_widgets.plots.strips import identifiability_strip

__all__ = [
    "identifiability_strip",
    "importance_strip",
    "plot_contributions",
    "plot_explanation",
    "plot_heads",
    "plot_lens_report",
    "plot_overview",
    "plot_probes",
    "plot_result",
    "save_figure",
    "show_figure",
    "write_report",
]
