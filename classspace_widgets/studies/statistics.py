"""Vectorised statistics: bootstrap over pictures, permutation tests, Wilcoxon's signed-rank test.

Random numbers are seeded by the picture's position in the data set, so results do not depend on batches, shards or
interruptions.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    Floats = np.ndarray[Any, np.dtype[np.float64]]
    Counts = np.ndarray[Any, np.dtype[np.int64]]

# numpy's hypergeometric generator refuses larger numbers of tokens; the normal approximation is accurate enough there.
_HYPERGEOMETRIC_LIMIT = 10**9
# Up to this many pairs, as in scipy, Wilcoxon's null distribution is computed exactly.
_EXACT_PAIRS = 50
REPLICATES = 2000
"""Default number of bootstrap resamples: the ends of a 95 % interval are then each estimated from 50 resamples."""


UNITS = 512
"""Units of resampling U. The spread of so many is known within 3 %, as are the ends of an interval from `REPLICATES`."""


def resampling_units(indices: ArrayLike, *, seed: int = 0) -> Counts:
    """The unit of resampling that each picture belongs to: pictures of a unit are drawn together.

    Parameters
    ----------
    indices : array_like [B]
        Positions of the pictures in the data set.
    seed : int

    Returns
    -------
    ndarray [B], int64
        0..U-1 with U = `UNITS`. The first U pictures each have a unit of their own, so up to so many are resampled one by
        one; all others belong to random units. Depends only on ``seed`` and the position.

    Notes
    -----
    Resampling random groups of independent pictures estimates the same variance as resampling pictures (Wolter 2007,
    Introduction to Variance Estimation, chapter 2), from sums whose size depends neither on the number of pictures nor
    on the number of resamples.

    Examples
    --------
    >>> resampling_units([0, 511, 512, 10**12]).tolist()
    [0, 511, 102, 376]
    """
    positions = np.asarray(indices, np.uint64)
    # SplitMix64 (Steele, Lea and Flood 2014): neighbouring positions give unrelated numbers.
    with np.errstate(over="ignore"):
        mixed = positions + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed % 2**32 + 1)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    units: Counts = np.where(positions < UNITS, positions, mixed % np.uint64(UNITS)).astype(np.int64)
    return units


def unit_weights(replicates: int, *, seed: int = 0) -> Floats:
    """Bootstrap weights ``[R, U]`` of the units of resampling; see `picture_weights`."""
    return picture_weights(range(UNITS), replicates, seed=seed)


def unit_signs(replicates: int, *, seed: int = 0) -> Floats:
    """Random signs ``[R, U]`` of the units of resampling; see `picture_signs`."""
    return picture_signs(range(UNITS), replicates, seed=seed)


def picture_weights(indices: ArrayLike, replicates: int, *, seed: int = 0) -> Floats:
    """Poisson bootstrap weights: how often each picture occurs in each resample.

    Parameters
    ----------
    indices : array_like [B]
        Positions of the pictures in the data set.
    replicates : int
        R, the number of resamples.
    seed : int

    Returns
    -------
    ndarray [R, B], float64
        Independent Poisson(1) counts that depend only on ``seed`` and the position. They approximate the multinomial counts
        of the textbook bootstrap in one pass over the data (Chamandy et al. 2012).
    """
    return _draws("weights", tuple(np.asarray(indices).tolist()), replicates, seed)


def picture_signs(indices: ArrayLike, replicates: int, *, seed: int = 0) -> Floats:
    """Random signs ``[R, B]`` for a sign-flip permutation test over pictures; see `picture_weights`."""
    return _draws("signs", tuple(np.asarray(indices).tolist()), replicates, seed)


# Cached because all studies of a run need the same draws for a batch.
@lru_cache(maxsize=4)
def _draws(kind: str, indices: tuple[int, ...], replicates: int, seed: int) -> Floats:
    drawn = np.empty((replicates, len(indices)))
    for column, index in enumerate(indices):
        if kind == "weights":
            generator = np.random.Generator(np.random.Philox(key=[seed, index]))
            drawn[:, column] = generator.poisson(1.0, replicates)
        else:
            # Another key, so that a picture's signs are independent of its weights.
            generator = np.random.Generator(np.random.Philox(key=[seed + (1 << 32), index]))
            drawn[:, column] = generator.integers(0, 2, replicates) * 2 - 1
    drawn.setflags(write=False)
    return drawn


def bootstrap_ci(
    values: ArrayLike, *, replicates: int = REPLICATES, level: float = 0.95, seed: int = 0
) -> tuple[Any, Any]:
    """Percentile interval of the mean over axis 0 of ``values [B, ...]``, by resampling whole pictures.

    Parameters
    ----------
    values : array_like [B, ...]
        One row for each picture.
    replicates : int
        Resamples.
    level : float
        Coverage of the interval, 0 to 1.
    seed : int

    Returns
    -------
    low, high : ndarray [...]

    Examples
    --------
    >>> low, high = bootstrap_ci(np.arange(100.0))
    >>> bool(low < 49.5 < high)
    True
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(f"values must have shape [B, ...] with at least one picture, got {values.shape}")
    flat = values.reshape(len(values), -1)
    generator = np.random.default_rng(seed)
    means = generator.multinomial(len(flat), np.full(len(flat), 1 / len(flat)), replicates) @ flat / len(flat)
    low, high = interval(means, level)
    return low.reshape(values.shape[1:]), high.reshape(values.shape[1:])


def interval(replicates: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Percentile interval over axis 0, without NaN (empty resamples)."""
    tail = (1 - level) / 2
    missing = np.isnan(replicates)
    if not missing.any():
        low, high = np.quantile(replicates, [tail, 1 - tail], axis=0)
        return low, high
    empty = missing.all(axis=0)
    filled = np.where(empty, 0.0, replicates)
    low, high = np.nanquantile(filled, [tail, 1 - tail], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def wilson(share: ArrayLike, count: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """Wilson's score interval of shares of ``count`` independent pictures.

    Unlike a bootstrap interval it has a width also for shares of 0 and 1: a share of 1 among n pictures gives
    ``n / (n + z**2)`` to 1 (Wilson 1927).

    Parameters
    ----------
    share : array_like
        In [0, 1].
    count : array_like
        Pictures, at least 1.
    level : float
        Coverage of the interval, 0 to 1.

    Returns
    -------
    low, high : ndarray

    Examples
    --------
    >>> low, high = wilson(1.0, 300)
    >>> round(float(low), 3), float(high)
    (0.987, 1.0)
    """
    p, n = np.asarray(share, np.float64), np.asarray(count, np.float64)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = p + z**2 / (2 * n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)
    # Exactly 0 and 1 at the ends, without rounding errors.
    return np.where(p == 0, 0.0, low), np.where(p == 1, 1.0, high)


def holm(p: ArrayLike) -> Floats:
    """p values corrected for the number of tests (Holm 1979): the k-th smallest of m times m - k + 1, made monotonic.

    Rejecting those of at most 0.05 keeps the probability of any false rejection at 0.05 or less, also for dependent tests.

    Parameters
    ----------
    p : array_like [m]

    Returns
    -------
    ndarray [m], float64
        In [0, 1].

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def bootstrap_p(resampled: Floats, pictures: int) -> tuple[float, float]:
    """One-sided p of a difference above 0, from its bootstrap resamples, and the smallest p that they can give.

    Parameters
    ----------
    resampled : ndarray [R]
        The difference in each resample of the pictures; NaN if a resample has no picture.
    pictures : int
        Number of pictures behind the difference.

    Returns
    -------
    p, least : float
        ``(k + 1) / (R + 1)`` for k resamples that are not above 0 (or are empty), and at least ``2**-pictures``, the
        smallest p of a sign-flip test with this number of pictures.

    Examples
    --------
    >>> bootstrap_p(np.array([0.1, 0.2, 0.3]), pictures=100)
    (0.25, 0.25)
    """
    # 1e-12 is above the rounding error of a difference of equal shares.
    against = int(np.count_nonzero(~(resampled > 1e-12)))
    least = max(1 / (len(resampled) + 1), 2.0 ** -min(pictures, 1000))
    return max((against + 1) / (len(resampled) + 1), least), least


def permutation_test(
    first: ArrayLike,
    second: ArrayLike,
    *,
    permutations: int = 300,
    alternative: Literal["greater", "less", "two-sided"] = "greater",
    seed: int = 0,
) -> tuple[float, float]:
    """Permutation test of a difference of means, with ``p = (k + 1) / (n + 1)``.

    Parameters
    ----------
    first, second : array_like [n], [m]
        Values of the two groups, such as identifiability of class and of context tokens.
    permutations : int
        The paper uses 300.
    alternative : str
        ``"greater"``: the first group's mean is larger.
    seed : int

    Returns
    -------
    difference : float
        Mean of the first minus mean of the second group.
    p : float
        In [1/(permutations + 1), 1].

    Notes
    -----
    Shuffling labels over the pooled values draws the first group from the pool without replacement. If values repeat, as
    ranks do, their counts are drawn from a multivariate hypergeometric distribution: exact, at a cost independent of the
    number of tokens.

    Examples
    --------
    >>> difference, p = permutation_test([5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 3.0, 4.0])
    >>> difference, p < 0.05
    (4.0, True)
    """
    a, b = np.asarray(first, np.float64).ravel(), np.asarray(second, np.float64).ravel()
    if len(a) == 0 or len(b) == 0:
        raise ValueError(f"both groups need at least one value, got {len(a)} and {len(b)}")
    pool = np.concatenate([a, b])
    if not np.isfinite(pool).all():
        raise ValueError("values must be finite; drop NaN before the test")
    values, position = np.unique(pool, return_inverse=True)
    # Drawing counts is faster than drawing subsets if values repeat often.
    if len(values) <= max(64, len(pool) // 8):
        counts = np.stack([np.bincount(p, minlength=len(values)) for p in (position[: len(a)], position[len(a) :])])
        return permutation_test_counts(values, counts, permutations=permutations, alternative=alternative, seed=seed)
    generator = np.random.default_rng(seed)
    small = min(len(a), len(b))
    sums = np.array([_subset_sum(pool, small, generator) for _ in range(permutations)])
    sums = sums if len(a) == small else pool.sum() - sums
    return _difference_and_p(
        float(a.sum()), sums, float(pool.sum()), len(a), len(b), alternative, float(np.abs(pool).sum())
    )


def _subset_sum(pool: Floats, size: int, generator: np.random.Generator) -> float:
    """Sum of a uniformly drawn subset of ``size`` elements.

    Independent coin flips give a uniform subset of random size; adding or removing uniformly drawn elements gives the
    right size and keeps it uniform. Much cheaper than a shuffle.
    """
    inside = generator.random(len(pool), dtype=np.float32) < size / len(pool)
    excess = int(np.count_nonzero(inside)) - size
    if excess:
        movable = np.flatnonzero(inside if excess > 0 else ~inside)
        inside[generator.choice(movable, abs(excess), replace=False, shuffle=False)] ^= True
    return float(pool @ inside.astype(np.float64))


def permutation_test_counts(
    values: ArrayLike,
    counts: ArrayLike,
    *,
    permutations: int = 300,
    alternative: Literal["greater", "less", "two-sided"] = "greater",
    seed: int = 0,
) -> tuple[float, float]:
    """`permutation_test` on histograms: ``values [V]`` occur ``counts [2, V]`` times in the two groups."""
    levels, table = np.asarray(values, np.float64), np.asarray(counts, np.int64)
    if table.shape != (2, len(levels)):
        raise ValueError(f"counts must have shape [2, V]=(2, {len(levels)}), got {table.shape}")
    n, m = (int(s) for s in table.sum(axis=1))
    if n == 0 or m == 0:
        return float("nan"), float("nan")
    pool = table.sum(axis=0)
    total = float(pool @ levels)
    used = pool > 0
    generator = np.random.default_rng(seed)
    if n + m < _HYPERGEOMETRIC_LIMIT:
        draws = generator.multivariate_hypergeometric(pool[used], n, size=permutations, method="marginals")
        sums = draws @ levels[used]
    else:
        mean = total / (n + m)
        spread = float(pool @ (levels - mean) ** 2) / (n + m - 1)
        sums = generator.normal(n * mean, math.sqrt(n * m / (n + m) * spread), permutations)
    return _difference_and_p(float(table[0] @ levels), sums, total, n, m, alternative, float(pool @ np.abs(levels)))


def _difference_and_p(
    own: float, sums: Floats, total: float, n: int, m: int, alternative: str, size: float
) -> tuple[float, float]:
    def difference(s: Any) -> Any:
        return s / n - (total - s) / m

    true, shuffled = difference(own), difference(sums)
    # A bound on the rounding error of a difference, where ``size`` is the sum of all absolute values.
    slack = 1e-12 * size * (1 / n + 1 / m)
    if alternative == "greater":
        extreme = shuffled >= true - slack
    elif alternative == "less":
        extreme = shuffled <= true + slack
    elif alternative == "two-sided":
        extreme = np.abs(shuffled) >= abs(true) - slack
    else:
        raise ValueError(f"alternative must be greater, less or two-sided, got {alternative!r}")
    return float(true), float((extreme.sum() + 1) / (len(sums) + 1))


def wilcoxon_greater(differences: ArrayLike) -> tuple[float, float]:
    """Wilcoxon's signed-rank test that paired differences are positive.

    Parameters
    ----------
    differences : array_like [n]
        First minus second of each pair; zeros are dropped.

    Returns
    -------
    statistic : float
        Sum of the ranks of the positive differences.
    p : float
        One-sided. Exact for up to 50 differences without ties; otherwise the normal approximation with correction for ties:
        ``scipy.stats.wilcoxon(d, alternative="greater", method="exact" or "asymptotic")``.

    Examples
    --------
    >>> wilcoxon_greater([1.0, 2.0, 3.0, -0.5])  # 2 of the 16 ways to sign four ranks reach a sum of 9
    (9.0, 0.125)
    """
    d = np.asarray(differences, np.float64).ravel()
    if not np.isfinite(d).all():
        raise ValueError("differences must be finite; drop NaN before the test")
    d = d[d != 0]
    if len(d) == 0:
        return 0.0, 1.0
    _, position, ties = np.unique(np.abs(d), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[position]
    statistic, n = float(ranks[d > 0].sum()), len(d)
    if n <= _EXACT_PAIRS and len(ties) == n:
        return statistic, _signed_rank_tail(n, round(statistic))
    mean = n * (n + 1) / 4
    variance = n * (n + 1) * (2 * n + 1) / 24 - float(((ties.astype(np.float64)) ** 3 - ties).sum()) / 48
    return statistic, 0.5 * math.erfc((statistic - mean) / math.sqrt(2 * variance))


def least_wilcoxon_p(differences: ArrayLike) -> float:
    """The smallest p that `wilcoxon_greater` can give for this many differences; 0 for the normal approximation."""
    d = np.asarray(differences, np.float64)
    n = int(np.count_nonzero(d))
    untied = len(np.unique(np.abs(d[d != 0]))) == n
    return 2.0**-n if n <= _EXACT_PAIRS and untied else 0.0


def _signed_rank_tail(n: int, statistic: int) -> float:
    """Share of the ``2**n`` ways to sign the ranks 1..n whose positive ones sum to ``statistic`` or more."""
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1
    for rank in range(1, n + 1):
        ways[rank:] += ways[:-rank].copy()
    # Whole numbers below 2**53, so exact.
    return float(ways[statistic:].sum() / 2.0**n)
