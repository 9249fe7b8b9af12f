"""What every widget of the package is: one that leaves nothing behind when it is closed."""

from __future__ import annotations

import inspect
from typing import Any

import anywidget
import traitlets as t
from ipywidgets import Layout


class Widget(anywidget.AnyWidget):  # type: ignore[misc]
    """An anywidget that takes its own layout along when it is closed; one that was given to it is left alone."""

    _own_layout: Any = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Show the parameters of ``__init__`` in help and completion: Python 3.10 takes those of traitlets' ``__new__``."""
        super().__init_subclass__(**options)
        of_init = inspect.signature(cls.__init__)
        cls.__signature__ = of_init.replace(parameters=list(of_init.parameters.values())[1:])

    @t.default("layout")
    def _make_layout(self) -> Any:
        self._own_layout = Layout()
        return self._own_layout

    def close(self) -> None:
        """Close the widget; its layout is a widget of its own, which would stay."""
        super().close()
        if self._own_layout is not None:
            self._own_layout.close()
            self._own_layout = None
