"""Findings follow from the numbers, in both directions."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from study_helpers import Pictures
from tiny_models import tiny_vit

from classspace_widgets.studies import findings, run_study
from classspace_widgets.studies.contrasts import COLUMNS, Sample, difference
from classspace_widgets.studies.protocol import UNUSED
from classspace_widgets.studies.results import StudyResult


def result(name, rows, *, notes=(), **tables):
    return {name: StudyResult(name, name, {"main": pd.DataFrame(rows), **tables}, notes=notes)}


def row(value, half=0.02, **labels):
    base = {"weights": "trained", "outcome": "all", "value": value, "low": value - half, "high": value + half}
    return {**base, **labels}


def curve(first, last, **labels):
    return [row(first, block=0, **labels), row(last, block=4, **labels)]


def differences(*rows, least=0.0005):
    """Rows (comparison, against, value, p) of the table of differences."""
    full = [(name, against, value, value - 0.01, value + 0.01, p, least, 100) for name, against, value, p in rows]
    return pd.DataFrame(full, columns=list(COLUMNS))


RISE = "rise in image tokens"


@pytest.mark.parametrize(
    ("own", "twins", "holds"),
    [
        ((0.4, 0.001), (), True),
        ((0.4, 0.2), (), False),
        # Random weights rise as much: against one of two twins there is nothing left.
        ((0.4, 0.001), ((0.3, 0.001), (0.0, 0.6)), False),
        ((0.4, 0.001), ((0.3, 0.001), (0.3, 0.001)), True),
        # The test's p alone does not do: the difference has a direction.
        ((-0.4, 0.001), (), False),
    ],
)
def test_a_rise_is_tested_in_the_model_and_against_every_twin(own, twins, holds):
    labels = {"stream": "residual", "tokens": "image"}
    rows = [(RISE, "itself", *own), *((RISE, f"twin {i}", *twin) for i, twin in enumerate(twins, start=1))]
    (found,) = findings(result("identifiability", curve(0.5, 0.9, **labels), differences=differences(*rows)))
    assert found.holds is holds
    assert "0.500 at the embedding, 0.900 after block 4: rise 0." in found.evidence.replace("rise -", "rise ")
    assert ("more than with random weights" in found.claim) is bool(twins)
    if twins:
        assert f"2 random twins by at least {min(t[0] for t in twins):.3f}" in found.evidence
        assert found.p == max(own[1], *(t[1] for t in twins))
    else:
        assert "no random control" in found.evidence
    assert str(found).startswith("holds" if holds else "does not hold")


@pytest.mark.parametrize(("p", "said"), [(0.0005, "; p <= 0.0005"), (0.0010, "; p = 0.001"), (0.2, "; p = 0.2")])
def test_a_p_at_its_floor_is_a_bound(p, said):
    labels = {"stream": "residual", "tokens": "image"}
    table = differences((RISE, "itself", 0.4, p))
    (found,) = findings(result("identifiability", curve(0.5, 0.9, **labels), differences=table))
    assert found.evidence.endswith(said)


def test_many_findings_are_tested_together():
    """Holm: of 4 tests the smallest p is held against 0.05 / 4, the next against 0.05 / 3, and so on."""
    labels = {"tokens": "image", "block": 4}
    rows, tests = [], []
    for stream, p, q in (("attention", 0.001, 0.012), ("mlp", 0.02, 0.045)):
        rows += [row(v, **labels | {"stream": stream, "outcome": o}) for v, o in ((0.5, "all"), (0.6, "correct"))]
        rows.append(row(0.2, **labels | {"stream": stream, "outcome": "misclassified"}))
        tests += [(f"{stream}, last block", "twin 1", 0.3, p)]
        tests += [(f"{stream}, right against wrong answers", "itself", 0.4, q)]
    found = findings(result("key_value_agreement", rows, differences=differences(*tests)))
    assert [f.p for f in found] == [0.001, 0.012, 0.02, 0.045]
    assert [f.p_holm for f in found] == pytest.approx([0.004, 0.036, 0.04, 0.045])
    assert all(f.holds for f in found)
    assert "0.036 corrected for 4 findings" in found[1].evidence
    tests[0] = ("attention, last block", "twin 1", 0.3, 0.013)
    tests[1] = ("attention, right against wrong answers", "itself", 0.4, 0.015)
    found = findings(result("key_value_agreement", rows, differences=differences(*tests)))
    assert [f.holds for f in found] == [False] * 4, "each is below 0.05 by itself; together they are not"
    assert all(f.p < 0.05 for f in found)


@pytest.mark.parametrize(
    ("value", "p", "holds"), [(0.2, 0.001, True), (0.2, 0.2, False), (-0.2, 0.999, False), (-0.2, 0.001, False)]
)
def test_the_place_is_tested_over_pictures(value, p, holds):
    """The main table's means are over tokens: neither they nor their interval may stand beside a test over pictures."""
    over_tokens = row(0.9, stream="residual", block=4, p_pictures=p, **{"class": 1.0, "context": 0.1})
    shown = {"class": 0.7, "context": 0.7 - value}
    over_pictures = [
        row(value, stream="residual", block=block, p_pictures=q, p_least=0.001, **shown)
        for block, q in ((1, 1 - p), (4, p))
    ]
    given = result("place_difference", [over_tokens], by_picture=pd.DataFrame(over_pictures), notes=(UNUSED,))
    (found,) = findings(given)
    assert found.holds is holds
    assert f"mean over pictures 0.700 against {0.7 - value:.3f}, difference {value:.3f}" in found.evidence
    assert "0.9" not in found.evidence.split("; p")[0].replace(f"{0.7 - value:.3f}", "")
    assert "the model does not use these tokens after the last block" in found.evidence
    assert ("p <= 0.001" in found.evidence) is (p == 0.001)


@pytest.mark.parametrize("holds", [True, False])
def test_value_vectors_are_tested_in_the_last_block_against_every_twin(holds):
    # Blocks 1 and 4 say opposite things, and so do the twins of block 4 where it must not hold.
    tests = pd.DataFrame(
        [
            {"twin": twin, "block": block, "stream": "mlp", "difference": d, "p": p, "p_least": 0.001}
            for twin, block, d, p in (
                (1, 4, 0.1, 0.001),
                (2, 4, 0.1 if holds else -0.1, 0.02 if holds else 0.9),
                (1, 1, -0.1 if holds else 0.1, 0.9 if holds else 0.001),
                (2, 1, -0.1 if holds else 0.1, 0.9 if holds else 0.001),
            )
        ]
    )
    (found,) = findings(result("class_value_agreement", [row(0.1, stream="mlp", block=4)], wilcoxon=tests))
    assert found.holds is holds
    assert found.p == (0.02 if holds else 0.9)
    assert "each of 2 twins" in found.evidence


def test_a_difference_in_the_wrong_direction_does_not_hold():
    tests = pd.DataFrame(
        {"twin": [1], "block": [4], "stream": ["mlp"], "difference": [-0.1], "p": [0.01], "p_least": [0.0]}
    )
    (found,) = findings(result("class_value_agreement", [row(0.1, stream="mlp", block=4)], wilcoxon=tests))
    assert not found.holds


@pytest.mark.parametrize("holds", [True, False])
def test_memories_in_the_last_block(holds):
    labels = {"stream": "mlp", "tokens": "image"}
    rows = [row(v, **labels, block=b, outcome=o) for b in (1, 4) for v, o in ((0.5, "all"), (0.6, "correct"))]
    rows += [row(0.2, **labels, block=4, outcome="misclassified")]
    sign, p = (1, 0.001) if holds else (-1, 0.9)
    tests = differences(
        ("mlp, last block", "twin 1", 0.3, 0.001),
        ("mlp, last block", "twin 2", 0.3 * sign, p),
        ("mlp, right against wrong answers", "itself", 0.4 * sign, p),
    )
    against, wrong = findings(result("key_value_agreement", rows, differences=tests))
    assert against.holds is wrong.holds is holds
    assert "2 random twins" in against.evidence
    assert "0.600 [0.580, 0.620] where the answer is correct, 0.200" in wrong.evidence
    # What is misclassified by random weights says nothing about the model.
    rows[-1]["weights"] = "random"
    assert len(findings(result("key_value_agreement", rows, differences=tests.iloc[:2]))) == 1


@pytest.mark.parametrize("chosen", range(4))
def test_perturbation_and_removal(chosen):
    """Each claim has a test of its own; one at a time says no."""
    p = [0.001] * 4
    p[chosen] = 0.8
    tests = differences(
        ("image tokens: none against self_only", "itself", 0.3, p[0]),
        ("image tokens: no_cls against no_others", "itself", 0.2, p[1]),
        ("answer: none against self_only", "itself", 0.1, p[2]),
    )
    conditions = {"none": 0.9, "no_cls": 0.8, "no_others": 0.6, "self_only": 0.5}
    rows = [
        row(v, condition=c, measure=m, tokens=t)
        for c, v in conditions.items()
        for m, t in (("identifiability", "image"), ("accuracy", "output"))
    ]
    found = findings(result("attention_perturbation", rows, differences=tests))
    assert [f.holds for f in found] == [at != chosen for at in range(3)]
    assert "without each other (no_others)" in found[1].evidence
    assert "0.600 [0.580, 0.620] without each other" in found[1].evidence
    rows = [
        row(v, condition=c, measure="accuracy", tokens="output")
        for c, v in (("none", 0.9), ("class removed", 0.2), ("context removed", 0.8))
    ]
    tests = differences(("answer: context removed against class removed", "itself", 0.6, p[3]))
    (found,) = findings(result("token_removal", rows, differences=tests))
    assert found.holds is (chosen != 3)


def test_methods_by_their_names_and_in_the_right_direction():
    areas = {"gradient": (0.9, 0.3), "gradient:paper": (0.8, 0.4), "lens": (0.85, 0.2)}
    rows = [
        row(v, method=m, measure=f"{order} accuracy area")
        for m, pair in areas.items()
        for order, v in zip(("negative", "positive"), pair, strict=True)
    ]
    tests = [
        (f"{order}: {own} against lens", "itself", value, p)
        for own, order, value, p in (
            ("gradient", "negative", 0.05, 0.001),
            ("gradient", "positive", -0.1, 1.0),
            ("gradient:paper", "negative", -0.05, 1.0),
            ("gradient:paper", "positive", -0.2, 1.0),
        )
    ]
    note = "'lens' reads the image tokens after the last block, which this model does not use."
    found = findings(result("explanation", rows, differences=differences(*tests), notes=(note,)))
    assert [(f.claim, f.holds) for f in found] == [
        ("The gradient of the class logit beats lens in the negative perturbation test", True),
        ("The paper's gradient beats lens in the negative perturbation test", False),
        ("The gradient of the class logit beats lens in the positive perturbation test", False),
        ("The paper's gradient beats lens in the positive perturbation test", False),
    ]
    assert all("the model does not use the tokens that lens reads" in f.evidence for f in found)


def test_missing_measurements_are_not_tested():
    assert findings({}) == ()
    studies = ["identifiability", "token_removal", "accuracy"]
    results = run_study(tiny_vit(), Pictures(6), studies, progress=False, random_twin=True)
    assert {f.source for f in findings(results)} == {"class identifiability", "token removal"}
    assert len(findings(results)) == 2


def test_without_resamples_nothing_is_tested():
    from classspace_widgets.studies import Identifiability

    results = run_study(tiny_vit(), Pictures(6), Identifiability(replicates=0), progress=False)
    assert len(results["identifiability"].tables["differences"]) == 1
    assert findings(results) == ()


def sample(values, weights, level=0.95):
    values = np.asarray(values, float)
    resampled = weights @ values / weights.sum(axis=1)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Sample(values.mean(), resampled, low, high, len(values))


def test_a_difference_is_paired():
    """Two shares with wide, overlapping intervals whose difference is the same in every picture, nearly."""
    generator = np.random.default_rng(0)
    weights = generator.poisson(1, (2000, 60)).astype(float)
    base = generator.uniform(0.2, 0.8, 60)
    gain = generator.normal(0.02, 0.01, 60)
    less, more = sample(base, weights), sample(base + gain, weights)
    assert more.low < less.high, "the intervals overlap"
    found = difference([more], [less], 0.95)
    half = 1.96 * gain.std(ddof=1) / math.sqrt(60)
    assert found["value"] == pytest.approx(gain.mean())
    assert (found["low"], found["high"]) == pytest.approx((gain.mean() - half, gain.mean() + half), abs=1e-3)
    assert found["p"] == found["p_least"] == 1 / 2001
    # Overlap of 0.01 of intervals is no verdict, and neither is their distance: without the pairing nothing is left.
    other = sample(base, generator.poisson(1, (2000, 60)).astype(float))
    assert difference([more], [other], 0.95)["p"] > 0.1
    narrow = difference([more], [less], 0.5)
    assert narrow["high"] - narrow["low"] < 0.5 * (found["high"] - found["low"])


def test_a_difference_of_shares_of_one_and_zero_has_an_interval():
    weights = np.random.default_rng(1).poisson(1, (500, 40)).astype(float)
    everything, nothing = sample(np.ones(40), weights), sample(np.zeros(40), weights)
    wilson = 40 / (40 + 1.959964**2)
    everything = Sample(1.0, everything.resampled, wilson, 1.0, 40)
    nothing = Sample(0.0, nothing.resampled, 0.0, 1 - wilson, 40)
    found = difference([everything], [nothing], 0.95)
    assert found["value"] == 1
    assert found["high"] == 1
    assert found["low"] == pytest.approx(1 - math.sqrt(2) * (1 - wilson))
    back = difference([nothing], [everything], 0.95)
    assert (back["low"], back["high"]) == (-1, pytest.approx(-found["low"]))
    assert back["p"] == 1
    same = difference([everything], [everything], 0.95)
    assert same["p"] == 1


def test_few_pictures_have_no_small_p():
    """Three pictures that agree: a test that flips their signs gives 1/8 at the least."""
    weights = np.random.default_rng(1).poisson(1, (2000, 3)).astype(float)
    with np.errstate(invalid="ignore"):
        more, less = (Sample(v, np.full(3, v) @ weights.T / weights.sum(axis=1), v, v, 3) for v in (0.9, 0.1))
        found = difference([more], [less], 0.95)
    assert found["p"] == found["p_least"] == 0.125
