"""Statistics against scipy and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from classspace_widgets.studies import bootstrap_ci
from classspace_widgets.studies.statistics import (
    UNITS,
    bootstrap_p,
    holm,
    interval,
    permutation_test,
    permutation_test_counts,
    picture_signs,
    picture_weights,
    resampling_units,
    wilcoxon_greater,
    wilson,
)
from classspace_widgets.studies.tally import Tally


def test_weights_depend_only_on_the_picture():
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
    for draw in (picture_weights, picture_signs):
        with pytest.raises(ValueError, match="read-only"):
            draw([3], 4)[0, 0] = 7  # what studies share, none may change


def test_signs_are_independent_of_weights():
    """A sign test whose signs were drawn from the bootstrap's stream would share its chance with the interval beside it."""
    signs = picture_signs(range(6), 400, seed=4)
    for index in range(6):
        stream = np.random.Generator(np.random.Philox(key=[4, index]))
        assert not np.array_equal(signs[:, index], stream.integers(0, 2, 400) * 2 - 1)
        apart = np.random.Generator(np.random.Philox(key=[4 + 2**32, index]))
        assert np.array_equal(signs[:, index], apart.integers(0, 2, 400) * 2 - 1)
    assert not np.array_equal(signs, picture_signs(range(6), 400, seed=5))
    weights = picture_weights(range(6), 400, seed=4)
    assert np.abs(np.corrcoef(signs.T, weights.T)[:6, 6:]).max() < 0.2


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


@pytest.mark.parametrize("shift", [0.12, -0.12])
@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_the_larger_group_may_come_first(shift, alternative):
    """Continuous values are drawn as the smaller group; the larger one's sum is what is left of the whole."""
    generator = np.random.default_rng(4)
    first, second = generator.normal(shift, 1, 900), generator.normal(0, 1, 200)
    difference, p = permutation_test(first, second, permutations=2000, alternative=alternative)
    expected = stats.permutation_test(
        (first, second), lambda a, b, axis: a.mean(axis) - b.mean(axis), vectorized=True, alternative=alternative, rng=2
    )
    assert difference == pytest.approx(expected.statistic)
    assert 0.001 < expected.pvalue < 0.999, "a wrong null distribution would show"
    assert p == pytest.approx(expected.pvalue, abs=0.03)


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


@pytest.mark.parametrize("z", [-1.0, 0.5, 1.5])
def test_more_tokens_than_numpy_can_draw(z):
    """Beyond 10**9 tokens: p against the hypergeometric distribution of as many, at a difference of z standard deviations.

    Of n + m tokens half are hits; the first group's number of hits has the variance ``n m / (4 (n + m - 1))``, the
    finite population correction being that each hit is drawn once.
    """
    n, m = 400_000_000, 800_000_000
    spread = (n * m / (4 * (n + m - 1))) ** 0.5
    hits = round(n / 2 + z * spread)
    counts = np.array([[n - hits, hits], [m - (600_000_000 - hits), 600_000_000 - hits]])
    difference, p = permutation_test_counts([0.0, 1.0], counts, permutations=20_000)
    assert difference == pytest.approx(hits / n - (600_000_000 - hits) / m)
    exact = stats.hypergeom(n + m, 600_000_000, n).sf(hits - 1)
    assert exact == pytest.approx(stats.norm.sf(z), abs=1e-3)
    assert p == pytest.approx(exact, abs=0.012)


def test_rounding_does_not_break_ties():
    """0.2 + 0.4 is larger than 0.1 + 0.5 in floating point: counted in tenths both are 6, a tie, and a tie is extreme."""
    assert 0.2 + 0.4 > 0.1 + 0.5
    first, second = [2, 4], [1, 5, 3, 3]
    pool = np.array(first + second)
    sums = [pool[list(chosen)].sum() for chosen in itertools.combinations(range(6), 2)]
    exact = np.mean(np.array(sums) >= 6)
    _, p = permutation_test(np.array(first) / 10, np.array(second) / 10, permutations=20_000)
    assert p == pytest.approx(exact, abs=0.012)


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
    with pytest.raises(ValueError, match="finite"):
        wilcoxon_greater([1.0, np.nan])


@pytest.mark.parametrize("n", [1, 2, 7, 24, 50, 51])
def test_wilcoxon_is_exact_where_pairs_are_few_and_untied(n):
    for shift in (-0.5, 0.3, 2.0):
        d = np.random.default_rng(n).normal(shift, 1, n)
        method = "exact" if n <= 50 else "asymptotic"
        expected = stats.wilcoxon(d, alternative="greater", method=method, correction=False)
        assert wilcoxon_greater(d) == (expected.statistic, pytest.approx(expected.pvalue, rel=1e-9))
        # A zero says nothing about direction, and takes nothing away from exactness.
        assert wilcoxon_greater([*d, 0.0]) == wilcoxon_greater(d)


def test_few_ties_take_the_normal_limit():
    d = [1.0, 1.0, 2.0, -1.0, 3.0]
    expected = stats.wilcoxon(d, alternative="greater", method="asymptotic", correction=False)
    assert wilcoxon_greater(d)[1] == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize("level", [0.5, 0.95])
@pytest.mark.parametrize(("hits", "count"), [(0, 1), (0, 30), (30, 30), (7, 30), (1, 1)])
def test_wilson_equals_scipy(hits, count, level):
    expected = stats.binomtest(hits, count).proportion_ci(level, method="wilson")
    assert wilson(hits / count, count, level) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_holm_by_hand_and_by_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1, 1]
    assert holm([]).tolist() == []
    generator = np.random.default_rng(0)
    for _ in range(20):
        p = generator.uniform(0, 0.1, 9)
        for level in (0.01, 0.05, 0.2):
            # Step down: reject the smallest while it is at most level / (number of tests left).
            left, rejected = sorted(range(9), key=lambda i: p[i]), set()
            while left and p[left[0]] <= level / len(left):
                rejected.add(left.pop(0))
            assert {i for i in range(9) if holm(p)[i] <= level} == rejected


def test_bootstrap_p_counts_against_the_difference():
    resampled = np.array([0.1, 0.2, 0.0, -0.1, np.nan, 1e-15, 0.3, 0.3, 0.3])
    assert bootstrap_p(resampled, 1000) == (5 / 10, 1 / 10)
    assert bootstrap_p(np.ones(1999), 1000) == (1 / 2000, 1 / 2000)
    assert bootstrap_p(np.ones(1999), 3) == (1 / 8, 1 / 8)


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


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_the_level_of_a_tally_s_intervals(level):
    over = np.random.default_rng(0).integers(0, 9, (12, 1, 1)).astype(float)
    tally = Tally.empty(1, (1, 1), (1, 1), replicates=300, seed=4)
    zeros = np.zeros(12, int)
    tally.add(over, np.full_like(over, 9.0), labels=zeros, outcome=zeros, indices=np.arange(12))
    weights = picture_weights(range(12), 300, seed=4)
    shares = weights @ over[:, 0, 0] / 9 / weights.sum(axis=1)
    expected = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    _, low, high, _ = tally.estimate(level=level)
    assert (low.item(), high.item()) == pytest.approx(tuple(expected))
    sample = tally.sample((0, 0), level=level)
    assert (sample.low, sample.high) == (low.item(), high.item())
    assert sample.resampled == pytest.approx(shares)
    assert (sample.value, sample.pictures) == (pytest.approx(over.mean() / 9), 12)
    assert tally.sample((0, 0), 1) is None


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_of_zero_and_one_have_an_interval(share):
    """30 pictures of 100 tokens each: the pictures are what is independent, not the 3000 tokens."""
    over, under = np.full((30, 1, 1), 100.0 * share), np.full((30, 1, 1), 100.0)
    tally = Tally.empty(1, (1, 1), (1, 1), replicates=50, seed=0)
    zeros = np.zeros(30, int)
    tally.add(over, under, labels=zeros, outcome=zeros, indices=np.arange(30))
    value, low, high, _ = tally.estimate(level=0.9)
    expected = stats.binomtest(int(30 * share), 30).proportion_ci(0.9, method="wilson")
    assert (value.item(), low.item(), high.item()) == pytest.approx((share, expected.low, expected.high))
    assert np.isnan(tally.estimate(1)[1].item())


def test_one_picture_has_no_interval():
    tally = Tally.empty(1, (1, 1), (1, 1), replicates=50, seed=0)
    zero = np.zeros(1, int)
    tally.add(np.full((1, 1, 1), 3.0), np.full((1, 1, 1), 9.0), labels=zero, outcome=zero, indices=zero)
    value, low, high, _ = tally.estimate()
    assert value.item() == pytest.approx(1 / 3)
    assert np.isnan([low.item(), high.item()]).all()


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_the_interval_of_a_mean_has_the_level_that_was_asked_for(level):
    """Means of many pictures are normal: the interval is z standard errors to both sides."""
    values = np.random.default_rng(3).normal(2.0, 5.0, 400)
    low, high = bootstrap_ci(values, level=level, replicates=20_000)
    half = stats.norm.ppf(0.5 + level / 2) * values.std() / len(values) ** 0.5
    assert float(low) == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert float(high) == pytest.approx(values.mean() + half, abs=0.05 * half)
    again, other = (bootstrap_ci(values, level=level, replicates=100, seed=seed)[0] for seed in (0, 1))
    assert again == bootstrap_ci(values, level=level, replicates=100)[0] != other


def test_units_of_resampling():
    """The first pictures have units of their own; others belong to random ones, whatever the batch they come in."""
    assert resampling_units(range(UNITS)).tolist() == list(range(UNITS))
    many = np.arange(UNITS, 200_000)
    units = resampling_units(many, seed=3)
    assert stats.chisquare(np.bincount(units, minlength=UNITS)).pvalue > 0.01
    together = np.bincount(units[:-1] * UNITS + units[1:], minlength=UNITS**2)  # neighbours are not drawn together
    assert together.var() == pytest.approx(together.mean(), rel=0.02)
    np.testing.assert_array_equal(units[500:600], resampling_units(many[500:600], seed=3))
    assert (units != resampling_units(many, seed=4)).mean() > 0.99


@pytest.mark.parametrize("count", [600, 1024, 5000])
def test_the_interval_of_many_pictures_in_order_of_their_class(count):
    """Random groups keep the spread between classes, which groups of neighbours, or one of each class, would lose."""
    generator = np.random.default_rng(1)
    means = np.repeat(generator.uniform(0.1, 0.9, 10), -(-count // 10))[:count]
    over = generator.binomial(50, means).astype(float)
    halves = []
    for seed in range(8):
        tally = Tally.empty(0, (1, 1), (1, 1), replicates=2000, seed=seed)
        zeros = np.zeros(count, int)
        tally.add(
            over[:, None, None], np.full((count, 1, 1), 50.0), labels=zeros, outcome=zeros, indices=np.arange(count)
        )
        _, low, high, total = tally.estimate(level=0.9)
        halves.append((high - low).item() / 2)
    assert total.item() == 50 * count
    assert np.mean(halves) == pytest.approx(stats.norm.ppf(0.95) * over.std() / 50 / count**0.5, rel=0.06)


def test_a_tally_without_classes_or_intervals():
    tally = Tally.empty(0, (1, 1), (1, 1), replicates=0, seed=0)
    tally.add(np.ones((2, 1, 1)), np.full((2, 1, 1), 4.0), labels=[0, 1], outcome=[0, 1], indices=[0, 600])
    assert tally.estimate(1)[0].item() == 0.25
    assert np.isnan(tally.estimate()[1].item())
    assert tally.by_class()[0].shape == (0, 1, 1)
