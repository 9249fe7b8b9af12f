"""One offline HTML page for a run: figures, tables, methods and provenance."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classspace_widgets.packed import packed_scripts
from classspace_widgets.progress import over
from classspace_widgets.studies.findings import findings

if TYPE_CHECKING:
    import pandas as pd

    from classspace_widgets.studies.results import StudyResult, StudyResults

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1240px; margin: 2em auto; padding: 0 1em;
       background: Canvas; color: CanvasText; }
h2 { margin-top: 2.2em; border-bottom: 1px solid #8888; padding-bottom: .15em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .15em .7em; text-align: right; border-bottom: 1px solid #8883; }
th { position: sticky; top: 0; background: Canvas; }
.scroll { overflow: auto; max-height: 26em; }
.method, .quantity { max-width: 70em; }
.note { font-style: italic; }
pre { overflow: auto; font-size: 12px; }
summary { cursor: pointer; }
nav { display: flex; flex-wrap: wrap; gap: .1em 1em; margin-top: 1em; }
nav a { white-space: nowrap; }
.figure { overflow-x: auto; }
.findings td, .findings th { text-align: left; vertical-align: top; }
@media print { .scroll { max-height: none; } }
"""


def write_report(
    results: StudyResults, path: str | Path, *, title: str = "Studies in class embedding space", text: str = ""
) -> Path:
    """Write one HTML file that needs no network: figures, tables, method text, provenance, skipped pictures.

    Parameters
    ----------
    results : StudyResults
    path : path
    title : str
    text : str
        Paragraphs to put in front, separated by empty lines (plain text).

    Returns
    -------
    Path

    Examples
    --------
    >>> import tempfile
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> from classspace_widgets.studies import run_study
    >>> results = run_study(ClassSpace.bundled(), ScenesDataset(4, seed=2), "accuracy", progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(results, f"{folder}/report.html").name
    'report.html'
    """
    page = report_html(results, title=title, text=text)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")
    return target


def report_html(results: StudyResults, *, title: str = "Studies in class embedding space", text: str = "") -> str:
    """The page that `write_report` writes."""
    from bokeh.embed import components
    from bokeh.resources import Resources

    from classspace_widgets.plots import plot_result

    if not len(results):
        raise ValueError("there is no result to report")
    # The figures need no widgets, tables and formulas of BokehJS, which are three quarters of it.
    library = Resources(mode="inline", components=["bokeh"]).js_raw
    drawn = {
        name: components(plot_result(result), wrap_script=False)
        for name, result in over(results.items(), len(results), "report", "study")
    }
    links = "".join(f'<a href="#{_e(name)}">{_e(result.title)}</a>' for name, result in results.items())
    sections = "".join(_section(result, drawn[name][1]) for name, result in results.items())
    scripts = packed_scripts([*library, *(script for script, _ in drawn.values())])
    paragraphs = "".join(f"<p>{_e(p)}</p>" for p in text.split("\n\n") if p.strip())
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_e(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{_e(title)}</h1>{_summary(results)}{paragraphs}{_findings(results)}<nav>{links}</nav>{sections}"
        f"<h2>Provenance</h2><pre>{_e(json.dumps(results.provenance, indent=2))}</pre>{scripts}</body></html>\n"
    )


def _findings(results: StudyResults) -> str:
    rows = "".join(
        f"<tr><td>{'holds' if f.holds else '<b>does not hold</b>'}</td><td>{_e(f.claim)}</td><td>{_e(f.evidence)}</td></tr>"
        for f in findings(results)
    )
    if not rows:
        return ""
    return (
        "<h2>What the paper found, and what is found here</h2>"
        '<table class="findings"><tr><th></th><th>finding</th><th>numbers</th></tr>' + rows + "</table>"
    )


def _section(result: StudyResult, figure: str) -> str:
    notes = "".join(f'<p class="note">{_e(note)}</p>' for note in result.notes)
    main = result.table
    tables = {"Values": main[main["outcome"] == "all"] if "outcome" in main.columns else main}
    if "outcome" in main.columns:
        tables["Values, correct against misclassified pictures"] = main[main["outcome"] != "all"]
    tables |= {name.replace("_", " "): t for name, t in result.tables.items() if name not in ("main", "by_class")}
    shown = "".join(_table(name, table) for name, table in tables.items() if len(table))
    return (
        f'<section id="{_e(result.name)}"><h2>{_e(result.title)}</h2>'
        f'<p class="quantity"><b>{_e(result.quantity)}.</b></p><p class="method">{_e(result.method)}</p>{notes}'
        f'<div class="figure">{figure}</div>{shown}</section>'
    )


def _table(name: str, table: pd.DataFrame) -> str:
    body = table.to_html(index=False, border=0, na_rep="", float_format=lambda v: f"{v:.4g}", justify="right")
    return f'<details><summary>{_e(name)} ({len(table)} rows)</summary><div class="scroll">{body}</div></details>'


def _summary(results: StudyResults) -> str:
    said = results.provenance
    line = f"{said.get('pictures', '?')} pictures of {said.get('data', '?')}, model {said.get('model', '?')}"
    if said.get("finished"):
        line += f", {said['finished']}"
    skipped = ""
    if results.skipped:
        rows = "".join(f"<li>picture {i}: {_e(why)}</li>" for i, why in results.skipped)
        skipped = f"<details><summary>{len(results.skipped)} pictures were skipped</summary><ul>{rows}</ul></details>"
    return f"<p>{_e(line)}. Solid lines: the model, with bootstrap intervals; dashed: its random control.</p>{skipped}"


def _e(text: Any) -> str:
    return html.escape(str(text))
