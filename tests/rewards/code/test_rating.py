"""Ratings from solved problems, and percentiles."""

import math
import random

import pytest

from elastic.rewards.code.rating import PERCENTILES, percentile, rating


def test_half_of_the_problems_of_one_rating_gives_that_rating() -> None:
    found = rating([1500] * 4, [1, 0, 0, 1])
    assert found is not None
    assert found.value == pytest.approx(1500, abs=1e-3)
    # information 4 x 1/4, so an error of 1.96 x 400 / ln 10
    assert found.high - found.value == pytest.approx(1.96 * 400 / math.log(10), rel=1e-4)
    assert found.value - found.low == pytest.approx(found.high - found.value)
    assert found.problems == 4


def test_ten_of_eleven_is_400_points_above() -> None:
    found = rating([1200] * 11, [1] * 10 + [0])
    assert found is not None
    assert found.value == pytest.approx(1600, abs=1e-3)


def test_shares_count_as_that_many_solved() -> None:
    shares = rating([800, 1600], [0.75, 0.25])
    flags = rating([800] * 4 + [1600] * 4, [1, 1, 1, 0, 1, 0, 0, 0])
    assert shares is not None
    assert flags is not None
    assert shares.value == pytest.approx(flags.value, abs=1e-3) == pytest.approx(1200, abs=1e-3)


def test_a_known_rating_is_found_again() -> None:
    draw = random.Random(0)
    problems = [draw.choice(range(800, 3500, 100)) for _ in range(4000)]
    solved = [draw.random() < 1 / (1 + 10 ** ((problem - 1850) / 400)) for problem in problems]
    found = rating(problems, solved)
    assert found is not None
    assert found.low < 1850 < found.high
    assert found.high - found.low < 60


@pytest.mark.parametrize("flag", [0, 1])
def test_all_or_nothing_says_nothing(flag: int) -> None:
    assert rating([800, 3500], [flag, flag]) is None


@pytest.mark.parametrize(
    ("problems", "solved", "message"),
    [
        ([], [], "solved: expected one value for each of the 0 problems, at least one, got 0"),
        ([800], [1, 0], "solved: expected one value for each of the 1 problems, at least one, got 2"),
        ([800, math.nan], [1, 0], "problem_ratings: expected finite numbers, got nan"),
        ([800, 900], [1, 2], r"solved: expected shares in \[0, 1\], got 2"),
    ],
)
def test_bad_results_are_named(problems: list[float], solved: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rating(problems, solved)


def test_percentiles_are_the_published_ones_and_lie_between_them_elsewhere() -> None:
    for value, share in PERCENTILES:
        assert percentile(value) == pytest.approx(share)
    assert percentile(1650) == pytest.approx((75 + 94) / 2)


@pytest.mark.parametrize("value", [-200, 800, 1142.9, 3000.1, 4000])
def test_no_percentile_is_made_up_where_none_was_published(value: float) -> None:
    assert percentile(value) is None
