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

from classspace_widgets.studies import Accuracy, ClassValueAgreement, Identifiability, StudyResults, standard_studies
from classspace_widgets.studies.explanation import ExplanationStudy
from classspace_widgets.studies.positions import CountedTwiceError, as_ranges, joined
from classspace_widgets.studies.results import StudyResult
from classspace_widgets.studies.standard import all_studies

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
@settings(max_examples=8)
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


def widths(table):
    return (table["high"] - table["low"]).to_numpy()


@pytest.mark.parametrize("kind", [*KINDS, "explanation"])
def test_every_study_s_intervals_are_of_the_level_that_was_asked_for(singles, kind):
    space, readings = singles
    kinds = all_studies() | {"explanation": ExplanationStudy}
    options = {"methods": ("direct",), "steps": 3} if kind == "explanation" else {}
    found = {}
    for level in (0.5, 0.95):
        study = kinds[kind](replicates=200, level=level, **options)
        study.start(space)
        for batch in readings[:5]:
            study.update(batch)
        found[level] = study.result().tables
    for name in {"main", "by_picture", "differences"} & set(found[0.5]):
        narrow, wide = widths(found[0.5][name]), widths(found[0.95][name])
        known = ~np.isnan(wide)
        assert known.any()
        assert (narrow[known] <= wide[known] + 1e-12).all(), name
        # Half of a normal distribution lies within 0.34 of the width of its 95 %; small numbers of pictures are coarser.
        spread = known & (wide > 1e-9)
        assert np.mean(narrow[spread] / wide[spread]) < 0.75, name


@pytest.mark.parametrize("kind", [*KINDS, "explanation"])
def test_every_study_draws_from_its_seed(singles, kind):
    space, readings = singles
    kinds = all_studies() | {"explanation": ExplanationStudy}
    options = {"methods": ("direct",), "steps": 3, "random_orders": 0} if kind == "explanation" else {}

    def drawn(seed):
        study = kinds[kind](replicates=50, seed=seed, **options)
        study.start(space)
        for batch in readings[:5]:
            study.update(batch)
        return study.result().tables

    first, again, others = drawn(0), drawn(0), [drawn(seed) for seed in range(1, 5)]
    for name in {"main", "by_picture", "differences"} & set(first):
        pd.testing.assert_frame_equal(first[name], again[name])
        assert all(first[name]["value"].equals(other[name]["value"]) for other in others)
    for name in {"main", "by_picture"} & set(first):
        # A few pictures that are right or wrong have few different intervals: one seed in four must differ.
        for columns in (["low", "high"], ["p_tokens"], ["p_pictures"]):
            if set(columns) <= set(first[name]):
                same_draw = [first[name][columns].equals(other[name][columns]) for other in others]
                assert not all(same_draw), (name, columns)


def test_pictures_are_numbered_on_from_batch_to_batch(singles):
    """One picture a call gives the same intervals and p as all at once: no two pictures share their bootstrap weights."""
    space, readings = singles
    trace = readings_of(space, Pictures(COUNT), range(COUNT))
    for kind in KINDS:
        if "pixels" in all_studies()[kind].needs:
            continue
        one_by_one, at_once = all_studies()[kind](), all_studies()[kind]()
        at_once.update(trace)
        for single in readings:
            one_by_one.update(single.with_indices(np.zeros(0, np.int64)))
        assert one_by_one.seen.tolist() == [[0, COUNT]]
        for name, table in at_once.result().tables.items():
            pd.testing.assert_frame_equal(one_by_one.result().tables[name], table)


def test_the_interval_of_one_picture_a_call_is_the_mean_s():
    """Nine hits of ten, a hundred times over: a bootstrap whose pictures shared their weights would have no width."""
    space, data = tiny_vit(), Pictures(1)
    study = Accuracy(k=(1,))
    for i in range(100):
        batch = readings_of(space, data, [0]).with_indices(np.zeros(0, np.int64))
        best = batch.trace.output.argmax(dim=1)
        batch.labels = best if i % 10 else (best + 1) % 7
        study.update(batch)
    row = study.result().table.iloc[0]
    half = 1.96 * (0.9 * 0.1 / 100) ** 0.5
    assert row["value"] == pytest.approx(0.9)
    assert (row["low"], row["high"]) == pytest.approx((0.9 - half, 0.9 + half), abs=0.015)


def test_parts_that_number_their_pictures_alike_are_not_merged(singles):
    space, readings = singles
    trace, labels = readings[0].trace, readings[0].labels
    parts = []
    for _ in range(2):
        study = Accuracy()
        study.update(trace, labels)
        parts.append(study)
    with pytest.raises(ValueError, match=r"both parts count a picture 0\. .*indices=their positions"):
        parts[0].merge(parts[1])
    second = Accuracy()
    second.update(trace, labels, indices=[1])
    both = Accuracy()
    for _ in range(2):
        both.update(trace, labels)
    same(parts[0].merge(second).state(), both.state())
    # What was saved and taken up again goes on with the next number.
    again = Accuracy()
    again.start(space)
    again.load_state(copy.deepcopy(parts[0].state()))
    again.update(trace, labels)
    same(again.state(), both.state())
    with pytest.raises(ValueError, match="picture 1 of the data has already been counted"):
        again.update(trace, labels, indices=[1])
    same(again.state(), both.state())
    with pytest.raises(ValueError, match="are for a trace"):
        again.update(readings[2], labels)
    for wrong in ([0, 1], [-1], [[3]]):
        with pytest.raises(ValueError, match=r"indices must be .* shape \[B\]=\(1,\)"):
            Accuracy().update(trace, labels, indices=wrong)


def test_ranges_of_positions():
    assert as_ranges([5, 3, 4, 9]).tolist() == [[3, 6], [9, 10]]
    assert as_ranges([]).tolist() == []
    assert joined(as_ranges([0, 1]), as_ranges([2]), as_ranges([4])).tolist() == [[0, 3], [4, 5]]
    for several in ([as_ranges([0, 5]), as_ranges([4, 5])], [as_ranges(range(9)), as_ranges([5])]):
        with pytest.raises(CountedTwiceError) as error:
            joined(*several)
        assert error.value.position == 5
    with pytest.raises(CountedTwiceError):
        as_ranges([2, 2])


def test_several_twins_in_one_result(singles):
    """Rows of the random control are the twins' mean and range; every difference is held against each of them."""
    space, _ = singles
    twins = [space.random_twin(s) for s in (1, 2, 3)]
    whole = readings_of(space, Pictures(COUNT), range(COUNT))
    study = Identifiability()
    study.update(whole)
    controls = []
    for twin in twins:
        control = Identifiability()
        control.update(readings_of(twin, Pictures(COUNT), range(COUNT)))
        controls.append(control)
    result = study.result(controls)
    keys = ["block", "stream", "tokens", "outcome"]
    alone = [c.result().table.set_index(keys) for c in controls]
    random = result.where(weights="random").set_index(keys)
    for key in random.index:
        values = [table.loc[key, "value"] for table in alone if key in table.index]
        row = random.loc[key]
        assert row["value"] == pytest.approx(np.mean(values))
        assert (row["low"], row["high"]) == (min(values), max(values))
    assert set(random.index) == set().union(*(table.index for table in alone))
    each = result.tables["twins"]
    for number, table in enumerate(alone, start=1):
        own = each[each["twin"] == number].set_index(keys)
        pd.testing.assert_frame_equal(own[["value", "low", "high", "count"]], table[["value", "low", "high", "count"]])
    rises = []
    for table in (study.result().table.set_index(keys), *alone):
        ends = [table.loc[(block, "residual", "image", "all"), "value"] for block in (0, 3)]
        rises.append(ends[1] - ends[0])
    found = result.tables["differences"].set_index("against")["value"]
    expected = {"itself": rises[0], **{f"twin {i}": rises[0] - rise for i, rise in enumerate(rises[1:], start=1)}}
    assert found.to_dict() == pytest.approx(expected)
    assert "3 models with fresh weights" in result.notes[-1]
    assert "one model with fresh weights" in study.result(controls[0]).notes[-1]
    alone = study.result(controls[0])
    assert "twins" not in alone.tables
    pd.testing.assert_frame_equal(
        alone.where(weights="random").drop(columns="weights").reset_index(drop=True),
        controls[0].result().table.drop(columns="weights"),
    )


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
    other.start(space.random_twin())
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
    with pytest.raises(ValueError, match=r"measure is never 'top-2' in accuracy; its values are 'top-1', "):
        whole["accuracy"].where(measure=["top-1", "top-2"])
    with pytest.raises(ValueError, match="expected 'result'"):
        StudyResult.load(tmp_path / "a")
    (tmp_path / "c").write_bytes(b"junk")
    with pytest.raises(ValueError, match="not a file of study results"):
        StudyResults.load(tmp_path / "c")
