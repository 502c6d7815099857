"""Interval values worked out by hand."""

import pytest

from elastic.evaluate.statistics import Estimate, Interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # z^2 = 3.8416. 8 of 10: centre (0.8 + 0.19208) / 1.38416 = 0.716738,
        # half 1.96 * sqrt(0.016 + 0.009604) / 1.38416 = 0.226581.
        (8, 10, 0.490157, 0.943319),
        # 0 of 10: from 0 to z^2 / (n + z^2) = 3.8416 / 13.8416.
        (0, 10, 0.0, 0.277540),
        (10, 10, 0.722460, 1.0),
        # 1 of 2: centre 0.5, half 1.96 * sqrt(0.125 + 0.2401) / 2.9208 = 0.405471.
        (1, 2, 0.094529, 0.905471),
        # 50 of 100: half 1.96 * sqrt(0.0025 + 0.00009604) / 1.038416 = 0.096170.
        (50, 100, 0.403830, 0.596170),
    ],
)
def test_wilson_interval_equals_values_worked_out_by_hand(
    successes: int, trials: int, low: float, high: float
) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=2e-6)


def test_wilson_interval_never_leaves_the_unit_interval() -> None:
    for trials in range(1, 40):
        for successes in range(trials + 1):
            low, high = wilson_interval(successes, trials)
            assert 0.0 <= low <= successes / trials <= high <= 1.0


def test_a_larger_z_gives_a_wider_interval() -> None:
    narrow, wide = wilson_interval(3, 10, z=1.0), wilson_interval(3, 10, z=3.0)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0), "trials must be at least 1, got 0"),
        ((-1, 5), r"successes must be in \[0, trials=5\], got -1"),
        ((6, 5), r"successes must be in \[0, trials=5\], got 6"),
        ((1, 5, 0.0), "z must be above 0, got 0.0"),
    ],
)
def test_wilson_interval_refuses_impossible_counts(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wilson_interval(*arguments)


def test_intervals_overlap_when_they_share_a_point() -> None:
    assert Interval(0.1, 0.3).overlaps(Interval(0.3, 0.5))
    assert Interval(0.3, 0.5).overlaps(Interval(0.1, 0.3))
    assert Interval(0.0, 1.0).overlaps(Interval(0.4, 0.5))
    assert not Interval(0.1, 0.3).overlaps(Interval(0.31, 0.5))
    assert not Interval(0.31, 0.5).overlaps(Interval(0.1, 0.3))


def test_an_estimate_has_a_sign_where_its_interval_leaves_out_zero() -> None:
    assert Estimate(0.2, 0.1, 0.3).sign == 1
    assert Estimate(-0.2, -0.3, -0.1).sign == -1
    assert Estimate(0.2, 0.0, 0.3).sign == Estimate(-0.2, -0.3, 0.0).sign == 0
    assert Estimate(0.2, 0.1, 0.3).interval == Interval(0.1, 0.3)
