"""Bokeh figures of results: curves with bands and their random control, heat tables, and an overview.

Every function returns ordinary Bokeh objects. Backgrounds are transparent and inks are of middle lightness, so that a
figure is legible on light and dark pages alike.
"""

from classspace_widgets.plots.explanation import plot_explanation
from classspace_widgets.plots.files import figures_in, save_figure
from classspace_widgets.plots.heat import plot_heat_table
from classspace_widgets.plots.probes import plot_probes
from classspace_widgets.plots.results import plot_overview, plot_result

__all__ = [
    "figures_in",
    "plot_explanation",
    "plot_heat_table",
    "plot_overview",
    "plot_probes",
    "plot_result",
    "save_figure",
]
