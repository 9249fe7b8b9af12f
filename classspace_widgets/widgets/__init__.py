"""Jupyter widgets: one `Session`, many views."""

from classspace_widgets.widgets.linking import link
from classspace_widgets.widgets.memories import MemoryBrowser
from classspace_widgets.widgets.session import Session
from classspace_widgets.widgets.views import (
    ClassPicker,
    ContributionBars,
    Explorer,
    HeadGrid,
    LayerSlider,
    PatchHeatmap,
    TokenTrajectories,
    TopClasses,
    View,
)

__all__ = [
    "ClassPicker",
    "ContributionBars",
    "Explorer",
    "HeadGrid",
    "LayerSlider",
    "MemoryBrowser",
    "PatchHeatmap",
    "Session",
    "TokenTrajectories",
    "TopClasses",
    "View",
    "link",
]
