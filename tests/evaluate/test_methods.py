"""What each method makes of (t, s)."""

import pytest

from elastic.budget import Budget
from elastic.evaluate.methods import METHODS, get_method


def test_vanilla_is_one_cap_over_the_sum_and_cuts_hard() -> None:
    assert METHODS["vanilla"].budget(40, 16) == Budget.vanilla(56)


def test_separate_budgeting_and_e1_enforce_the_same_two_budgets() -> None:
    assert METHODS["separate"].budget(40, 16) == METHODS["e1"].budget(40, 16) == Budget(40, 16)


def test_s1_closes_with_its_answer_tag() -> None:
    budget = METHODS["s1"].budget(40, 16)
    assert (budget.thinking, budget.solution, budget.closing) == (40, 16, "s1")


def test_l1_enforces_nothing_and_tells_the_model_the_sum() -> None:
    assert METHODS["l1_exact"].budget(40, 16) == Budget.unlimited()
    assert METHODS["l1_exact"].question("1 + 1?", 40, 16) == "1 + 1? Think for 56 tokens."
    assert METHODS["l1_max"].question("1 + 1?", 40, 16) == "1 + 1? Think for maximum 56 tokens."


@pytest.mark.parametrize("name", ["vanilla", "s1", "separate", "e1"])
def test_only_l1_changes_the_question(name: str) -> None:
    assert METHODS[name].question("1 + 1?", 40, 16) == "1 + 1?"


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_without_budgets_every_method_is_unlimited_and_says_nothing(method) -> None:
    assert method.budget(None, None) == Budget.unlimited()
    assert method.question("1 + 1?", None, None) == "1 + 1?"


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_bad_budgets_are_refused_by_every_method(method) -> None:
    with pytest.raises(ValueError, match=r"thinking.*-1"):
        method.budget(-1, 16)
    with pytest.raises(ValueError, match=r"solution.*0"):
        method.budget(8, 0)
    with pytest.raises(ValueError, match="give thinking and solution, or neither"):
        method.budget(None, 16)


def test_an_unknown_method_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"expected one of vanilla, .*, got 'e2'"):
        get_method("e2")
