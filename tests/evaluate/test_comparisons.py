"""Comparisons of graded answers, worked out by hand."""

import json

import pytest

from elastic.evaluate.comparisons import comparisons
from elastic.evaluate.statistics import curve_pair, paired_difference
from tests.evaluate.statistics.samples import answer, answers

NONE = (None, None, None)
E1 = [
    *answers([[1], [1], [0]], tokens=20, budget=(4, 16, None)),
    *answers([[1], [1], [1]], tokens=40, budget=(24, 16, None)),
]
VANILLA = [
    *answers([[0], [0], [0]], tokens=20, budget=(None, None, 20), method="vanilla"),
    *answers([[1], [0], [0]], tokens=35, budget=(None, None, 40), method="vanilla"),
    *answers([[1], [1], [1]], tokens=90, budget=NONE, method="vanilla"),
]


def test_methods_are_compared_at_common_budgets_at_equal_tokens_and_over_all_tokens() -> None:
    (found,) = comparisons([*VANILLA, *E1], "e1", ["vanilla"])
    assert (found.data, found.of, found.against) == ("set", "e1", "vanilla")
    first, second = found.budgets
    # a cap is the same budget as two phases that add up to it
    assert (first.thinking, first.solution, first.total) == (4, 16, None)
    assert (first.tokens, first.tokens_against) == (20.0, 20.0)
    assert first.difference == paired_difference(E1[:3], VANILLA[:3])
    assert (second.tokens, second.tokens_against) == (40.0, 35.0)
    assert second.difference.value == pytest.approx(2 / 3)
    # vanilla at 40 tokens: 1/3 + 5/55 * 2/3
    assert second.at_equal_tokens is not None
    assert second.at_equal_tokens.value == pytest.approx(1 - (1 / 3 + 5 / 55 * 2 / 3))
    assert found.reach == (20.0, 40.0)
    assert found.area == curve_pair(E1, VANILLA).area_difference()


def test_a_comparison_may_be_turned_round() -> None:
    (found,) = comparisons([*VANILLA, *E1], "vanilla", ["e1"])
    assert [(item.total, item.difference.value) for item in found.budgets] == [
        (20, pytest.approx(-2 / 3)),
        (40, pytest.approx(-2 / 3)),
    ]


def test_beyond_the_other_curve_nothing_is_compared_at_equal_tokens() -> None:
    (found,) = comparisons([*VANILLA[:3], *E1], "e1", ["vanilla"])
    assert [item.difference.value for item in found.budgets] == pytest.approx([2 / 3])
    assert (found.reach, found.area) == (None, None)
    late = answers([[1], [0], [0]], tokens=21, budget=(4, 16, None), method="separate")
    (found,) = comparisons([*late, *E1[:3]], "e1", ["separate"])
    assert found.budgets[0].at_equal_tokens is None


def test_two_splits_of_one_sum_are_two_budgets() -> None:
    other = answers([[1], [0], [0]], budget=(16, 4, None), method="separate")
    (found,) = comparisons([*other, *E1], "e1", ["separate"])
    assert found.budgets == ()


def test_a_comparison_is_plain_in_json() -> None:
    (found,) = comparisons([*VANILLA, *E1], "e1", ["vanilla"])
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["area"] == found.area._asdict() if found.area else None
    assert set(plain["budgets"][0]["difference"]) == {"value", "low", "high"}
    assert set(plain) == {"data", "of", "against", "budgets", "reach", "area"}


def test_each_set_is_compared_with_each_method() -> None:
    samples = [
        answer(method=method, data=data) for data in ("x", "y") for method in ("e1", "separate", "capped")
    ]
    found = comparisons(samples, "e1", ["separate", "capped"])
    assert [(item.data, item.against) for item in found] == [
        ("x", "separate"),
        ("x", "capped"),
        ("y", "separate"),
        ("y", "capped"),
    ]


def test_a_method_without_samples_is_named_with_those_that_have_some() -> None:
    with pytest.raises(ValueError, match="'set' has no samples of s1, only of vanilla, e1"):
        comparisons([*VANILLA, *E1], "e1", ["vanilla", "s1"])
    with pytest.raises(ValueError, match="samples must not be empty"):
        comparisons([], "e1", ["vanilla"])
