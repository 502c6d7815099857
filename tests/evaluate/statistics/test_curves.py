"""Accuracy against tokens, interpolated by hand."""

import numpy as np
import pytest

from elastic.evaluate.sample import Sample
from elastic.evaluate.statistics import (
    accuracy_curve,
    area_under_curve,
    curve_pair,
    difference_at_equal_tokens,
    paired_difference,
)
from tests.evaluate.statistics.samples import answer, answers


def method(name: str, points: list[tuple[int, list[float]]]) -> list[Sample]:
    """Budgets of (tokens of every answer, one grade a problem)."""
    return [
        sample
        for index, (tokens, grades) in enumerate(points)
        for sample in answers(
            [[grade] for grade in grades], method=name, budget=(index, 8, None), tokens=tokens
        )
    ]


# accuracies 0.25 at 10 tokens, 0.75 at 30, 0.5 at 50; budgets not in the order of their tokens
A = method("a", [(30, [1, 1, 1, 0]), (10, [1, 0, 0, 0]), (50, [1, 0, 1, 0])])
# 0 at 20, 0.5 at 40
B = method("b", [(20, [0, 0, 0, 0]), (40, [1, 1, 0, 0])])


def test_points_are_the_budgets_sorted_by_tokens_and_may_fall() -> None:
    assert accuracy_curve(A).points() == [(10.0, 0.25), (30.0, 0.75), (50.0, 0.5)]
    assert accuracy_curve(A).reach == (10.0, 50.0)


def test_tokens_are_means_over_problems_of_means_over_answers() -> None:
    samples = [answer("p", tokens=10), answer("p", tokens=30, number=1), answer("q", tokens=50)]
    assert accuracy_curve(samples).points() == [((20 + 50) / 2, 1.0)]


def test_the_difference_at_equal_tokens_is_read_off_both_lines() -> None:
    # at 25: 0.25 + 15/20 * 0.5 = 0.625 and 5/20 * 0.5 = 0.125; at 40: 0.625 and 0.5
    for tokens, expected in ((20, 0.5), (25, 0.5), (40, 0.125)):
        found = difference_at_equal_tokens(A, B, tokens)
        assert found is not None
        assert found.value == pytest.approx(expected)
        assert found.low <= found.value <= found.high


def test_beyond_one_curve_there_is_no_difference() -> None:
    assert difference_at_equal_tokens(A, B, 19.9) is None
    assert difference_at_equal_tokens(A, B, 40.1) is None


def test_at_a_common_point_the_difference_is_the_paired_one() -> None:
    a, b = method("a", [(10, [1, 0, 1, 1])]), method("b", [(10, [1, 0, 0, 1])])
    assert difference_at_equal_tokens(a, b, 10) == paired_difference(a, b)


def test_the_area_is_the_mean_height_over_the_range() -> None:
    # [10, 30]: mean of 0.25 and 0.75; [20, 40]: 0.5 up to 0.75, 0.75 down to 0.625, ten tokens each
    assert area_under_curve(A, 10, 30).value == pytest.approx(0.5)
    assert area_under_curve(A, 20, 40).value == pytest.approx((0.625 + 0.6875) / 2)
    assert area_under_curve(A, 40, 50).value == pytest.approx((0.625 + 0.5) / 2)
    assert area_under_curve(A, 10, 50).value == pytest.approx((0.5 + 0.625) / 2)


def test_areas_are_compared_where_both_curves_are() -> None:
    assert curve_pair(A, B).reach == (20.0, 40.0)
    found = curve_pair(A, B).area_difference()
    assert found is not None
    assert found.value == pytest.approx((0.625 + 0.6875) / 2 - 0.25)
    assert found.value == pytest.approx(area_under_curve(A, 20, 40).value - area_under_curve(B, 20, 40).value)


def test_curves_without_a_common_range_have_no_area_between_them() -> None:
    late = method("b", [(60, [0, 0, 0, 0]), (70, [1, 1, 0, 0])])
    assert curve_pair(A, late).reach is None
    assert curve_pair(A, late).area_difference() is None


@pytest.mark.parametrize(("low", "high"), [(9, 30), (10, 51), (30, 30), (30, 20)])
def test_a_range_beyond_the_curve_is_refused(low, high) -> None:
    with pytest.raises(ValueError, match=rf"\[10.0, 50.0\] tokens, got {low} and {high}"):
        area_under_curve(A, low, high)


def test_problems_resampled_jointly_give_a_narrower_interval_than_apart() -> None:
    """Each problem is easy or hard for both methods alike; a is a little better at both budgets."""
    random = np.random.default_rng(0)
    hard = random.random(200)
    a = method("a", [(10, list(hard < 0.4)), (30, list(hard < 0.7))])
    b = method("b", [(10, list(hard < 0.35)), (30, list(hard < 0.65))])
    joint = curve_pair(a, b).area_difference()
    assert joint is not None
    apart = [area_under_curve(samples, 10, 30) for samples in (a, b)]
    widths = [estimate.high - estimate.low for estimate in apart]
    # of independent means the squares of the widths add up
    assert joint.high - joint.low < 0.5 * np.hypot(*widths)
    assert joint.sign == 1


def test_equal_curves_differ_by_nothing_with_room_for_problems_not_seen() -> None:
    found = curve_pair(A, A).area_difference()
    assert found is not None
    assert found.value == 0.0
    assert found.low < 0.0 < found.high


def test_a_problem_that_one_budget_lacks_is_named() -> None:
    with pytest.raises(ValueError, match=r"samples at \(2, 8, None\) has no answers to set/p3"):
        accuracy_curve(A[:-1])
    with pytest.raises(ValueError, match=r"b at \(1, 8, None\) has no answers to set/p3"):
        curve_pair(A, B[:-1]).area_difference()


def test_a_problem_without_a_grade_at_one_budget_is_left_out_of_both_curves() -> None:
    a = method("a", [(10, [1, 0]), (30, [1, 1])])
    b = method("b", [(10, [0, 0]), (30, [1, None])])
    found = difference_at_equal_tokens(a, b, 10)
    assert found is not None
    assert found.value == 1.0  # the first problem alone
    with pytest.raises(ValueError, match="no problem has a graded answer under every budget"):
        accuracy_curve(method("a", [(10, [1, None]), (30, [None, 1])]))


@pytest.mark.parametrize(
    ("samples", "message"), [([], "samples must not be empty"), ([*A, *B], "must hold one method, got a, b")]
)
def test_no_curve_without_samples_of_one_method(samples, message) -> None:
    with pytest.raises(ValueError, match=message):
        accuracy_curve(samples)
