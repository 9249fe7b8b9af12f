"""Bokeh figures of results: curves with bands and their random control, heat tables, and an overview.

Every function returns ordinary Bokeh objects. Backgrounds are transparent and inks are of middle lightness, so that a
figure is legible on light and dark pages alike.
"""

from classspace_widgets.plots.contributions import plot_contributions, plot_heads
from classspace_widgets.plots.explanation import plot_explanation
from classspace_widgets.plots.files import figures_in, save_figure
from classspace_widgets.plots.heat import plot_heat_table
from classspace_widgets.plots.probes import plot_probes
from classspace_widgets.plots.results import plot_overview, plot_result
from classspace_widgets.plots.show import ShownFigure, show_figure

__all__ = [
    "ShownFigure",
    "figures_in",
    "plot_contributions",
    "plot_explanation",
    "plot_heads",
    "plot_heat_table",
    "plot_overview",
    "plot_probes",
    "plot_result",
    "save_figure",
    "show_figure",
]
