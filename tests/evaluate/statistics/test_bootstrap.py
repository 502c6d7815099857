"""The bootstrap over problems, against what is known of a mean."""

import time

import numpy as np
import pytest

from elastic.evaluate.statistics import bootstrap_mean, wilson_interval
from elastic.evaluate.statistics.bootstrap import resampling_counts, tail


def test_the_interval_of_a_mean_is_about_two_standard_errors_each_way() -> None:
    values = np.tile([0.0, 0.5, 1.0, 1.0], 100)
    estimate = bootstrap_mean(values)
    # mean 0.625, variance 0.171875; sqrt(0.171875 / 400) = 0.020729; 1.96 of them are 0.040629
    assert estimate.value == 0.625
    assert estimate.low == pytest.approx(0.625 - 0.0406, abs=0.002)
    assert estimate.high == pytest.approx(0.625 + 0.0406, abs=0.002)


def test_95_of_100_intervals_hold_the_truth() -> None:
    """400 lists of 60 problems, each right with a chance of its own, four answers each; true mean 0.6."""
    random = np.random.default_rng(1)
    chances = random.beta(3, 2, size=(400, 60))
    shares = random.binomial(4, chances) / 4
    held = [low <= 0.6 <= high for _, low, high in map(bootstrap_mean, shares)]
    # a share of 0.95 in 400 has a standard error of 0.011
    assert 0.915 <= np.mean(held) <= 0.98


def test_few_problems_are_not_too_sure() -> None:
    """1,000 lists of 10 problems; with 2.5 % beyond each end 92 of 100 intervals hold the truth."""
    shares = np.random.default_rng(2).binomial(8, 0.6, size=(1_000, 10)) / 8
    held = [low <= 0.6 <= high for _, low, high in map(bootstrap_mean, shares)]
    assert 0.93 <= np.mean(held) <= 0.97


def test_the_share_beyond_each_end_is_students_for_few_problems() -> None:
    # t with 29 degrees of freedom is 2.0452; 2.0452 * sqrt(30 / 29) = 2.0802, and Phi(-2.0802) = 0.01875
    assert tail(30) == pytest.approx(0.01875, abs=3e-5)
    assert tail(1_000_000) == pytest.approx(0.025, abs=1e-5)


def test_answers_drawn_again_one_by_one_would_be_too_sure() -> None:
    """The unit is the problem: four equal answers to each of 60 problems are 60 facts, not 240."""
    values = np.tile([0.0, 1.0], 30)
    by_problem, by_answer = bootstrap_mean(values), bootstrap_mean(np.repeat(values, 4))
    width = by_problem.high - by_problem.low
    assert width == pytest.approx(2 * (by_answer.high - by_answer.low), rel=0.1)


def test_equal_values_give_equal_intervals_in_every_call() -> None:
    values = np.random.default_rng(0).random(50)
    first = bootstrap_mean(values)
    resampling_counts.cache_clear()
    assert bootstrap_mean(values) == first


@pytest.mark.parametrize(("share", "successes"), [(0.0, 0), (1.0, 10)])
def test_where_all_problems_are_right_or_wrong_the_interval_is_wilsons(share, successes) -> None:
    estimate = bootstrap_mean([share] * 10)
    assert estimate.value == share
    assert estimate.interval == pytest.approx(wilson_interval(successes, 10))


def test_equal_shares_between_leave_room_for_problems_not_seen() -> None:
    # at most 3.8416 / (10 + 3.8416) = 0.27754 of the problems differ, by 0.5 at most
    assert bootstrap_mean([0.5] * 10).interval == pytest.approx((0.5 - 0.138770, 0.5 + 0.138770), abs=1e-5)
    # no difference in ten problems: those not seen could differ by 1 either way
    assert bootstrap_mean([0.0] * 10, (-1.0, 1.0)).interval == pytest.approx((-0.27754, 0.27754), abs=1e-5)


def test_what_unseen_problems_could_change_ends_at_the_bounds() -> None:
    # up by 0.27754 * (4 - 1), down by 0.27754 * (1 - 0)
    assert bootstrap_mean([1.0] * 10, (0, 4)).interval == pytest.approx((0.72246, 1.83262), abs=1e-5)
    assert bootstrap_mean([7.0] * 10, None) == (7.0, 7.0, 7.0)


def test_an_interval_lies_within_the_values() -> None:
    assert bootstrap_mean([0.9, 1.0, 1.0]).high <= 1.0


def test_512_problems_are_resampled_at_once_and_not_one_by_one() -> None:
    """Some 0.06 s of one core, drawing included; a loop over problems takes seconds."""
    values = np.random.default_rng(0).random(512)
    times = []
    for _ in range(3):
        resampling_counts.cache_clear()
        started = time.process_time()
        bootstrap_mean(values)
        times.append(time.process_time() - started)
    assert min(times) < 0.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "at least one"),
        ([[0.5]], "at least one, got shape"),
        ([0.5, 1.5], r"values must be in \[0.0, 1.0\], got 1.5"),
        ([0.5, float("nan")], "got nan"),
    ],
)
def test_nothing_and_nonsense_have_no_mean(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values)


def test_without_bounds_an_infinite_value_is_refused_all_the_same() -> None:
    with pytest.raises(ValueError, match="got inf"):
        bootstrap_mean([1.0, float("inf")], None)
