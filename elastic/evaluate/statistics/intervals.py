"""Intervals, and Wilson's for shares."""

import math
from typing import Any, NamedTuple

Z_95 = 1.96  # two-sided 95 % of the normal distribution


class Interval(NamedTuple):
    """Both ends of a confidence interval, as shares in [0, 1]."""

    low: float
    high: float

    def overlaps(self, other: "Interval") -> bool:
        """Whether the two intervals have a point in common."""
        return self.low <= other.high and other.low <= self.high


class Estimate(NamedTuple):
    """A value and both ends of its 95 % confidence interval, in the value's unit."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> Interval:
        """Both ends alone."""
        return Interval(self.low, self.high)

    @property
    def sign(self) -> int:
        """1 where the whole interval is above 0, -1 where it is below, 0 where it holds 0."""
        return int(self.low > 0) - int(self.high < 0)


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> Interval:
    """Wilson's score interval of a binomial share.

    Unlike ``p +- z * sqrt(p (1 - p) / n)`` it has a width at 0 and at 1 and never leaves [0, 1]. It assumes
    independent trials: several samples of one problem are not, so give it one trial per problem.

    Args:
        successes: correct answers, in [0, trials].
        trials: answers, at least 1.
        z: quantile of the normal distribution, 1.96 for 95 %.

    Raises:
        ValueError: a count out of range, or ``z`` not above 0.

    Source: E. B. Wilson, JASA 22 (1927) 209-212.
    """
    if trials < 1:
        raise ValueError(f"wilson_interval: trials must be at least 1, got {trials}")
    if not 0 <= successes <= trials:
        raise ValueError(f"wilson_interval: successes must be in [0, trials={trials}], got {successes}")
    if not z > 0:
        raise ValueError(f"wilson_interval: z must be above 0, got {z}")
    share = successes / trials
    weight = z * z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    # The exact ends at 0 and at `trials` successes; rounding misses them by 1e-16.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Interval(low, high)


def plain_fields(record: Any) -> dict[str, Any]:
    """The fields of a dataclass for JSON: an estimate is a dict of its value, low and high."""
    return {
        key: value._asdict() if isinstance(value, Estimate) else value for key, value in vars(record).items()
    }
