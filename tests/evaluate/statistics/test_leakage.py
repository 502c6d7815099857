"""Solutions behind cut and whole thoughts, worked out by hand."""

import pytest

from elastic.evaluate.sample import Sample
from elastic.evaluate.statistics import leakage, leakage_slope
from tests.evaluate.statistics.samples import answer

TIGHT, LOOSE, NONE = (4, 64, None), (8, 64, None), (None, None, None)


def whole(problem: str, thinking: int, solution: int) -> Sample:
    return answer(problem, budget=NONE, thinking=thinking, solution=solution)


def cut(problem: str, thinking: int, solution: int, **facts) -> Sample:
    facts.setdefault("budget", TIGHT)
    return answer(problem, thinking=thinking, solution=solution, cut=True, **facts)


def test_leakage_is_the_ratio_of_the_mean_solutions_of_the_same_problems() -> None:
    samples = [
        *(whole("p", 10, 10), cut("p", 4, 30)),
        *(whole("q", 20, 30), cut("q", 4, 50)),
    ]
    found = leakage(samples, samples)
    assert found is not None
    assert found.value == pytest.approx((30 + 50) / (10 + 30))
    # a resample is twice p, both, or twice q
    assert (found.low, found.high) == pytest.approx((50 / 30, 30 / 10))


def test_a_problem_counts_once_however_many_answers_it_has() -> None:
    samples = [
        *(whole("p", 10, 10), whole("p", 10, 20), cut("p", 4, 15), cut("p", 4, 45), cut("p", 4, 30)),
        *(whole("q", 20, 30), cut("q", 4, 30)),
    ]
    found = leakage(samples, samples)
    assert found is not None
    assert found.value == pytest.approx((30 + 30) / (15 + 30))


def test_only_problems_with_both_kinds_and_answers_with_a_solution_count() -> None:
    pairs = [*(whole("p", 10, 10), cut("p", 4, 30)), *(whole("q", 20, 30), cut("q", 4, 50))]
    others = [whole("r", 10, 1000), cut("s", 4, 1000), cut("p", 4, 0, answered=False)]
    assert leakage([*pairs, *others], [*pairs, *others]) == leakage(pairs, pairs)


def test_whole_thoughts_may_stand_under_other_budgets() -> None:
    row = [cut("p", 4, 20), cut("q", 4, 20)]
    others = [whole("p", 10, 10), whole("q", 10, 10)]
    assert leakage(row, row) is None
    assert leakage(row, [*row, *others]) == (2.0, 2.0, 2.0)


def test_a_resample_without_solutions_behind_whole_thoughts_takes_the_ratio_of_all() -> None:
    samples = [*(whole("p", 9, 0), cut("p", 4, 10)), *(whole("q", 9, 10), cut("q", 4, 10))]
    # q twice gives 1, both 2; p twice would divide by 0
    assert leakage(samples, samples) == (2.0, 1.0, 2.0)


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [cut("p", 4, 30), cut("q", 4, 30)],
        [whole("p", 4, 30), whole("q", 4, 30)],
        [whole("p", 10, 10), cut("p", 4, 30)],  # one problem has no interval
        [whole("p", 10, 0), cut("p", 4, 30), whole("q", 10, 0), cut("q", 4, 30)],  # nothing to grow from
        [whole("p", 9, 9), cut("p", 4, 0, answered=False), whole("q", 9, 9), cut("q", 4, 0, answered=False)],
    ],
    ids=["nothing", "all cut", "all whole", "one problem", "empty solutions", "cut hard"],
)
def test_leakage_is_undefined_where_there_is_nothing_to_compare(samples) -> None:
    assert leakage(samples, samples) is None
    assert leakage_slope(samples) is None


def test_the_slope_is_the_change_of_the_solution_with_the_share_that_was_seen() -> None:
    # p: shares 0.4 and 0.8 of 10, solutions 40 and 20: -50 a whole thought
    p = [whole("p", 10, 10), cut("p", 4, 40), cut("p", 8, 20, budget=LOOSE)]
    # q: shares 0.2 and 0.4 of 20, solutions 100 and 98: -10
    q = [whole("q", 20, 10), cut("q", 4, 100), cut("q", 8, 98, budget=LOOSE)]
    found = leakage_slope([*p, *q])
    assert found is not None
    # sums of products about the means: 2 * (0.2 * -10) and 2 * (0.1 * -1); of squares 0.08 and 0.02
    assert found.value == pytest.approx((-4.0 - 0.2) / (0.08 + 0.02))
    assert (found.low, found.high) == pytest.approx((-50, -10))


def test_only_problems_with_a_slope_and_answers_with_a_solution_make_it() -> None:
    p = [whole("p", 10, 10), cut("p", 4, 40), cut("p", 8, 20, budget=LOOSE)]
    q = [whole("q", 20, 10), cut("q", 4, 100), cut("q", 8, 98, budget=LOOSE)]
    found = leakage_slope([*p, *q])
    unanswered = [
        cut("p", 9, 0, answered=False),
        answer("q", budget=NONE, thinking=99, solution=0, answered=False),
        whole("r", 10, 10),
        cut("r", 4, 10),
    ]
    assert leakage_slope([*p, *q, *unanswered]) == found
    assert leakage_slope(p) is None  # one problem has no interval


def test_hard_problems_with_long_solutions_do_not_make_a_slope() -> None:
    """Solutions differ between problems and not with the cut: the levels are each problem's own."""
    samples = [
        sample
        for problem, thinking, solution in (("p", 10, 5), ("q", 20, 50), ("r", 40, 500))
        for sample in (
            whole(problem, thinking, solution),
            cut(problem, 4, solution),
            cut(problem, 8, solution, budget=LOOSE),
        )
    ]
    assert leakage_slope(samples) == (0.0, 0.0, 0.0)


def test_answers_cut_at_one_point_have_no_slope() -> None:
    samples = [whole("p", 9, 9), cut("p", 4, 30), cut("p", 4, 20), whole("q", 9, 9), cut("q", 4, 30)]
    assert leakage_slope(samples) is None
