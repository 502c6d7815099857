"""Budgets of groups: fixed, drawn, of a list, of columns."""

import pytest
from datasets import Dataset

from elastic import Budget
from elastic.integrations.trl.group_budgets import GroupBudgets

BUDGET = Budget(thinking=100, solution=50)
GROUPS = [0, 0, 1, 1, 2, 2]
PROMPTS = ["a", "a", "b", "b", "c", "c"]


def draw(budgets, seed=1, training=True, datasets=(), prompts=PROMPTS):
    return budgets.draw(prompts, GROUPS, seed, training, list(datasets))


def test_one_budget_is_that_of_every_row():
    assert draw(GroupBudgets(BUDGET)) == [BUDGET] * 6


def test_rows_of_a_group_draw_the_same_and_groups_draw_apart():
    drawn = draw(GroupBudgets(BUDGET, thinking_low=1, solution_low=1))
    pairs = [(budget.thinking, budget.solution) for budget in drawn]
    assert pairs[::2] == pairs[1::2]
    assert len(set(pairs)) == 3
    assert all(1 <= thinking <= 100 and 1 <= solution <= 50 for thinking, solution in pairs)


def test_a_draw_is_a_function_of_its_seed():
    budgets = GroupBudgets(BUDGET, thinking_low=1)
    assert draw(budgets) == draw(GroupBudgets(BUDGET, thinking_low=1))
    assert draw(budgets, seed=2) != draw(budgets)


def test_evaluations_have_the_whole_budget():
    assert draw(GroupBudgets(BUDGET, thinking_low=1), training=False) == [BUDGET] * 6


def test_each_group_draws_one_of_a_list():
    listed = [Budget(n, n) for n in range(1, 9)]
    drawn = draw(GroupBudgets(listed))
    assert drawn[::2] == drawn[1::2]
    assert set(drawn) <= set(listed)
    seen = {budget for seed in range(30) for budget in draw(GroupBudgets(listed), seed=seed)}
    assert seen == set(listed)


def test_columns_replace_fields_of_the_budget():
    dataset = Dataset.from_dict({"prompt": ["a", "b", "c"], "t": [1, None, 3], "s": [4, 5, 6], "x": [0] * 3})
    drawn = draw(
        GroupBudgets(Budget(9, 9, grace=0), thinking_column="t", solution_column="s"), datasets=[dataset]
    )
    assert drawn[::2] == [Budget(1, 4), Budget(None, 5), Budget(3, 6)]


def test_messages_are_told_apart_by_their_content():
    chats = [[{"role": "user", "content": text}] for text in "ab"]
    dataset = Dataset.from_dict({"prompt": chats, "t": [1, 2]})
    prompts = [dataset[index]["prompt"] for index in (0, 0, 1, 1, 0, 0)]
    drawn = draw(GroupBudgets(BUDGET, thinking_column="t"), datasets=[dataset], prompts=prompts)
    assert [budget.thinking for budget in drawn] == [1, 1, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt": ["a"], "other": [1]}, r"thinking_column: the dataset has no column 't', only"),
        ({"prompt": ["a", "b"], "t": [1, -2]}, r"t: row 1: thinking: expected .* got -2"),
        ({"prompt": ["a", "b", "a"], "t": [1, 2, 3]}, r"t: row 2: an earlier row has the same prompt"),
    ],
)
def test_columns_that_say_no_budget_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        draw(GroupBudgets(BUDGET, thinking_column="t"), datasets=[Dataset.from_dict(columns)])


def test_prompts_and_streams_without_a_column_are_refused():
    dataset = Dataset.from_dict({"prompt": ["a", "b"], "t": [1, 2]})
    with pytest.raises(ValueError, match=r"t: a prompt is in no dataset of the trainer: 'c'"):
        draw(GroupBudgets(BUDGET, thinking_column="t"), datasets=[dataset])
    with pytest.raises(ValueError, match="need a dataset that is no stream"):
        draw(GroupBudgets(BUDGET, thinking_column="t"), datasets=[dataset.to_iterable_dataset()])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": []}, "budget: expected a Budget or a list"),
        ({"budget": 5}, "budget: expected a Budget or a list"),
        ({"thinking_low": 101}, r"thinking_low: expected an integer up to budget.thinking = 100, got 101"),
        ({"thinking_low": -1}, r"thinking: expected .* got -1"),
        ({"solution_low": 0}, r"solution: expected .* got 0"),
        ({"budget": Budget.unlimited(), "thinking_low": 1}, "thinking_low: needs a bounded"),
        ({"budget": [BUDGET, BUDGET], "thinking_low": 1}, "thinking_low: expected None with a list"),
        ({"thinking_low": 1, "thinking_column": "t"}, "thinking_low: expected None with thinking_column"),
        ({"budget": [BUDGET, BUDGET], "thinking_column": "t"}, "budget: expected one Budget"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        GroupBudgets(**{"budget": BUDGET, **arguments})
