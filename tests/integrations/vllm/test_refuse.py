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


def _check(given, budget, v2=True):
    asked = None if budget is None else RequestBudget(budget)
    Refusal(Settings(v2=v2)).check(SimpleNamespace(**{**PLAIN, **given}, asked=asked))


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
