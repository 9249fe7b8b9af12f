"""What the paper found, held against the numbers of a run: which findings hold here, and which do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from classspace_widgets.studies.results import rows_where

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

    from classspace_widgets.studies.results import StudyResult

    Row = Mapping[str, Any]

LEVEL = 0.05
"""Of the tests."""


@dataclass(frozen=True)
class Finding:
    """One finding, and whether it holds in a run.

    Made by `findings`.

    Attributes
    ----------
    claim : str
        What would be found, in one sentence.
    source : str
        The paper's measurement that it is about.
    holds : bool
        Whether the intervals (or the test) of this run say so.
    evidence : str
        The numbers, with their random control where the run has one.
    """

    claim: str
    source: str
    holds: bool
    evidence: str

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'does not hold'}: {self.claim} ({self.evidence})"


def findings(results: Mapping[str, StudyResult]) -> tuple[Finding, ...]:
    """Hold the results of a run against the paper's qualitative findings.

    Parameters
    ----------
    results : StudyResults, or mapping of name to StudyResult
        Findings whose study is not among them, or whose pictures are not (no masks, nothing misclassified), are left
        out.

    Returns
    -------
    tuple of Finding

    Notes
    -----
    "Higher" means that the 95 % intervals do not overlap, or that the study's own test says so at 0.05.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> from classspace_widgets.studies import run_study
    >>> results = run_study(ClassSpace.bundled(), ScenesDataset(8, seed=2), "identifiability", random_twin=True, progress=False)
    >>> findings(results)[0].claim
    "The class becomes more identifiable in image tokens from the first block's input to the last block's output"
    """
    found = []
    for name, judge in JUDGES:
        if name in results:
            found += judge(results[name])
    return tuple(found)


def _rise(result: StudyResult) -> list[Finding]:
    rows = rows_where(result.table, stream="residual", tokens="image", outcome="all")
    first, last = _ends(rows)
    if first is None or last is None:
        return []
    control = _ends(rows, "random")
    said = f"{_ci(first)} at the embedding, {_ci(last)} after block {last['block']}"
    if control[0] is not None and control[1] is not None:
        said += f"; random control {control[0]['value']:.3f} to {control[1]['value']:.3f}"
    claim = (
        "The class becomes more identifiable in image tokens from the first block's input to the last block's output"
    )
    return [Finding(claim, "class identifiability", bool(last["low"] > first["high"]), said)]


def _place(result: StudyResult) -> list[Finding]:
    rows = rows_where(result.table, stream="residual")
    _, last = _ends(rows)
    if last is None:
        return []
    _, control = _ends(rows, "random")
    said = f"{last['class']:.3f} against {last['context']:.3f}, difference {_ci(last)}, p = {last['p_pictures']:.3g} over pictures"
    if control is not None:
        said += f"; random control {control['value']:+.3f}"
    holds = bool(last["low"] > 0 and last["p_pictures"] < LEVEL)
    claim = "In the last block tokens of the object are more identifiable than tokens of its context"
    return [Finding(claim, "identifiability by place", holds, said)]


def _values(result: StudyResult) -> list[Finding]:
    tests = result.tables.get("wilcoxon")
    if tests is None or not len(tests):
        return []
    made = []
    for stream, rows in tests.groupby("stream", sort=False):
        last = rows.sort_values("block").iloc[-1]
        said = f"difference of the mean cosine {last['difference']:+.3f}, Wilcoxon p = {last['p']:.2g}"
        claim = f"Value vectors of the last block's {_name(stream)} agree more with class embeddings than those of random weights"
        made.append(Finding(claim, "class-value agreement", bool(last["p"] < LEVEL and last["difference"] > 0), said))
    return made


def _keys(result: StudyResult) -> list[Finding]:
    made = []
    for stream in dict.fromkeys(result.table["stream"]):
        rows = rows_where(result.table, stream=stream, tokens="image")
        _, own = _ends(rows_where(rows, outcome="all"))
        _, control = _ends(rows_where(rows, outcome="all"), "random")
        if own is not None and control is not None:
            said = f"{_ci(own)} in the last block; random control {_ci(control)}"
            claim = f"The {_name(stream)} of the last block activates memories of the class more often than random weights do"
            made.append(Finding(claim, "key-value agreement", bool(own["low"] > control["high"]), said))
        _, right = _ends(rows_where(rows, outcome="correct"))
        _, wrong = _ends(rows_where(rows, outcome="misclassified"))
        if right is not None and wrong is not None:
            said = f"{_ci(right)} where the answer is right, {_ci(wrong)} where it is wrong"
            claim = f"Memories of the class are activated more in the {_name(stream)} where the model answers rightly"
            made.append(Finding(claim, "key-value agreement", bool(right["low"] > wrong["high"]), said))
    return made


def _attention(result: StudyResult) -> list[Finding]:
    rows = {
        name: _row(
            rows_where(
                result.table,
                weights="trained",
                measure="identifiability",
                tokens="image",
                outcome="all",
                condition=name,
            )
        )
        for name in ("none", "no_cls", "self_only")
    }
    whole, alone, without = rows["none"], rows["self_only"], rows["no_cls"]
    if whole is None or alone is None or without is None:
        return []
    made = [
        Finding(
            "Image tokens lose identifiability of the class when they may read nothing but themselves",
            "attention perturbation",
            bool(alone["high"] < whole["low"]),
            f"{_ci(whole)} as it is, {_ci(alone)} cut off; without reading [CLS] {_ci(without)}",
        ),
        Finding(
            "What image tokens read from each other matters more to them than what they read from [CLS]",
            "attention perturbation",
            bool(alone["high"] < without["low"]),
            f"{_ci(without)} without [CLS], {_ci(alone)} without one another",
        ),
    ]
    answers = [
        _row(rows_where(result.table, weights="trained", measure="accuracy", outcome="all", condition=name))
        for name in rows
    ]
    if answers[0] is not None and answers[2] is not None:
        said = f"{_ci(answers[0])} as it is, {_ci(answers[2])} when image tokens read only themselves"
        claim = "The model answers worse when image tokens may read nothing but themselves"
        made.append(Finding(claim, "attention perturbation", bool(answers[2]["high"] < answers[0]["low"]), said))
    return made


def _removal(result: StudyResult) -> list[Finding]:
    accuracy = {"weights": "trained", "measure": "accuracy", "outcome": "all"}
    whole, object_gone, context_gone = (
        _row(rows_where(result.table, condition=name, **accuracy))
        for name in ("none", "class removed", "context removed")
    )
    if whole is None or object_gone is None or context_gone is None:
        return []
    said = (
        f"accuracy {_ci(whole)} as it is, {_ci(object_gone)} without the object's tokens, "
        f"{_ci(context_gone)} without the context's"
    )
    claim = "The answer suffers more from the loss of the object's tokens than from the loss of its context's"
    return [Finding(claim, "token removal", bool(object_gone["high"] < context_gone["low"]), said)]


def _explanation(result: StudyResult) -> list[Finding]:
    """The paper's gradient against every other method, by the two areas."""
    made = []
    for order, better in (("negative", 1), ("positive", -1)):
        rows = rows_where(result.table, weights="trained", outcome="all", measure=f"{order} accuracy area")
        own = _row(rows_where(rows, method="gradient"))
        for method in dict.fromkeys(rows["method"]):
            other = _row(rows_where(rows, method=method))
            if own is None or other is None or str(method).startswith("gradient"):
                continue
            ahead = own["low"] > other["high"] if better > 0 else own["high"] < other["low"]
            said = f"{_ci(own)} against {_ci(other)}; {'higher' if better > 0 else 'lower'} is better"
            claim = f"The gradient of the class reading beats {method} in the {order} perturbation test"
            made.append(Finding(claim, "perturbation test", bool(ahead), said))
    return made


JUDGES: tuple[tuple[str, Callable[[StudyResult], list[Finding]]], ...] = (
    ("identifiability", _rise),
    ("place_difference", _place),
    ("class_value_agreement", _values),
    ("key_value_agreement", _keys),
    ("attention_perturbation", _attention),
    ("token_removal", _removal),
    ("explanation", _explanation),
)


def _ends(rows: pd.DataFrame, weights: str = "trained") -> tuple[Row | None, Row | None]:
    """The rows of the first and of the last block."""
    rows = rows_where(rows, weights=weights)
    rows = rows[rows["value"].notna()].sort_values("block")
    return _row(rows.head(1)), _row(rows.tail(1))


def _row(rows: pd.DataFrame) -> Row | None:
    """The one row that there is."""
    if len(rows) != 1:
        return None
    return {str(name): rows[name].iloc[0] for name in rows.columns}


def _ci(row: Row) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _name(stream: Any) -> str:
    return "MLP" if stream == "mlp" else str(stream)
