"""The paper's findings, tested on the results of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from classspace_widgets.studies.contrasts import ITSELF
from classspace_widgets.studies.protocol import UNUSED
from classspace_widgets.studies.results import rows_where
from classspace_widgets.studies.statistics import holm

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from classspace_widgets.studies.results import StudyResult

    Row = Mapping[str, Any]

LEVEL = 0.05
"""Significance level of all tests of a run together."""


@dataclass(frozen=True)
class Finding:
    """One finding, and whether it holds in a run.

    Made by `findings`.

    Attributes
    ----------
    claim : str
        The finding in one sentence.
    source : str
        The paper's measurement behind it.
    holds : bool
        Whether the difference has the claimed direction, with ``p_holm`` of at most 0.05.
    evidence : str
        The numbers, with their random control if the run has one.
    p : float
        One-sided p of this finding, uncorrected.
    p_holm : float
        The same, corrected for the number of findings tested together (Holm 1979).
    """

    claim: str
    source: str
    holds: bool
    evidence: str
    p: float = math.nan
    p_holm: float = math.nan

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'does not hold'}: {self.claim} ({self.evidence})"


@dataclass(frozen=True)
class _Test:
    """A claim with its test: the difference, its p, and the smallest p that the test can give."""

    claim: str
    source: str
    evidence: str
    difference: float
    p: float
    least: float


def findings(results: Mapping[str, StudyResult]) -> tuple[Finding, ...]:
    """Test the paper's qualitative findings on the results of a run.

    Parameters
    ----------
    results : StudyResults, or mapping of name to StudyResult
        Findings are left out if their study or pictures are missing (no masks, nothing misclassified), or if they have
        no test (``replicates=0``).

    Returns
    -------
    tuple of Finding

    Notes
    -----
    A finding is a difference with a direction. Measurements of the same pictures are compared by a paired bootstrap, on the
    same resamples; the place of the class by flipping the signs of the pictures' differences; value vectors by Wilcoxon's
    test over classes. A claim about random weights must hold for **every** random twin of the run: its p is the largest of
    theirs. All p values of a call are then corrected together by Holm's method, at 0.05. A p at the smallest value that its
    test can give is written as a bound, such as ``p <= 0.0005``.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> from classspace_widgets.studies import run_study
    >>> results = run_study(ClassSpace.bundled(), ScenesDataset(8, seed=2), "identifiability", random_twin=2, progress=False)
    >>> findings(results)[0].claim
    'Image tokens become more identifiable from the embedding to the last block, and more than with random weights'
    """
    tests = [test for name, make in TESTS if name in results for test in make(results[name])]
    tests = [test for test in tests if not math.isnan(test.p)]
    corrected = holm([test.p for test in tests])
    tested = []
    for test, p_holm in zip(tests, corrected.tolist(), strict=True):
        holds = test.difference > 0 and p_holm <= LEVEL
        bound = test.p <= test.least * (1 + 1e-9)
        evidence = f"{test.evidence}; p {'<=' if bound else '='} {test.p:.2g}"
        if len(tests) > 1:
            evidence += f", {p_holm:.2g} corrected for {len(tests)} findings"
        tested.append(Finding(test.claim, test.source, bool(holds), evidence, test.p, p_holm))
    return tuple(tested)


def _rise(result: StudyResult) -> list[_Test]:
    tested = _compared(result, "rise in image tokens")
    first, last = _ends(rows_where(result.table, stream="residual", tokens="image", outcome="all"))
    if tested is None or first is None or last is None:
        return []
    evidence = (
        f"mean over image tokens {first['value']:.3f} at the embedding, {last['value']:.3f} after block {last['block']}"
    )
    evidence += f": rise {_ci(tested.own)}{tested.control('rise')}{_unused(result)}"
    claim = "Image tokens become more identifiable from the embedding to the last block"
    return [tested.test(claim + (", and more than with random weights" if tested.twins else ""), _RISE, evidence)]


def _place(result: StudyResult) -> list[_Test]:
    table = result.tables.get("by_picture")
    _, last = (None, None) if table is None else _ends(rows_where(table, stream="residual"))
    if last is None:
        return []
    evidence = f"mean over pictures {last['class']:.3f} against {last['context']:.3f}, difference {_ci(last)}"
    assert table is not None
    _, control = _ends(rows_where(table, stream="residual"), "random")
    if control is not None:
        evidence += f"; random weights {control['value']:+.3f}"
    claim = "In the last block tokens of the object are more identifiable than tokens of its context"
    evidence += _unused(result)
    return [_Test(claim, "identifiability by place", evidence, last["value"], last["p_pictures"], last["p_least"])]


def _values(result: StudyResult) -> list[_Test]:
    wilcoxon = result.tables.get("wilcoxon")
    if wilcoxon is None or not len(wilcoxon):
        return []
    tests = []
    for stream, rows in wilcoxon.groupby("stream", sort=False):
        last = rows[rows["block"] == rows["block"].max()]
        worst = last.loc[last["p"].idxmax()]
        least = last["difference"].min()
        evidence = f"mean over classes of the difference in cosine {least:+.3f}"
        evidence += "" if len(last) == 1 else f" or more against each of {len(last)} twins"
        evidence += ", Wilcoxon's test over classes"
        claim = f"Value vectors of the last block's {_name(stream)} agree more with class embeddings than those of random weights"
        tests.append(_Test(claim, "class-value agreement", evidence, float(least), worst["p"], worst["p_least"]))
    return tests


def _keys(result: StudyResult) -> list[_Test]:
    tests = []
    for stream in dict.fromkeys(result.table["stream"]):
        rows = rows_where(result.table, stream=stream, tokens="image")
        tested = _compared(result, f"{stream}, last block")
        _, own = _ends(rows_where(rows, outcome="all"))
        if own is not None and tested is not None:
            evidence = f"share of image tokens {_ci(own)}{tested.control('share', rows)}{_unused(result)}"
            claim = f"The {_name(stream)} of the last block activates memories of the class more often than random weights do"
            tests.append(tested.test(claim, "key-value agreement", evidence))
        tested = _compared(result, f"{stream}, right against wrong answers")
        _, right = _ends(rows_where(rows, outcome="correct"))
        _, wrong = _ends(rows_where(rows, outcome="misclassified"))
        if tested is not None and right is not None and wrong is not None:
            evidence = f"share of image tokens {_ci(right)} where the answer is correct, {_ci(wrong)} where it is wrong"
            claim = f"Memories of the class are activated more in the last block's {_name(stream)} where the model answers correctly"
            tests.append(tested.test(claim, "key-value agreement", evidence + _unused(result)))
    return tests


def _attention(result: StudyResult) -> list[_Test]:
    read = rows_where(result.table, weights="trained", measure="identifiability", tokens="image", outcome="all")
    answer = rows_where(result.table, weights="trained", measure="accuracy", outcome="all")
    source, tests = "attention perturbation", []

    def add(comparison: str, claim: str, evidence: str, rows: pd.DataFrame, *conditions: str) -> None:
        tested = _compared(result, comparison)
        values = [_row(rows_where(rows, condition=condition)) for condition in conditions]
        if tested is not None and None not in values:
            evidence = evidence.format(*(_ci(value) for value in values if value is not None))
            tests.append(tested.test(claim, source, f"{evidence}: difference {_ci(tested.own)}"))

    add(
        "image tokens: none against self_only",
        "Image tokens lose identifiability of the class when they may only read themselves",
        "mean over image tokens {} without a change, {} when they only read themselves (self_only)" + _unused(result),
        read, "none", "self_only",
    )  # fmt: skip
    add(
        "image tokens: no_cls against no_others",
        "Reading from each other matters more to image tokens than reading from [CLS]",
        "mean over image tokens {} without [CLS] (no_cls), {} without each other (no_others)" + _unused(result),
        read, "no_cls", "no_others",
    )  # fmt: skip
    add(
        "answer: none against self_only",
        "The model answers worse when image tokens may only read themselves",
        "accuracy {} without a change, {} when image tokens only read themselves",
        answer, "none", "self_only",
    )  # fmt: skip
    return tests


def _removal(result: StudyResult) -> list[_Test]:
    tested = _compared(result, "answer: context removed against class removed")
    accuracy = {"weights": "trained", "measure": "accuracy", "outcome": "all"}
    whole, object_gone, context_gone = (
        _row(rows_where(result.table, condition=name, **accuracy))
        for name in ("none", "class removed", "context removed")
    )
    if tested is None or whole is None or object_gone is None or context_gone is None:
        return []
    evidence = (
        f"accuracy {_ci(whole)} without a change, {_ci(object_gone)} without the object's tokens, "
        f"{_ci(context_gone)} without the context's: difference {_ci(tested.own)}"
    )
    claim = "Accuracy falls more without the object's tokens than without those of its context"
    return [tested.test(claim, "token removal", evidence)]


GRADIENTS = {
    "gradient": "The gradient of the class logit",
    "gradient:logit": "The gradient of the class logit",
    "gradient:cross_entropy": "The gradient of the cross-entropy",
    "gradient:paper": "The paper's gradient",
}


def _explanation(result: StudyResult) -> list[_Test]:
    """Every gradient, with that of the paper, against every other method, by both areas."""
    tests = []
    for order, sign in (("negative", 1), ("positive", -1)):
        rows = rows_where(result.table, weights="trained", outcome="all", measure=f"{order} accuracy area")
        for method in dict.fromkeys(rows["method"]):
            for other in dict.fromkeys(rows["method"]):
                tested = _compared(result, f"{order}: {method} against {other}")
                own, others = _row(rows_where(rows, method=method)), _row(rows_where(rows, method=other))
                if tested is None or own is None or others is None or method not in GRADIENTS:
                    continue
                evidence = f"{_ci(own)} against {_ci(others)}; {'higher' if sign > 0 else 'lower'} is better"
                if any(note.startswith(f"'{other}' reads") for note in result.notes):
                    evidence += f"; the model does not use the tokens that {other} reads"
                claim = f"{GRADIENTS[method]} beats {other} in the {order} perturbation test"
                tests.append(tested.test(claim, "perturbation test", f"{evidence}; ahead by {_ci(tested.own)}"))
    return tests


_RISE = "class identifiability"

TESTS: tuple[tuple[str, Callable[[StudyResult], list[_Test]]], ...] = (
    ("identifiability", _rise),
    ("place_difference", _place),
    ("class_value_agreement", _values),
    ("key_value_agreement", _keys),
    ("attention_perturbation", _attention),
    ("token_removal", _removal),
    ("explanation", _explanation),
)


@dataclass(frozen=True)
class _Compared:
    """Rows of one comparison in the table ``differences``: within the model, and against each random twin."""

    own: Row
    twins: tuple[Row, ...]

    def test(self, claim: str, source: str, evidence: str) -> _Test:
        """The claim must hold within the model and for every twin, so take the largest p and the smallest difference."""
        rows = [row for row in (self.own, *self.twins) if row]
        worst = max(rows, key=lambda row: row["p"])
        return _Test(claim, source, evidence, min(row["value"] for row in rows), worst["p"], worst["p_least"])

    def control(self, quantity: str, rows: pd.DataFrame | None = None) -> str:
        """The text about the random twins."""
        if not self.twins:
            return "; no random control"
        nearest = min(self.twins, key=lambda row: row["value"])
        count = f"{len(self.twins)} random twins" if len(self.twins) > 1 else "one random twin"
        return f"; {quantity} above that of {count} by at least {_ci(nearest)}"


def _compared(result: StudyResult, comparison: str) -> _Compared | None:
    table = result.tables.get("differences")
    if table is None:
        return None
    rows = [_as_row(rows, at) for rows in [rows_where(table, comparison=comparison)] for at in range(len(rows))]
    own = [row for row in rows if row["against"] == ITSELF]
    twins = tuple(row for row in rows if row["against"] != ITSELF)
    return _Compared(own[0] if own else {}, twins) if rows else None


def _ends(rows: pd.DataFrame, weights: str = "trained") -> tuple[Row | None, Row | None]:
    """The rows of the first and of the last block."""
    rows = rows_where(rows, weights=weights)
    rows = rows[rows["value"].notna()].sort_values("block")
    return _row(rows.head(1)), _row(rows.tail(1))


def _row(rows: pd.DataFrame) -> Row | None:
    """The only row; None if there is none, or several."""
    return _as_row(rows, 0) if len(rows) == 1 else None


def _as_row(rows: pd.DataFrame, at: int) -> Row:
    return {str(name): rows[name].iloc[at] for name in rows.columns}


def _ci(row: Row) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _name(stream: Any) -> str:
    return "MLP" if stream == "mlp" else str(stream)


def _unused(result: StudyResult) -> str:
    return " (the model does not use these tokens after the last block)" if UNUSED in result.notes else ""
