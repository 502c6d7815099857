"""Codeforces ratings from results: which rating makes the problems that were solved the most likely.

A participant of rating r solves a problem of rating d with probability ``1 / (1 + 10 ** ((d - r) / 400))``:
so Codeforces defines the ratings of problems (codeforces.com/blog/entry/62865). The most likely r is where
the expected number of solved problems is the number solved. CodeElo (arXiv 2501.01257) rates a model among
the people who took part, contest by contest, which needs the contests' standings and Codeforces' own judge.
This estimate needs the problems' ratings alone; the two differ by more than rounding.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

_SCALE = 400 / math.log(10)
_BEYOND = 4000.0  # the hardest and the easiest problem: no mix of results is rated further out
_WITHIN_95 = 1.96

# (rating, percent of users below it): of the 89,352 users with at least six contests, one of them within six
# months. Source: codeforces.com/blog/entry/126802 and its comments, 2024; 1200 and 1400 in whole percents.
PERCENTILES = ((1143, 50.0), (1200, 55.0), (1400, 75.0), (1900, 94.0), (2400, 99.2), (3000, 99.93))


@dataclass(frozen=True)
class Rating:
    """An estimate.

    Attributes:
        value: the most likely rating.
        low: of its 95 % interval, from the curvature of the likelihood.
        high: likewise.
        problems: that it stands on.
    """

    value: float
    low: float
    high: float
    problems: int


def rating(problem_ratings: Sequence[float], solved: Sequence[float]) -> Rating | None:
    """The most likely rating; None where everything or nothing was solved, which any extreme one explains.

    Args:
        problem_ratings: [P] Codeforces' rating of each problem.
        solved: [P] 1 or 0, or the share of a problem's samples that solved it.

    Raises:
        ValueError: no problems, different numbers of them, a rating that is not finite, or a share outside
            [0, 1].
    """
    if len(problem_ratings) != len(solved) or not solved:
        raise ValueError(
            f"solved: expected one value for each of the {len(problem_ratings)} problems, at least one, "
            f"got {len(solved)}"
        )
    for value in problem_ratings:
        if not math.isfinite(value):
            raise ValueError(f"problem_ratings: expected finite numbers, got {value}")
    for share in solved:
        if not 0 <= share <= 1:
            raise ValueError(f"solved: expected shares in [0, 1], got {share}")
    total = sum(solved)
    if total in (0, len(solved)):
        return None
    low, high = min(problem_ratings) - _BEYOND, max(problem_ratings) + _BEYOND
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if sum(_chances(problem_ratings, middle)) < total else (low, middle)
    information = sum(chance * (1 - chance) for chance in _chances(problem_ratings, low))
    error = _WITHIN_95 * _SCALE / math.sqrt(information)
    return Rating(value=low, low=low - error, high=low + error, problems=len(solved))


def percentile(value: float) -> float | None:
    """Percent of active Codeforces users with a lower rating, between the points of `PERCENTILES`.

    Returns:
        None outside of them: below the median and above 3000 no share was published.
    """
    place = bisect_right([point for point, _ in PERCENTILES], value)
    if value == PERCENTILES[-1][0]:
        return PERCENTILES[-1][1]
    if not 0 < place < len(PERCENTILES):
        return None
    (left, below), (right, above) = PERCENTILES[place - 1], PERCENTILES[place]
    return below + (above - below) * (value - left) / (right - left)


def _chances(problem_ratings: Sequence[float], value: float) -> list[float]:
    return [1 / (1 + 10 ** ((difficulty - value) / 400)) for difficulty in problem_ratings]
