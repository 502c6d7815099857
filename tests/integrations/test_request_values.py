"""The request values of vLLM, without vLLM."""

from dataclasses import fields

import pytest

from elastic.budget import Budget, Phase
from elastic.integrations.request_values import (
    BY_NAME,
    VALUES,
    RequestBudget,
    check_defaults,
    read_values,
    values_of,
)

NONE_OF_OURS = {"kv_transfer_params": {"x": 1}, "session_id": "a", "max_pixels": 3, "min_p": 0.1}


def read(**given):
    return read_values(given, {})


def test_a_request_without_a_value_of_ours_has_no_budget():
    assert read_values(None, {}) is None
    assert read_values(NONE_OF_OURS, {}) is None
    assert read(thinking_budget=None) is None


def test_what_is_not_given_is_unlimited_and_not_the_budgets_own_default():
    assert read(thinking_budget=64) == RequestBudget(Budget(64, None))
    assert read(solution_budget=9) == RequestBudget(Budget(None, 9))
    assert read(thinking_budget=-1, solution_budget=-1) == RequestBudget(Budget.unlimited())


def test_every_value_reaches_its_field():
    given = {
        "thinking_budget": 64,
        "solution_budget": 32,
        "total_budget": 90,
        "closing": "s1",
        "grace": 8,
        "boundary": ["\n", "."],
        "min_thinking": 16,
        "max_extensions": 2,
        "extension": "Hmm",
        "notices": [8, "half", 12, "soon"],
        "on_eos": "stop",
        "on_reopen": "forbid",
        "on_reclose": "forbid",
        "whole_characters": 1,
        "end_markers": "<tool_call>",
        "start_in": "thinking",
        "thinking_used": 5,
        "may_be_cut": 1,
    }
    assert given.keys() == BY_NAME.keys()
    budget = Budget(
        64,
        32,
        90,
        closing="s1",
        grace=8,
        boundary=("\n", "."),
        min_thinking=16,
        max_extensions=2,
        extension="Hmm",
        notices=((8, "half"), (12, "soon")),
        on_eos="stop",
        on_reopen="forbid",
        on_reclose="forbid",
        whole_characters=True,
    )
    request = RequestBudget(budget, ("<tool_call>",), Phase.THINKING, 5, True)
    assert read(**given) == request
    assert values_of(request) == given | {"end_markers": ["<tool_call>"]}


@pytest.mark.parametrize(
    "budget", [Budget(3, 4), Budget.unlimited(on_eos="stop"), Budget.vanilla(9), Budget.s1(5)]
)
def test_a_budget_is_the_same_again_behind_its_values(budget):
    values = values_of(RequestBudget(budget))
    defaults = {"thinking_budget": 1, "solution_budget": 1, "total_budget": 2}
    assert read_values(values, defaults) == RequestBudget(budget)


def test_notices_may_be_pairs_where_python_calls():
    assert read(thinking_budget=9, notices=[(2, "a"), (4, "b")]).budget.notices == ((2, "a"), (4, "b"))


def test_texts_may_be_token_ids():
    assert read(closing=[5, 6]).budget.closing == (5, 6)


def test_a_request_goes_before_the_servers_defaults():
    defaults = {"thinking_budget": 100, "solution_budget": 50, "closing": "qwen3"}
    assert read_values({}, defaults).budget == Budget(100, 50, closing="qwen3")
    own = {"thinking_budget": 7, "solution_budget": -1, "closing": "bare"}
    assert read_values(own, defaults).budget == Budget(7, None, closing="bare")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"thinking_budget": -2}, r"^thinking_budget: expected an integer from 0 .* got -2"),
        ({"thinking_budget": 1.5}, r"^thinking_budget: .* got 1.5"),
        ({"thinking_budget": "64"}, r"^thinking_budget: .* got '64'"),
        ({"thinking_budget": True}, r"^thinking_budget: .* got True"),
        ({"thinking_budget": 2**31}, r"^thinking_budget: .* got 2147483648"),
        ({"solution_budget": 0}, r"^solution_budget: expected an integer from 1 .* got 0"),
        ({"total_budget": 5, "thinking_budget": 9}, r"^total_budget: expected at least .* 10"),
        ({"thinking_budget": 9, "grace": -1}, r"^grace: expected an integer from 0"),
        ({"grace": 4}, r"^grace: expected 0 with thinking=None"),
        ({"min_thinking": 4}, "min_thinking and max_extensions: one has no effect without the other"),
        ({"closing": ""}, "^closing: expected a text or token ids"),
        ({"closing": 7}, "^closing: expected a text or token ids, got 7"),
        ({"closing": ["a"]}, "^closing, token id: .* got 'a'"),
        ({"on_eos": "go"}, "^on_eos: expected one of close, stop, got 'go'"),
        ({"on_eos": [1]}, "^on_eos"),
        ({"whole_characters": 2}, "^whole_characters: expected 0 or 1, got 2"),
        ({"may_be_cut": "yes"}, "^may_be_cut: expected 0 or 1, got 'yes'"),
        ({"notices": [8]}, "^notices: expected pairs"),
        ({"notices": 8}, "^notices: expected a list"),
        ({"notices": ["x", 8]}, "^notices, used thinking tokens: .* got 'x'"),
        (
            {"boundary": 5, "thinking_budget": 9, "grace": 2},
            "^boundary: expected a text, or a list of texts and token ids, got 5",
        ),
        ({"end_markers": [3]}, "^end_markers: expected a text or a list of texts"),
        ({"end_markers": [""]}, "^end_markers: .* none empty"),
        ({"start_in": "middle"}, "^start_in: expected one of opening, thinking, solution, got 'middle'"),
        ({"thinking_used": 4}, "^thinking_used: expected start_in=thinking or start_in=solution"),
        ({"thinking_used": -4, "start_in": "thinking"}, "^thinking_used: expected 0 or more tokens, got -4"),
        ({"thinking_budgets": 9}, "^thinking_budgets: .* did you mean thinking_budget"),
        ({"thinking_token_budget": 9}, "^thinking_token_budget: unknown .* Known are thinking_budget, "),
        ({"solution_tokens": 9}, "^solution_tokens: unknown request value"),
        ({"end_marker": "x"}, "^end_marker: .* did you mean end_markers"),
    ],
)
def test_bad_values_are_refused_naming_the_request_value(given, said):
    with pytest.raises(ValueError, match=said):
        read_values(given, {})


def test_a_servers_bad_default_is_refused_at_its_start():
    check_defaults({"thinking_budget": 512, "closing": "qwen3"}, "additional_config")
    with pytest.raises(ValueError, match=r"additional_config: unknown 'thinkingbudget'; known are thinking_"):
        check_defaults({"thinkingbudget": 512}, "additional_config")
    with pytest.raises(ValueError, match=r"additional_config: solution_budget: .* got 0"):
        check_defaults({"solution_budget": 0}, "additional_config")


def test_every_field_of_a_budget_has_a_request_value():
    fields_of_budget = {field.name for field in fields(Budget)}
    fields_of_request = {field.name for field in fields(RequestBudget)} - {"budget"}
    assert {value.field for value in VALUES} == fields_of_budget | fields_of_request
