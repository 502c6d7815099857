"""Two methods on the same problems, worked out by hand."""

import numpy as np
import pytest

from elastic.evaluate.statistics import bootstrap_mean, paired_difference, paired_per_seed
from tests.evaluate.statistics.samples import answer, answers


def test_the_difference_is_the_mean_of_the_problems_differences() -> None:
    a = answers([[1, 1], [1, 0], [0, 0]])
    b = answers([[1, 0], [0, 0], [1, 0]], method="separate")
    # 1 - 1/2, 1/2 - 0, 0 - 1/2
    assert paired_difference(a, b) == bootstrap_mean([0.5, 0.5, -0.5], (-1, 1))
    assert paired_difference(a, b).value == pytest.approx(1 / 6)
    assert paired_difference(b, a).value == pytest.approx(-1 / 6)


def test_methods_that_differ_nowhere_might_on_problems_not_seen() -> None:
    a = answers([[1], [0]] * 5)
    # at most 3.8416 / 13.8416 of the problems, by 1 either way
    assert paired_difference(a, a) == pytest.approx((0.0, -0.27754, 0.27754), abs=1e-5)


def test_problems_are_matched_by_id_and_not_by_order() -> None:
    a = answers([[1], [0], [0]])
    assert paired_difference(a, a[::-1]).value == 0.0


def test_one_id_in_two_sets_is_two_problems() -> None:
    a = [answer("p", 1.0, data="x"), answer("p", 0.0, data="y")]
    b = [answer("p", 0.0, data="y"), answer("p", 0.0, data="x")]
    assert paired_difference(a, b) == bootstrap_mean([1.0, 0.0], (-1, 1))


def test_pairs_give_a_narrower_interval_than_two_accuracies() -> None:
    """Both methods solve the same half of 200 problems; one solves 20 of the others too."""
    a = [[1.0]] * 100 + [[1.0]] * 20 + [[0.0]] * 80
    b = [[1.0]] * 100 + [[0.0]] * 100
    paired = paired_difference(answers(a), answers(b))
    apart = [bootstrap_mean(np.ravel(grades)) for grades in (a, b)]
    assert paired.sign == 1
    assert apart[0].interval.overlaps(apart[1].interval)
    # standard error of 20 ones in 200: sqrt(0.1 * 0.9 / 200) = 0.0212
    assert (paired.low, paired.high) == pytest.approx((0.1 - 0.0416, 0.1 + 0.0416), abs=0.004)


def test_answers_that_could_not_be_judged_leave_their_pair_out() -> None:
    a = answers([[1, None], [None, None], [1, 1]])
    b = answers([[0, 0], [1, 1], [1, 1]])
    assert paired_difference(a, b) == bootstrap_mean([1.0, 0.0], (-1, 1))


def test_missing_problems_are_named_with_the_side_that_lacks_them() -> None:
    a, b = answers([[1], [0], [0]]), answers([[1], [0]])
    with pytest.raises(ValueError, match=r"paired_difference: b has no answers to set/p2$"):
        paired_difference(a, b)
    with pytest.raises(ValueError, match=r"paired_difference: a has no answers to set/p2$"):
        paired_difference(b, a)
    with pytest.raises(ValueError, match=r"set/p1, .*, set/p5 and 2 more"):
        paired_difference(answers([[1]] * 8), b[:1])


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], [answer()], "a must not be empty"),
        ([answer()], [], "b must not be empty"),
        ([answer(), answer(method="s1")], [answer()], "a must hold one method, got e1, s1"),
        ([answer()], [answer(), answer(budget=(4, 8, None))], "b must hold one budget, got"),
        ([answer("p", None)], [answer()], "no problem has a graded answer on both sides"),
        ([answer("p", 0.5)], [answer()], "correct: must be 0, 1 or None, got 0.5"),
    ],
)
def test_what_cannot_be_compared_is_refused(a, b, message) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(a, b)


def test_seeds_are_compared_one_by_one_and_together() -> None:
    seeds = [
        ([answer("s0/p", 1.0), answer("s0/q", 1.0)], [answer("s0/p", 0.0), answer("s0/q", 1.0)]),
        ([answer("s1/p", 0.0), answer("s1/q", 1.0)], [answer("s1/p", 1.0), answer("s1/q", 1.0)]),
    ]
    found = paired_per_seed(seeds)
    assert [seed.value for seed in found.seeds] == [0.5, -0.5]
    assert found.pooled == bootstrap_mean([1, 0, -1, 0], (-1, 1))


def test_seeds_with_a_common_problem_are_refused() -> None:
    pair = [answer("p")], [answer("p")]
    with pytest.raises(ValueError, match="two seeds have a problem set/p"):
        paired_per_seed([pair, pair])
    with pytest.raises(ValueError, match="pairs must not be empty"):
        paired_per_seed([])
