"""Findings follow from the numbers, in both directions."""

from __future__ import annotations

import pandas as pd
import pytest
from study_helpers import Pictures
from tiny_models import tiny_vit

from classspace_widgets.studies import StudyResult, findings, run_study


def result(name, rows, **tables):
    return {name: StudyResult(name, name, {"main": pd.DataFrame(rows), **tables})}


def row(value, half=0.02, **labels):
    base = {"weights": "trained", "outcome": "all", "value": value, "low": value - half, "high": value + half}
    return {**base, **labels}


def curve(first, last, **labels):
    return [row(first, block=0, **labels), row(last, block=4, **labels)]


@pytest.mark.parametrize(("last", "holds"), [(0.9, True), (0.53, False), (0.3, False)])
def test_a_rise_must_be_beyond_its_intervals(last, holds):
    labels = {"stream": "residual", "tokens": "image"}
    rows = curve(0.5, last, **labels) + curve(0.5, 0.99, **labels, weights="random")
    (found,) = findings(result("identifiability", rows))
    assert found.holds is holds
    assert f"{last:.3f}" in found.evidence
    assert "random control 0.500 to 0.990" in found.evidence
    assert str(found).startswith("holds" if holds else "does not hold")


@pytest.mark.parametrize(
    ("value", "p", "holds"), [(0.2, 0.001, True), (0.2, 0.2, False), (-0.2, 0.999, False), (0.01, 0.001, False)]
)
def test_class_tokens_must_stand_above_by_interval_and_test(value, p, holds):
    rows = [row(value, stream="residual", block=4, p_pictures=p, **{"class": 0.7, "context": 0.7 - value})]
    (found,) = findings(result("place_difference", rows))
    assert found.holds is holds


@pytest.mark.parametrize("holds", [True, False])
def test_memories_against_the_control_and_the_misclassified(holds):
    labels = {"stream": "mlp", "tokens": "image", "block": 4}
    high, low = (0.5, 0.1) if holds else (0.1, 0.5)
    rows = [row(high, **labels), row(low, **labels, weights="random")]
    rows += [row(high, **labels | {"outcome": "correct"}), row(low, **labels | {"outcome": "misclassified"})]
    against, wrong = findings(result("key_value_agreement", rows))
    assert against.holds is wrong.holds is holds
    # What is misclassified by random weights says nothing about the model.
    rows[-1]["weights"] = "random"
    assert len(findings(result("key_value_agreement", rows))) == 1
    tests = pd.DataFrame({"block": [4], "stream": ["mlp"], "difference": [0.1], "p": [0.01 if holds else 0.2]})
    (found,) = findings(result("class_value_agreement", [row(0.1, **labels)], wilcoxon=tests))
    assert found.holds is holds


@pytest.mark.parametrize("holds", [True, False])
def test_perturbation_and_removal(holds):
    alone = 0.3 if holds else 0.7
    rows = [
        row(v, condition=c, measure="identifiability", tokens="image")
        for c, v in (("none", 0.7), ("no_cls", 0.69), ("self_only", alone))
    ]
    rows += [
        row(v, condition=c, measure="accuracy", tokens="output")
        for c, v in (("none", 0.9), ("no_cls", 0.9), ("self_only", alone if holds else 0.9))
    ]
    assert [f.holds for f in findings(result("attention_perturbation", rows))] == [holds] * 3
    rows = [
        row(v, condition=c, measure="accuracy", tokens="output")
        for c, v in (("none", 0.9), ("class removed", 0.2 if holds else 0.8), ("context removed", 0.8))
    ]
    (found,) = findings(result("token_removal", rows))
    assert found.holds is holds


def test_methods_are_ahead_only_beyond_their_intervals_and_in_the_right_direction():
    areas = {"gradient": (0.9, 0.3), "chefer": (0.8, 0.29), "random": (0.91, 0.8)}
    rows = [
        row(v, method=m, measure=f"{order} accuracy area")
        for m, pair in areas.items()
        for order, v in zip(("negative", "positive"), pair, strict=True)
    ]
    found = {
        (f.claim.split(" beats ")[1].split()[0], f.claim.split()[-3]): f.holds
        for f in findings(result("explanation", rows))
    }
    assert found == {
        ("chefer", "negative"): True,
        ("random", "negative"): False,
        ("chefer", "positive"): False,
        ("random", "positive"): True,
    }


def test_what_was_not_measured_is_not_judged():
    assert findings({}) == ()
    results = run_study(
        tiny_vit(), Pictures(6), ["identifiability", "token_removal", "accuracy"], progress=False, random_twin=True
    )
    assert {f.source for f in findings(results)} == {"class identifiability", "token removal"}
    assert len(findings(results)) == 2
