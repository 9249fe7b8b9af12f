"""Statistics against scipy and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from classspace_widgets.studies import bootstrap_ci, permutation_test, wilcoxon_greater
from classspace_widgets.studies.statistics import interval, permutation_test_counts, picture_signs, picture_weights
from classspace_widgets.studies.tally import Tally


def test_weights_depend_on_the_picture_alone():
    whole = picture_weights(range(50), 30, seed=4)
    parts = np.concatenate([picture_weights(range(20, 50), 30, seed=4), picture_weights(range(20), 30, seed=4)], axis=1)
    assert np.array_equal(whole[:, list(range(20, 50)) + list(range(20))], parts)
    assert not np.array_equal(whole, picture_weights(range(50), 30, seed=5))
    many = picture_weights(range(400), 200)
    assert abs(many.mean() - 1) < 0.02
    assert abs(many.var() - 1) < 0.03
    signs = picture_signs(range(400), 200)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.02
    assert picture_weights([], 5).shape == (5, 0)


def test_bootstrap_covers_like_the_normal_interval():
    values = np.random.default_rng(0).normal(3, 2, size=(500, 2))
    low, high = bootstrap_ci(values, replicates=2000)
    half = 1.96 * values.std(axis=0, ddof=1) / np.sqrt(500)
    np.testing.assert_allclose(low, values.mean(axis=0) - half, atol=0.03)
    np.testing.assert_allclose(high, values.mean(axis=0) + half, atol=0.03)
    with pytest.raises(ValueError, match="at least one picture"):
        bootstrap_ci([])


def test_interval_leaves_empty_resamples_out():
    low, high = interval(np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]]), 0.5)
    assert low[0] == 1.5
    assert high[0] == 2.5
    assert np.isnan(low[1])
    assert np.isnan(high[1])


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_permutation_against_every_permutation(alternative):
    first, second = [5, 7, 7, 3], [4, 3, 6, 1, 3]
    pool = np.array(first + second, float)
    own = np.mean(first) - np.mean(second)
    extreme = []
    for chosen in itertools.combinations(range(9), 4):
        mask = np.zeros(9, bool)
        mask[list(chosen)] = True
        d = pool[mask].mean() - pool[~mask].mean()
        extreme.append({"greater": d >= own, "less": d <= own, "two-sided": abs(d) >= abs(own)}[alternative])
    difference, p = permutation_test(first, second, permutations=20000, alternative=alternative)
    assert difference == pytest.approx(own)
    assert p == pytest.approx(np.mean(extreme), abs=0.012)


def test_continuous_values_take_the_other_path_to_the_same_answer():
    generator = np.random.default_rng(1)
    first, second = generator.normal(0.3, 1, 200), generator.normal(0, 1, 900)
    _, p = permutation_test(first, second, permutations=1000)
    expected = stats.permutation_test(
        (first, second), lambda a, b, axis: a.mean(axis) - b.mean(axis), vectorized=True, alternative="greater", rng=2
    ).pvalue
    assert p == pytest.approx(expected, abs=0.01)
    _, reverse = permutation_test(second, first, permutations=1000)
    assert reverse > 0.98


@pytest.mark.parametrize("scale", [1e-14, 1.0, 1e14])
def test_p_does_not_depend_on_the_unit(scale):
    generator = np.random.default_rng(0)
    first, second = generator.normal(0.4, 1, 30), generator.normal(-0.4, 1, 30)
    assert permutation_test(scale * first, scale * second)[1] == permutation_test(first, second)[1] < 0.1


def test_p_is_never_zero_and_seeds_repeat():
    assert permutation_test([9] * 50, [1] * 50, permutations=300)[1] == 1 / 301
    assert permutation_test([9] * 50, [1] * 50, permutations=300, alternative="less")[1] == 1
    a, b = np.random.default_rng(0).integers(0, 9, (2, 80))
    assert permutation_test(a, b, seed=3) == permutation_test(a, b, seed=3)


def test_more_tokens_than_numpy_can_draw():
    counts = np.array([[600_000_000, 400_000_000], [400_000_000, 600_000_000]])
    difference, p = permutation_test_counts([0.0, 1.0], counts)
    assert difference == pytest.approx(-0.2)
    assert p == 1


def test_bad_values():
    with pytest.raises(ValueError, match="at least one value"):
        permutation_test([], [1.0])
    with pytest.raises(ValueError, match="finite"):
        permutation_test([np.nan], [1.0])
    with pytest.raises(ValueError, match="alternative"):
        permutation_test([1.0], [1.0], alternative="other")
    with pytest.raises(ValueError, match=r"\[2, V\]"):
        permutation_test_counts([1.0], [[1, 2]])
    assert np.isnan(permutation_test_counts([1.0], [[0], [3]])[1])


@pytest.mark.parametrize("ties", [False, True])
def test_wilcoxon_equals_scipy(ties):
    d = np.random.default_rng(5).normal(0.2, 1, 300)
    d = np.round(d * 4) if ties else d
    ours = wilcoxon_greater(d)
    theirs = stats.wilcoxon(d, alternative="greater", method="asymptotic", correction=False)
    assert ours[0] == theirs.statistic
    assert ours[1] == pytest.approx(theirs.pvalue, rel=1e-9)
    assert wilcoxon_greater([0.0, 0.0]) == (0.0, 1.0)


def test_intervals_of_a_tally_are_of_the_pictures_of_their_outcome():
    generator = np.random.default_rng(0)
    over, under = generator.integers(0, 9, (12, 2, 1)).astype(float), np.full((12, 2, 1), 9.0)
    outcome, indices = np.arange(12) % 2, np.arange(100, 112)
    tally = Tally.empty(3, (2, 1), (2, 1), replicates=50, seed=4)
    for part in (slice(0, 5), slice(5, 12)):
        tally.add(over[part], under[part], labels=np.zeros(12, int)[part], outcome=outcome[part], indices=indices[part])
    for asked in (None, 0, 1):
        chosen = [i for i in range(12) if asked is None or outcome[i] == asked]
        weights = picture_weights(indices[chosen], 50, seed=4)
        resampled = [
            sum(w * over[i, 1, 0] for w, i in zip(row, chosen, strict=True))
            / sum(w * under[i, 1, 0] for w, i in zip(row, chosen, strict=True))
            for row in weights
        ]
        share, low, high, _ = tally.estimate(asked)
        assert share[1, 0] == pytest.approx(over[chosen, 1].sum() / under[chosen, 1].sum())
        assert (low[1, 0], high[1, 0]) == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])))
