"""How far lenses can be trusted, over the blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from classspace_widgets.plots.results import plot_result
from classspace_widgets.studies.results import StudyResult

if TYPE_CHECKING:
    from classspace_widgets.studies.trust import LensReport

SHOWN = ("promise slope", "agreement", "average precision", "identifiability, object", "identifiability, context")
"""Measures that have a panel, in order, where the report has them; divergence is in nats, and stays in the table."""


def plot_lens_report(report: LensReport, *, width: int = 300, height: int = 260) -> Any:
    """Trust in lenses by block, a panel for every measure and a curve with its interval for every lens.

    The dashed curve beside a Jacobian's promise is that of random directions. Lenses of a random twin have curves of their own.

    Parameters
    ----------
    report : LensReport
        From `studies.lens_report`.
    width, height : int
        Of one panel, in pixels.

    Returns
    -------
    row of bokeh figures

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> from classspace_widgets.studies import lens_report
    >>> space = ClassSpace.bundled("contrast")
    >>> report = lens_report(space, space.bundled_lens("jacobian"), ScenesDataset(4, seed=5), promises=0, progress=False)
    >>> type(plot_lens_report(report)).__name__
    'Row'
    """
    table = report.table.assign(stream="residual")
    twin = table["weights"] == "random"
    table.loc[twin, "lens"] += ", random twin"
    table["weights"] = "trained"
    pushed = table["measure"] == "random slope"
    table.loc[pushed, ["measure", "weights"]] = "promise slope", "random"
    parts = [table[table["measure"] == measure] for measure in SHOWN]
    shown = pd.concat([part for part in parts if len(part)], ignore_index=True)
    result = StudyResult("lenses", "How far lenses can be trusted", {"main": shown})
    return plot_result(result, panel="measure", series="lens", width=width, height=height)
