"""Accuracy of linear probes over the blocks, compared with that of the lens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from classspace_widgets.plots.results import plot_result
from classspace_widgets.studies.results import StudyResult

if TYPE_CHECKING:
    import pandas as pd


def plot_probes(
    accuracy: pd.DataFrame, *, control: pd.DataFrame | None = None, width: int = 380, height: int = 300
) -> Any:
    """Accuracy of probes and lens by block, a panel for every stream.

    Parameters
    ----------
    accuracy : DataFrame
        From `probing.probe_accuracy`.
    control : DataFrame, optional
        The same table of a random twin, drawn with dashed lines.
    width, height : int
        Of one panel, in pixels.

    Returns
    -------
    bokeh figure, or row of figures

    Examples
    --------
    >>> import pandas as pd
    >>> rows = [(b, "residual", "image", reading, 0.1 * b, 10) for b in range(4) for reading in ("probe", "lens")]
    >>> names = ["block", "stream", "tokens", "reading", "value", "count"]
    >>> type(plot_probes(pd.DataFrame(rows, columns=names))).__name__
    'figure'
    """
    import pandas as pd

    for table in (accuracy, control):
        if table is not None and not {"reading", "tokens", "stream"} <= set(getattr(table, "columns", ())):
            raise TypeError(f"expected the table that probing.probe_accuracy returns, got {type(table).__name__}")
    parts = [accuracy.assign(weights="trained")]
    if control is not None:
        parts.append(control.assign(weights="random"))
    table = pd.concat(parts, ignore_index=True)
    table = table.assign(curve=table["reading"] + ", " + table["tokens"])
    result = StudyResult("probes", "Accuracy of probes and lens", {"main": table})
    return plot_result(result, panel="stream", series="curve", width=width, height=height)
