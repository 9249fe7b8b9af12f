"""Results of studies: tidy tables with their provenance, saved in one file."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from classspace_widgets.files import deflated, inflated, parsed, refusing, write_whole
from classspace_widgets.lookup import items_of
from classspace_widgets.validate import Fields, skipped_pictures

FORMAT = 1


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Made by `run_study` and `Study.result`.

    Attributes
    ----------
    name, title : str
    tables : dict of str to DataFrame
        ``"main"`` has one row for each measured value: its labels, ``value``, the interval ``low``..``high`` and
        ``count``, the denominator. ``weights`` is ``"trained"`` or, for the random control, ``"random"``.
    quantity : str
        Meaning of ``value``, with its range.
    method : str
        One paragraph: definition and source.
    provenance : dict
        Model, data, versions, seed.
    notes : tuple of str
        Remarks that a reader of this result needs.
    chance : float or None
        The value at chance, if it is the same for all rows; figures draw it as a line.
    """

    name: str
    title: str
    tables: dict[str, pd.DataFrame]
    quantity: str = ""
    method: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    chance: float | None = None

    @property
    def table(self) -> pd.DataFrame:
        """The main table."""
        return self.tables["main"]

    def where(self, **conditions: Any) -> pd.DataFrame:
        """Rows of the main table, such as ``result.where(stream="residual", tokens="[CLS]")``.

        Parameters
        ----------
        **conditions
            For a column, the value that rows must have, or a list of allowed values.

        Raises
        ------
        KeyError
            For an unknown column.
        ValueError
            For a value that does not occur in its column.
        """
        found = rows_where(self.table, **conditions)
        for column, wanted in conditions.items():
            known = self.table[column].unique().tolist()
            for value in items_of(wanted)[0]:
                if value not in known:
                    raise ValueError(
                        f"{column} is never {value!r} in {self.name}; its values are {', '.join(map(repr, known))}"
                    )
        return found

    def save(self, path: str | Path) -> Path:
        """Write one compressed JSON file (usually ``.study.json.gz``)."""
        return _write(path, {"format": FORMAT, "kind": "result", **_to_dict(self)})

    @classmethod
    def load(cls, path: str | Path) -> StudyResult:
        """Read a file that `save` wrote; raises `ValueError` for any other file."""
        content = _read(path, "result")
        with refusing(ValueError, f"{path} is a damaged file of study results"):
            return _from_dict(Fields(content))

    def __repr__(self) -> str:
        return f"StudyResult({self.name}: {len(self.table)} rows, tables {', '.join(self.tables)})"

    def _repr_html_(self) -> str:
        return _html(self)


@dataclass(frozen=True)
class StudyResults(Mapping[str, StudyResult]):
    """Results of one run by name, with the pictures that were skipped and why.

    Made by `run_study` and `StudyResults.load`.

    Attributes
    ----------
    results : dict of str to StudyResult
    skipped : tuple of (index, reason)
        Pictures that could not be read.
    provenance : dict
    """

    results: dict[str, StudyResult]
    skipped: tuple[tuple[int, str], ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> StudyResult:
        try:
            return self.results[name]
        except KeyError:
            raise KeyError(f"no study named {name!r} in these results; they are {', '.join(self.results)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def save(self, path: str | Path) -> Path:
        """Write all results to one compressed JSON file."""
        content = {
            "format": FORMAT,
            "kind": "results",
            "results": [_to_dict(r) for r in self.results.values()],
            "skipped": [list(s) for s in self.skipped],
            "provenance": self.provenance,
        }
        return _write(path, content)

    @classmethod
    def load(cls, path: str | Path) -> StudyResults:
        """Read a file that `save` wrote; raises `ValueError` for any other file."""
        content = _read(path, "results")
        with refusing(ValueError, f"{path} is a damaged file of study results"):
            results = [_from_dict(result) for result in Fields(content).objects("results")]
            return cls(
                {r.name: r for r in results},
                skipped_pictures(content.get("skipped")),
                Fields(content).named("provenance"),
            )

    def __repr__(self) -> str:
        skipped = f", {len(self.skipped)} pictures skipped" if self.skipped else ""
        return f"StudyResults({', '.join(self.results)}{skipped})"

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.results)

    def _repr_html_(self) -> str:
        skipped = ""
        if self.skipped:
            rows = "".join(f"<li>{i}: {html.escape(why)}</li>" for i, why in self.skipped[:20])
            more = "<li>...</li>" if len(self.skipped) > 20 else ""
            skipped = f"<details><summary>{len(self.skipped)} skipped pictures</summary><ul>{rows}{more}</ul></details>"
        parts = "".join(
            f"<details><summary><b>{html.escape(r.title)}</b></summary>{_html(r, heading=False)}</details>"
            for r in self.results.values()
        )
        return f"<div>{_provenance_line(self.provenance)}{skipped}{parts}</div>"


def rows_where(table: pd.DataFrame, **conditions: Any) -> pd.DataFrame:
    """Rows of a table where every given column has the given value, or one of a list of values."""
    keep = np.ones(len(table), bool)
    for column, wanted in conditions.items():
        if column not in table.columns:
            raise KeyError(f"no column {column!r}; the columns are {', '.join(table.columns)}")
        keep &= table[column].isin(items_of(wanted)[0]).to_numpy()
    return table.loc[keep]


def _to_dict(result: StudyResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "title": result.title,
        "quantity": result.quantity,
        "method": result.method,
        "provenance": result.provenance,
        "notes": list(result.notes),
        "tables": {name: _columns(table) for name, table in result.tables.items()},
        **({} if result.chance is None else {"chance": result.chance}),
    }


def _from_dict(fields: Fields) -> StudyResult:
    tables = {name: _table(Fields({"columns": columns})) for name, columns in fields.named("tables").items()}
    if "main" not in tables:
        raise ValueError(f"the result {fields.text('name')!r} has no table 'main'")
    return StudyResult(
        fields.text("name"),
        fields.text("title"),
        tables,
        fields.text("quantity"),
        fields.text("method"),
        fields.named("provenance"),
        tuple(fields.texts("notes")),
        fields.number("chance") if fields.has("chance") else None,
    )


_TYPES: dict[str, tuple[type, ...]] = {
    "int64": (int,),
    "float64": (int, float, type(None)),
    "bool": (bool,),
    "str": (str,),
}
"""The types of columns, and the Python types of their values after reading JSON."""


def _table(fields: Fields) -> pd.DataFrame:
    columns = {}
    for column in fields.objects("columns"):
        kind, values = column.one_of("dtype", tuple(_TYPES)), column.value("values")
        if not isinstance(values, list) or not all(type(v) in _TYPES[kind] for v in values):
            raise ValueError(f"the column {column.text('name')!r} contains something other than {kind}")
        columns[column.text("name")] = pd.Series(values, dtype=kind)
    if len({len(series) for series in columns.values()}) > 1:
        raise ValueError("the columns of a table differ in length")
    return pd.DataFrame(columns)


def _columns(table: pd.DataFrame) -> list[dict[str, Any]]:
    columns = []
    for name in table.columns:
        series = table[name]
        kind = series.dtype.kind if isinstance(series.dtype, np.dtype) else "O"
        dtype = {"i": "int64", "u": "int64", "f": "float64", "b": "bool"}.get(kind, "str")
        values: list[Any] = [str(v) for v in series] if dtype == "str" else series.to_list()
        if dtype == "float64":
            values = [None if v != v else float(v) for v in values]
        columns.append({"name": str(name), "dtype": dtype, "values": values})
    return columns


def _write(path: str | Path, content: dict[str, Any]) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(target, deflated(json.dumps(content, allow_nan=False).encode()))


def _read(path: str | Path, kind: str) -> dict[str, Any]:
    data = Path(path).read_bytes()
    with refusing(ValueError, f"{path} is not a file of study results"):
        content: dict[str, Any] = parsed(inflated(data))
    if not isinstance(content, dict) or content.get("kind") != kind:
        found = content.get("kind") if isinstance(content, dict) else type(content).__name__
        hint = (
            f"use Study{found.capitalize()}.load" if found in ("result", "results") else "it is a file of another kind"
        )
        raise ValueError(f"{path} contains {str(found)[:60]!r}, expected {kind!r}; {hint}")
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {str(content.get('format'))[:60]}, this version reads {FORMAT}; update classspace_widgets"
        )
    return content


def _provenance_line(provenance: dict[str, Any]) -> str:
    shown = ", ".join(f"{k}: {v}" for k, v in provenance.items() if not isinstance(v, (dict, list)))
    return f"<p style='opacity:.75;font-size:90%'>{html.escape(shown)}</p>"


def _html(result: StudyResult, *, heading: bool = True) -> str:
    head = f"<h4 style='margin:.3em 0'>{html.escape(result.title)}</h4>" if heading else ""
    notes = "".join(f"<p><i>{html.escape(note)}</i></p>" for note in result.notes)
    table = result.table
    if "outcome" in table.columns:
        table = table[table["outcome"] == "all"]
    shown = table.head(30).to_html(index=False, border=0, float_format=lambda v: f"{v:.4g}", na_rep="")
    more = f"<p>{len(table) - 30} more rows in <code>.table</code></p>" if len(table) > 30 else ""
    others = ", ".join(name for name in result.tables if name != "main")
    others = f"<p>Further tables: <code>{html.escape(others)}</code></p>" if others else ""
    return (
        f"<div>{head}<p>{html.escape(result.quantity)}. {html.escape(result.method)}</p>{notes}"
        f"{shown}{more}{others}{_provenance_line(result.provenance)}</div>"
    )
