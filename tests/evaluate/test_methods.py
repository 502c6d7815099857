"""What each method makes of (t, s)."""

import pytest

from elastic.budget import Budget
from elastic.evaluate.methods import METHODS, PolicyOptions, budget_pairs, get_method


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


@pytest.mark.parametrize("name", ["vanilla", "l1_exact", "l1_max", "dler"])
def test_where_the_sum_alone_counts_one_limit_is_none(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: give thinking and solution, or neither, got None and 16"):
        METHODS[name].budget(None, 16)


def test_one_phase_alone_may_have_a_limit_where_phases_are_told_apart() -> None:
    assert METHODS["separate"].budget(40, None) == Budget(40, None)
    assert METHODS["e1"].budget(None, 16) == Budget(None, 16)


def test_dler_is_cut_as_it_was_trained() -> None:
    assert METHODS["dler"].budget(40, 16) == Budget.vanilla(56)


def test_s1_waits_up_to_its_cap_or_a_minimum_below_it() -> None:
    s1 = METHODS["s1"]
    assert s1.budget(40, 16, PolicyOptions(max_extensions=2)).min_thinking == 40
    assert s1.budget(40, 16, PolicyOptions(max_extensions=2, min_thinking=8)).min_thinking == 8
    assert s1.budget(4, 16, PolicyOptions(max_extensions=2, min_thinking=8)).min_thinking == 4
    assert s1.budget(0, 16, PolicyOptions(max_extensions=2, min_thinking=8)) == s1.budget(0, 16)


def test_a_notice_that_a_budget_never_reaches_is_left_out_of_it() -> None:
    options = PolicyOptions(notices=((4, "half"), (40, "late")))
    assert METHODS["separate"].budget(8, 16, options).notices == ((4, "half"),)


def test_a_closing_is_read_by_methods_that_cut_without_one_of_their_own() -> None:
    options = PolicyOptions(closing="qwen3")
    assert METHODS["e1"].budget(8, 16, options).closing == "qwen3"
    assert METHODS["s1"].budget(8, 16, options).closing == "s1"
    assert METHODS["vanilla"].budget(8, 16, options) == Budget.vanilla(24)


def test_budgets_are_written_as_pairs() -> None:
    assert budget_pairs("512:1024,0:512,512:-,-:256,none") == [
        *((512, 1024), (0, 512), (512, None), (None, 256), (None, None)),
    ]


def test_an_unknown_method_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"expected one of vanilla, .*, got 'e2'"):
        get_method("e2")
