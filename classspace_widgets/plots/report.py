"""One offline HTML page for a run: figures, tables, methods and provenance."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classspace_widgets.export.packed import UNPACK, packed_scripts, policy
from classspace_widgets.files import write_whole
from classspace_widgets.progress import over, quiet
from classspace_widgets.studies.findings import findings

if TYPE_CHECKING:
    import pandas as pd

    from classspace_widgets.studies.results import StudyResult, StudyResults

_STYLE = """
:root { color-scheme: light dark; --page: light-dark(#fff, #14171a); --ink: light-dark(#1a1d21, #e6e9ec);
  --quiet: light-dark(#626a73, #98a1ab); --rule: light-dark(#dfe3e8, #2b3137); --link: light-dark(#1a5fb4, #7fb2f0); }
body { font: 15px/1.55 system-ui, sans-serif; max-width: 1240px; margin: 2rem auto 4rem; padding: 0 1rem;
  background: var(--page); color: var(--ink); }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .4em; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 3rem 0 .4em; }
p { max-width: 46rem; margin: .4em 0; }
a { color: var(--link); }
.about, .method, .note, summary { color: var(--quiet); }
.quantity { font-weight: 600; }
.note { font-style: italic; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .25em .8em; text-align: right; border-bottom: 1px solid var(--rule); }
th { position: sticky; top: 0; background: var(--page); color: var(--quiet); font-weight: 400; }
.scroll { overflow: auto; max-height: 26em; margin: .4em 0 1em; }
.findings td, .findings th { text-align: left; vertical-align: top; }
.findings td:first-child { padding-left: 0; white-space: nowrap; }
.findings td:last-child { color: var(--quiet); }
pre { overflow: auto; font-size: 12px; line-height: 1.45; }
summary { cursor: pointer; font-size: 13px; line-height: 1.8; }
nav { display: flex; flex-wrap: wrap; gap: .1em 1.1em; margin-top: 1.5rem; }
nav a { white-space: nowrap; }
.figure { overflow-x: auto; margin: 1rem 0 .5rem; }
@media print { :root { color-scheme: light; } .scroll { max-height: none; } section { break-inside: avoid; } }
"""


def write_report(
    results: StudyResults,
    path: str | Path,
    *,
    title: str = "Studies in class embedding space",
    text: str = "",
    progress: bool = True,
) -> Path:
    """Write one HTML file that needs no network: figures, tables, method text, provenance, skipped pictures.

    Parameters
    ----------
    results : StudyResults
    path : path
    title : str
    text : str
        Introductory paragraphs, separated by empty lines (plain text).
    progress : bool
        Show a progress bar after a second.

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
    with quiet(not progress):
        page = report_html(results, title=title, text=text)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(target, page.encode("utf-8", errors="replace"))


def report_html(results: StudyResults, *, title: str = "Studies in class embedding space", text: str = "") -> str:
    """The page that `write_report` writes."""
    from bokeh.embed import components
    from bokeh.resources import Resources

    from classspace_widgets.plots import plot_result

    if not len(results):
        raise ValueError("there are no results to report")
    # Without the widgets, tables and formulas of BokehJS, which the figures do not use: three quarters of its size.
    library = Resources(mode="inline", components=["bokeh"]).js_raw
    drawn = {
        name: components(plot_result(result), wrap_script=False)
        for name, result in over(results.items(), len(results), "report", "study")
    }
    links = "".join(f'<a href="#{_e(name)}">{_e(result.title)}</a>' for name, result in results.items())
    sections = "".join(_section(result, drawn[name][1]) for name, result in results.items())
    scripts = [*library, *(script for script, _ in drawn.values())]
    paragraphs = "".join(f"<p>{_e(p)}</p>" for p in text.split("\n\n") if p.strip())
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_e(policy([*scripts, UNPACK]))}"><title>{_e(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{_e(title)}</h1>{_summary(results)}{paragraphs}{_findings(results)}<nav>{links}</nav>{sections}"
        f"<h2>Provenance</h2><details><summary>Versions, seeds and settings</summary><pre>{_e(_json_lines(results.provenance))}</pre>"
        f"</details>{packed_scripts(scripts)}</body></html>\n"
    )


def _findings(results: StudyResults) -> str:
    rows = "".join(
        f"<tr><td>{'holds' if f.holds else '<b>does not hold</b>'}</td><td>{_e(f.claim)}</td><td>{_e(f.evidence)}</td></tr>"
        for f in findings(results)
    )
    if not rows:
        return ""
    return (
        "<h2>The paper's findings, tested here</h2>"
        '<table class="findings"><tr><th></th><th>finding</th><th>numbers</th></tr>' + rows + "</table>"
    )


def _section(result: StudyResult, figure: str) -> str:
    notes = "".join(f'<p class="note">{_e(note)}</p>' for note in result.notes)
    main = result.table
    tables = {"Values": main[main["outcome"] == "all"] if "outcome" in main.columns else main}
    if "outcome" in main.columns:
        tables["Values, correct against misclassified pictures"] = main[main["outcome"] != "all"]
    others = {name: t for name, t in result.tables.items() if name not in ("main", "by_class")}
    if "twins" in others and "outcome" in others["twins"].columns:
        # Several times as many rows as the main table; those by outcome are in the results' file.
        others["twins"] = others["twins"][others["twins"]["outcome"] == "all"]
    tables |= {name.replace("_", " "): t for name, t in others.items()}
    shown = "".join(_table(name, table) for name, table in tables.items() if len(table))
    return (
        f'<section id="{_e(result.name)}"><h2>{_e(result.title)}</h2>'
        f'<p class="quantity">{_e(result.quantity)}.</p><p class="method">{_e(result.method)}</p>{notes}'
        f'<div class="figure">{figure}</div>{shown}</section>'
    )


def _table(name: str, table: pd.DataFrame) -> str:
    body = table.to_html(index=False, border=0, na_rep="", float_format=lambda v: f"{v:.4g}", justify="right")
    return f'<details><summary>{_e(name)} ({len(table)} rows)</summary><div class="scroll">{body}</div></details>'


def _json_lines(value: Any, indent: str = "") -> str:
    """JSON with one line for every name; lists of plain values stay on one line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    inner = indent + "  "
    entries = ",\n".join(f"{inner}{json.dumps(str(k))}: {_json_lines(v, inner)}" for k, v in value.items())
    return f"{{\n{entries}\n{indent}}}"


def _summary(results: StudyResults) -> str:
    provenance = results.provenance
    line = f"{provenance.get('pictures', '?')} pictures of {provenance.get('data', '?')}, model {provenance.get('model', '?')}"
    if provenance.get("finished"):
        line += f", {provenance['finished'][:10]}"
    skipped = ""
    if results.skipped:
        rows = "".join(f"<li>picture {i}: {_e(why)}</li>" for i, why in results.skipped)
        skipped = f"<details><summary>{len(results.skipped)} pictures were skipped</summary><ul>{rows}</ul></details>"
    return f'<p class="about">{_e(line)}. Solid lines: the model, with bootstrap intervals; dashed: its random control (the mean, where there are several twins).</p>{skipped}'


def _e(text: Any) -> str:
    return html.escape(str(text))
