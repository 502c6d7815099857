"""Parameters that a budget cannot be kept beside are refused, by their names."""

from types import SimpleNamespace

import pytest

from elastic.budget import Budget
from elastic.integrations.request_values import RequestBudget
from elastic.integrations.vllm.refuse import Refusal
from tests.integrations.vllm.v2_steps import Settings

PLAIN = {
    "ignore_eos": False,
    "thinking_token_budget": None,
    "trace_decode_token_ids": None,
    "structured_outputs": None,
    "min_tokens": 0,
    "max_tokens": None,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
}
BESIDE = [
    {"ignore_eos": True},
    {"thinking_token_budget": 9},
    {"trace_decode_token_ids": [7]},
    {"structured_outputs": object()},
    {"min_tokens": 10},
    {"max_tokens": 6},
]
PENALTIES = [{"presence_penalty": 0.5}, {"frequency_penalty": 0.5}, {"repetition_penalty": 1.5}]


def _check(given, budget, v2=True, grammar_behind_thought=False):
    asked = None if budget is None else RequestBudget(budget)
    Refusal(Settings(0, v2, grammar_behind_thought)).check(SimpleNamespace(**{**PLAIN, **given}, asked=asked))


@pytest.mark.parametrize("given", BESIDE)
def test_a_parameter_that_fights_the_budget_is_refused(given):
    _check({}, Budget(5, 4))
    with pytest.raises(ValueError, match=f"^{next(iter(given))}: expected"):
        _check(given, Budget(5, 4))


@pytest.mark.parametrize("given", PENALTIES)
def test_penalties_are_refused_where_the_draw_comes_before_them(given):
    _check(given, Budget(5, 4))
    with pytest.raises(ValueError, match=f"^{next(iter(given))}: expected"):
        _check(given, Budget(5, 4), v2=False)


@pytest.mark.parametrize("given", [*BESIDE, *PENALTIES])
def test_a_request_without_a_budget_may_have_all_of_them(given):
    _check(given, None, v2=False)


def test_a_grammar_may_hold_behind_a_thought_that_has_a_budget():
    given = {"structured_outputs": object()}
    for budget in (Budget(5, None), Budget(5, None, closing="ab</think>"), Budget(None, None)):
        _check(given, budget, grammar_behind_thought=True)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(5, 4), "^structured_outputs: expected None beside solution_budget"),
        (Budget.vanilla(9), "^structured_outputs: expected None beside solution_budget and total_budget"),
        (Budget(5, None, closing="ab</think>cd"), "^closing: expected nothing behind .* got 2 tokens"),
    ],
)
def test_no_token_is_forced_where_a_grammar_holds(budget, said):
    with pytest.raises(ValueError, match=said):
        _check({"structured_outputs": object()}, budget, grammar_behind_thought=True)
