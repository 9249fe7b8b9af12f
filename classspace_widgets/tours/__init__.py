"""Guided tours: short stories that point at a control of the explorer, wait until the reader has used it, and go on.

A tour is a Markdown file that a teacher can write; two come with the package (`BUNDLED`).  `read_tour` reads one, and
``Explorer(tour=...)``, ``export_html(tour=...)`` and ``classspace export --tour`` show it.

`vocabulary` is the one list of the controls that can be pointed at and of what can be waited for, in Python and in the
browser; `conditions` and `text` read the parts of a step, `parse` the file, `tour` is the result.
"""

from classspace_widgets.tours.parse import BUNDLED, read_tour
from classspace_widgets.tours.parse import as_tours as as_tours
from classspace_widgets.tours.tour import Step, Tour

__all__ = ["BUNDLED", "Step", "Tour", "read_tour"]
