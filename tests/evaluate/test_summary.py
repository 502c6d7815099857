"""Rows of graded answers, worked out by hand."""

import json

import pytest

from elastic.evaluate.statistics import bootstrap_mean, leakage, leakage_slope
from elastic.evaluate.summary import MethodLeakage, leakages, rows_of
from tests.evaluate.statistics.samples import answer, answers

NONE = (None, None, None)


def test_there_is_a_row_per_set_method_and_budget_in_the_order_they_came() -> None:
    samples = [
        answer(method="e1", data="y"),
        answer(method="s1", data="x"),
        answer(method="e1", data="x"),
        answer(method="e1", data="y", budget=NONE),
        answer("q", method="e1", data="y"),
        answer(method="vanilla", data="y", budget=(None, None, 16)),
    ]
    found = [(row.data, row.method, row.thinking, row.total, row.problems) for row in rows_of(samples)]
    assert found == [
        ("y", "e1", 8, None, 2),
        ("x", "s1", 8, None, 1),
        ("x", "e1", 8, None, 1),
        ("y", "e1", None, None, 1),
        ("y", "vanilla", None, 16, 1),
    ]


def test_a_row_holds_means_over_problems_of_means_over_answers() -> None:
    samples = [
        answer("p", 1.0, tokens=10, thinking=4, solution=5),
        answer("p", 0.0, number=1, tokens=20, thinking=8, solution=11, cut=True),
        answer("p", 0.0, number=2, tokens=30, thinking=8, solution=0, cut=True, answered=False),
        answer("q", 1.0, tokens=50, thinking=2, solution=9),
    ]
    (row,) = rows_of(samples)
    assert (row.problems, row.samples, row.ungraded) == (2, 3, 0)
    assert (row.accuracy, row.low, row.high) == pytest.approx(bootstrap_mean([1 / 3, 1.0]))
    assert (row.tokens, row.thinking_tokens) == pytest.approx(((20 + 50) / 2, (20 / 3 + 2) / 2))
    assert row.solution_tokens == pytest.approx((16 / 3 + 9) / 2)
    assert row.cut == pytest.approx((2 / 3 + 0) / 2)
    assert row.answered == pytest.approx((2 / 3 + 1) / 2)
    assert row.accuracy_cut == 0.0
    # the answer without a solution has none to measure
    assert (row.solution_tokens_cut, row.solution_tokens_whole) == (11.0, 7.0)
    assert row.pass_at_k == {"1": pytest.approx(2 / 3)}


def test_pass_at_k_is_kept_by_k_as_text() -> None:
    (row,) = rows_of(answers([[1, 1, 0, 0], [0, 0, 0, 0]]), ks=(1, 2, 4))
    assert row.pass_at_k == {
        "1": pytest.approx(1 / 4),
        "2": pytest.approx(5 / 12),
        "4": pytest.approx(1 / 2),
    }
    assert json.loads(json.dumps(row.to_dict())) == row.to_dict()


def test_answers_that_could_not_be_judged_are_counted_and_in_no_accuracy() -> None:
    samples = [
        *answers([[1, None], [None, None], [0, 1]], tokens=10, cut=True),
        answer("p3", None, tokens=50, cut=True),
    ]
    (row,) = rows_of(samples)
    assert (row.problems, row.ungraded) == (4, 4)
    assert (row.accuracy, row.low, row.high) == pytest.approx(bootstrap_mean([1.0, 0.5]))
    assert row.accuracy_cut == pytest.approx(2 / 3)
    assert row.tokens == 20.0  # they were paid for all the same


def test_leakage_takes_whole_thoughts_from_all_budgets_of_the_method_on_the_set() -> None:
    samples = [
        sample
        for problem in ("p", "q")
        for sample in (
            answer(problem, cut=True, solution=30),
            answer(problem, budget=NONE, solution=10),
            answer(problem, budget=NONE, solution=1000, method="s1"),
            answer(problem, budget=NONE, solution=1000, data="other"),
        )
    ]
    rows = rows_of(samples)
    assert [row.leakage for row in rows] == [3.0, None, None, None]
    assert leakage(samples[:1], samples) is None


def test_without_cut_or_whole_thoughts_there_are_none_of_their_solutions() -> None:
    (row,) = rows_of(answers([[1], [1]]))
    assert (row.accuracy_cut, row.solution_tokens_cut, row.leakage) == (None, None, None)
    (row,) = rows_of(answers([[1], [1]], cut=True))
    assert row.solution_tokens_whole is None


@pytest.mark.parametrize(
    ("samples", "ks", "message"),
    [
        ([], (1,), "samples must not be empty"),
        ([answer(correct=None)], (1,), "no graded answer of e1 on 'set' at"),
        ([answer()], (2,), r"k must be in \[1, 1\], the graded answers per problem, got 2"),
    ],
)
def test_no_row_is_made_of_nothing(samples, ks, message) -> None:
    with pytest.raises(ValueError, match=message):
        rows_of(samples, ks)


def test_leakage_of_a_method_is_over_all_its_budgets_with_intervals() -> None:
    samples = [
        sample
        for problem in ("p", "q")
        for sample in (
            answer(problem, budget=NONE, thinking=10, solution=10),
            answer(problem, cut=True, thinking=2, solution=30),
            answer(problem, cut=True, thinking=8, solution=24, budget=(8, 64, None)),
        )
    ]
    found = leakages([*samples, answer(method="vanilla")])
    assert found == [
        MethodLeakage("set", "e1", leakage(samples, samples), leakage_slope(samples)),
        MethodLeakage("set", "vanilla", None, None),
    ]
    assert found[0].to_dict() == {
        "data": "set",
        "method": "e1",
        "ratio": pytest.approx({"value": 2.7, "low": 2.7, "high": 2.7}),
        "slope": pytest.approx({"value": -10.0, "low": -10.0, "high": -10.0}),
    }
    with pytest.raises(ValueError, match="leakages: samples must not be empty"):
        leakages([])
