"""pass@k worked out by hand."""

import itertools

import pytest

from elastic.evaluate.statistics import mean_pass_at_k, pass_at_k
from tests.evaluate.statistics.samples import answers


@pytest.mark.parametrize(
    ("correct", "samples", "k", "expected"),
    [
        (0, 4, 1, 0.0),
        (1, 4, 1, 1 / 4),
        (1, 4, 2, 1 / 2),  # 1 - C(3, 2) / C(4, 2) = 1 - 3/6
        (2, 4, 2, 5 / 6),  # 1 - 1/6
        (2, 5, 3, 9 / 10),  # 1 - C(3, 3) / C(5, 3) = 1 - 1/10
        (3, 4, 2, 1.0),  # two wrong ones cannot be drawn
        (4, 4, 4, 1.0),
        (1, 16, 16, 1.0),
        (0, 1, 1, 0.0),
    ],
)
def test_pass_at_k_equals_values_worked_out_by_hand(correct, samples, k, expected) -> None:
    assert pass_at_k(correct, samples, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_is_the_share_of_k_subsets_with_a_right_answer() -> None:
    for correct in range(7):
        for k in range(1, 7):
            subsets = list(itertools.combinations([1] * correct + [0] * (6 - correct), k))
            assert pass_at_k(correct, 6, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_many_answers_do_not_overflow() -> None:
    assert pass_at_k(1, 10_000, 5_000) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 4, 5), r"k must be in \[1, samples=4\], got 5"),
        ((1, 4, 0), r"k must be in \[1, samples=4\], got 0"),
        ((5, 4, 1), r"correct must be in \[0, samples=4\], got 5"),
        ((0, 0, 1), r"k must be in \[1, samples=0\], got 1"),
    ],
)
def test_impossible_counts_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        pass_at_k(*arguments)


def test_the_mean_is_over_problems_whatever_their_number_of_answers() -> None:
    # pass@2: 5/6 of two right in four; 1 - C(2, 2) / C(3, 2) = 2/3 of one right in three
    estimate = mean_pass_at_k(answers([[1, 1, 0, 0], [1, 0, 0]]), 2)
    assert estimate.value == pytest.approx((5 / 6 + 2 / 3) / 2)


def test_answers_that_could_not_be_judged_do_not_count_and_too_few_leave_the_problem_out() -> None:
    # the second problem has one graded answer, which says nothing about pass@2
    assert mean_pass_at_k(answers([[1, 0, None], [0, None, None]]), 2).value == 1.0


def test_a_k_above_all_graded_answers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"k must be in \[1, 2\], the graded answers per problem, got 3"):
        mean_pass_at_k(answers([[1, 0, None], [0]]), 3)
    with pytest.raises(ValueError, match=r"k must be in \[1, samples=1\], got 0"):
        mean_pass_at_k(answers([[1]]), 0)
