"""Jupyter widgets: one `Session`, many views.

The public names are imported when first used: `state` says what travels in an exported page, and needs no anywidget.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classspace_widgets.widgets.check import check_front_end
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
    "check_front_end",
    "link",
]

_HOME = {"check_front_end": "check", "link": "linking", "MemoryBrowser": "memories", "Session": "session"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME.get(name, 'views')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
