"""The study law, states, results and files."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from study_helpers import Pictures, readings_of
from tiny_models import tiny_vit

from classspace_widgets.studies import (
    Accuracy,
    ClassValueAgreement,
    Identifiability,
    StudyResult,
    StudyResults,
    all_studies,
    random_twin,
    standard_studies,
)

COUNT = 8
KINDS = sorted(all_studies())


@pytest.fixture(scope="module")
def singles():
    space = tiny_vit()
    return space, [readings_of(space, Pictures(COUNT), [i]) for i in range(COUNT)]


def seen(kind, readings, chosen, space, **options):
    study = all_studies()[kind](replicates=10, **options)
    study.start(space)
    for i in chosen:
        study.update(readings[i])
    return study


def same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert np.array_equal(first[name], second[name], equal_nan=True), name


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(COUNT)), cut=st.integers(0, COUNT))
def test_merging_parts_is_seeing_the_whole(singles, kind, order, cut):
    space, readings = singles
    if kind in ("attention_perturbation", "token_removal"):
        readings, order = readings[:3], [i for i in order if i < 3]
    whole = seen(kind, readings, sorted(order), space)
    first, second = (seen(kind, readings, part, space) for part in (order[:cut], order[cut:]))
    before = copy.deepcopy(first.state())
    merged = first.merge(second)
    same(merged.state(), whole.state())
    same(first.state(), before)
    same(second.merge(first).state(), whole.state())
    for name, table in merged.tables().items():
        pd.testing.assert_frame_equal(table, whole.tables()[name])


@pytest.mark.parametrize("kind", KINDS)
def test_states_round_trip(singles, kind):
    space, readings = singles
    study = seen(kind, readings, range(3), space)
    again = all_studies()[kind](replicates=10)
    again.start(space)
    again.load_state(copy.deepcopy(study.state()))
    same(again.state(), study.state())
    wrong = {k: np.zeros((1, 2, 3)) for k in study.state()}
    with pytest.raises(ValueError, match="must have shape"):
        again.load_state(wrong)


def test_merging_needs_the_same_options(singles):
    space, readings = singles
    first = seen("accuracy", readings, [0], space)
    with pytest.raises(ValueError, match="cannot merge"):
        first.merge(Accuracy(replicates=11))
    with pytest.raises(ValueError, match="cannot merge"):
        first.merge(Identifiability(replicates=10))
    unused = Accuracy(replicates=10)
    same(unused.merge(first).state(), first.state())
    same(first.merge(unused).state(), first.state())
    other = ClassValueAgreement(replicates=10)
    other.start(random_twin(space))
    with pytest.raises(ValueError, match="different weights"):
        seen("class_value_agreement", readings, [0], space).merge(other)


def test_options_are_checked():
    with pytest.raises(ValueError, match="replicates"):
        Accuracy(replicates=-1)
    with pytest.raises(ValueError, match="level"):
        Accuracy(level=1.5)


def test_results_save_load_and_show(singles, tmp_path):
    space, readings = singles
    results = {}
    for study in standard_studies(replicates=10):
        study.start(space)
        for r in readings[:3]:
            study.update(r)
        results[study.name] = study.result(study, {"model": "tiny <vit>", "identity": {"a": [1]}})
    whole = StudyResults(results, ((3, "OSError: <bad> file"),), {"model": "tiny"})
    loaded = StudyResults.load(whole.save(tmp_path / "deep" / "all.gz"))
    assert loaded.skipped == whole.skipped
    assert loaded.provenance == whole.provenance
    assert list(loaded) == list(whole)
    for name, result in whole.items():
        assert {"trained", "random"} == set(result.table["weights"])
        back = StudyResult.load(result.save(tmp_path / f"{name}.gz"))
        for other in (loaded[name], back):
            assert (other.title, other.method, other.notes) == (result.title, result.method, result.notes)
            for key, table in result.tables.items():
                pd.testing.assert_frame_equal(other.tables[key], table, check_dtype=False)
        page = result._repr_html_()
        assert "tiny &lt;vit&gt;" in page
        assert result.title in page
    assert "&lt;bad&gt;" in whole._repr_html_()
    assert whole.save(tmp_path / "a").read_bytes() == whole.save(tmp_path / "b").read_bytes()
    with pytest.raises(KeyError, match="no study named"):
        whole["none"]
    with pytest.raises(KeyError, match="no column"):
        whole["accuracy"].where(nothing=1)
    with pytest.raises(ValueError, match=r"measure is never 'top-2' in accuracy; it is 'top-1', "):
        whole["accuracy"].where(measure=["top-1", "top-2"])
    with pytest.raises(ValueError, match="expected 'result'"):
        StudyResult.load(tmp_path / "a")
    (tmp_path / "c").write_bytes(b"junk")
    with pytest.raises(ValueError, match="not a file of study results"):
        StudyResults.load(tmp_path / "c")
