"""The bootstrap over problems: what would other problems of the same kind have given?

Answers to one problem are alike, so what is drawn again is the problem, with all its answers. Intervals are
the percentile bootstrap's (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13): they
never leave the range of a share, and one set of resamples serves means, differences and areas alike. With few
problems they are too narrow (7 % at 30); the expanded percentile interval of Hesterberg (What Teachers Should
Know about the Bootstrap, The American Statistician 69, 2015) makes up for it. BCa (chapter 14) would correct
for skewness instead, needs a jackknife of every statistic, and does nothing about few problems.

N problems, R resamples.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elastic.evaluate.statistics.intervals import Z_95, Estimate, Interval, wilson_interval

Array = NDArray[np.float64]

RESAMPLES = 4_000  # the ends then move by some 2 % of the interval's half if drawn anew
_NORMAL = NormalDist()
_SEED = 20_251_127


@lru_cache(maxsize=2)
def resampling_counts(problems: int) -> Array:
    """[R, N] float64: how often each resample draws each of the problems, N times in all. Read-only.

    Equal N gives equal counts. So whoever orders two methods' problems alike resamples them jointly.
    """
    draws = np.random.default_rng(_SEED).integers(problems, size=(RESAMPLES, problems))
    draws += np.arange(RESAMPLES)[:, None] * problems
    found = np.bincount(draws.ravel(), minlength=RESAMPLES * problems)
    counts = found.reshape(RESAMPLES, problems).astype(np.float64)  # a matrix product takes no integers
    counts.flags.writeable = False
    return counts


def tail(problems: int) -> float:
    """The share of resamples beyond each end of a 95 % interval: 2.5 % of very many problems, less of few.

    Phi(-sqrt(N / (N - 1)) t), where t is Student's quantile with N - 1 degrees of freedom, by its expansion
    in 1 / (N - 1) (Abramowitz and Stegun, 26.7.5).
    """
    z, free = Z_95, max(problems - 1, 1)
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return _NORMAL.cdf(-t * math.sqrt(problems / free))


def bootstrap(
    statistic: Callable[[Array], Array], problems: int, bounds: tuple[float, float] | None = None
) -> Estimate:
    """A statistic with its interval.

    Args:
        statistic: of K lists of how often each problem counts, [K, N] with sums N, to K values.
        problems: N, at least 1.
        bounds: least and greatest value that any one problem could give; `unseen_interval` then stands in
            where resampling gives no width. None: such an interval has none.
    """
    value = float(statistic(np.ones((1, problems)))[0])
    beyond = tail(problems)
    low, high = np.quantile(statistic(resampling_counts(problems)), [beyond, 1 - beyond]).tolist()
    # Sums in another order differ by rounding: that is no width.
    if bounds is not None and high - low < 1e-12:
        return Estimate(value, *unseen_interval(value, problems, bounds))
    return Estimate(value, low, high)


def bootstrap_mean(values: ArrayLike, bounds: tuple[float, float] | None = (0.0, 1.0)) -> Estimate:
    """The mean over problems, with its 95 % interval.

    Args:
        values: [N], one for each problem: its share of correct answers, or any mean over its answers.
        bounds: least and greatest possible value, see `unseen_interval`; None for what has none, say tokens.

    Raises:
        ValueError: no values, or one that is out of bounds.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"bootstrap_mean: values must be a list of at least one, got shape {array.shape}")
    low, high = bounds or (-math.inf, math.inf)
    outside = array[~(np.isfinite(array) & (low <= array) & (array <= high))]
    if outside.size:
        raise ValueError(f"bootstrap_mean: values must be in [{low}, {high}], got {outside[0]}")
    return bootstrap(lambda counts: counts @ array / array.size, array.size, bounds)


def unseen_interval(value: float, problems: int, bounds: tuple[float, float]) -> Interval:
    """The interval where all problems gave the same value, so that resampling finds no width.

    Wilson's bound on the share of problems that differ, none of N having done so, times what those could
    change. At a bound of a share this is Wilson's interval: [0, z^2 / (N + z^2)] for no right answer in N
    problems.
    """
    differing = wilson_interval(0, problems).high
    low, high = bounds
    return Interval(value - differing * (value - low), value + differing * (high - value))


def ratio(counts: Array, numerators: Array, denominators: Array) -> Array:
    """[K], ratios of two means; where the denominator is 0, the ratio of all problems."""
    above, below = counts @ numerators, counts @ denominators
    whole = numerators.sum() / denominators.sum()
    return np.where(below == 0, whole, above / np.where(below == 0, 1.0, below))
