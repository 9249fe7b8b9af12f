"""The figure of a report on lenses."""

from __future__ import annotations

import pandas as pd
from bokeh.models import ColumnDataSource

from classspace_widgets.plots import plot_lens_report
from classspace_widgets.studies import LensReport


def test_every_measure_has_a_panel_and_the_random_push_is_dashed():
    rows = [
        (lens, block, "image", measure, 0.1 * block, 0.0, 1.0, 5)
        for lens in ("logit", "jacobian")
        for block in range(3)
        for measure in ("agreement", "divergence", "average precision")
    ]
    rows += [("jacobian", b, "image", m, 1.0, 0.9, 1.1, 5) for b in range(3) for m in ("promise slope", "random slope")]
    rows = [("trained", *row) for row in rows]
    rows += [("random", "jacobian", b, "image", "agreement", 0.5, 0.4, 0.6, 5) for b in range(3)]
    columns = ["weights", "lens", "block", "tokens", "measure", "value", "low", "high", "count"]
    report = LensReport(pd.DataFrame(rows, columns=columns), 5)
    figures = plot_lens_report(report).children
    assert [figure.title.text for figure in figures] == ["promise slope", "agreement", "average precision"]
    dashes = [renderer.glyph.line_dash for renderer in figures[0].renderers if hasattr(renderer.glyph, "line_dash")]
    series = {item.label.value for item in figures[1].legend[0].items} if figures[1].legend else set()
    shown = series | {str(source.data) for source in figures[1].select({"type": ColumnDataSource})}
    assert any("jacobian, random twin" in words for words in shown)
    assert [6] in dashes or "dashed" in dashes
    assert list(report.table["measure"].unique())[-1] == "random slope"  # the report itself is left as it was
