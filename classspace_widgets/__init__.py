"""Watch a vision transformer make up its mind: every intermediate representation of a ViT, read as classes.

The public names below are imported when first used, so that importing the package needs neither torch, bokeh nor
anywidget.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from classspace_widgets._version import __version__

if TYPE_CHECKING:
    from classspace_widgets.snapshot.snapshot import Snapshot
    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.trace import Trace

_HOME = {
    "ClassSpace": "space",
    "Trace": "trace",
    "Snapshot": "snapshot",
    "Session": "widgets",
    "Explorer": "widgets",
    "LayerSlider": "widgets",
    "PatchHeatmap": "widgets",
    "ContributionBars": "widgets",
    "ClassPicker": "widgets",
    "TopClasses": "widgets",
    "TokenTrajectories": "widgets",
    "HeadGrid": "widgets",
    "MemoryBrowser": "widgets",
    "link": "widgets",
    "check_front_end": "widgets",
    "export_html": "export",
    "show_progress": "progress",
}

_MODULES = (
    "causal",
    "data",
    "explain",
    "export",
    "fitting",
    "interventions",
    "lens",
    "memories",
    "metrics",
    "models",
    "nearest",
    "plots",
    "points",
    "probing",
    "progress",
    "scenes",
    "snapshot",
    "space",
    "studies",
    "tours",
    "trace",
    "widgets",
)

__all__ = ["ClassSpace", "Snapshot", "Trace", "__version__"]
__all__ += [name for name in _HOME if name not in __all__]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"classspace_widgets.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"classspace_widgets.{name}")
    raise AttributeError(f"module 'classspace_widgets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES})
