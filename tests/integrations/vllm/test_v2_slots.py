"""V2: requests that come, go and return in slots, in any order of rows, beside requests without a budget."""

from __future__ import annotations

import gc
import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from elastic.budget import Budget, Phase
from elastic.integrations.request_values import RequestBudget
from elastic.integrations.vllm.table import BudgetTables
from elastic.integrations.vllm.v2 import V2Budgets
from elastic.integrations.vllm.v2_rows import Rows
from elastic.integrations.vllm.v2_states import SlotStates
from tests.integrations.vllm.v2_steps import (
    ANSWERING,
    END,
    EOS,
    SLOTS,
    THINKING,
    Runner,
    logits_after,
    params,
    plain,
)
from tests.rollout.small_models import VOCAB

TOKENS = 24
REQUESTS = [
    (RequestBudget(Budget(5, 6)), THINKING),
    (RequestBudget(Budget(20, 5, closing="ab</think>cd")), THINKING),
    (RequestBudget(Budget(15, 5, min_thinking=12, max_extensions=3, extension="abc")), THINKING),
    (RequestBudget(Budget(8, 4, notices=((2, "xy"),))), [11]),
    (RequestBudget(Budget(None, 7)), ANSWERING),
    (RequestBudget(Budget(6, 6), end_markers=("ab",)), THINKING),
    (RequestBudget(Budget(9, 6), phase=Phase.THINKING, thinking_used=5), [12]),
    (None, THINKING),
]


def _prompt(kind: int, number: int) -> list[int]:
    """A prompt of its own for each request, with the end that its kind wants."""
    return [6 + number, *REQUESTS[kind][1]]


@pytest.mark.parametrize("drafts", [0, 1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_any_course_of_events_gives_the_tokens_of_plain_decoding(seed, drafts):
    runner, chance = Runner(drafts), random.Random(seed)
    expected: dict[str, list[int] | None] = {}
    waiting: list[str] = []
    for number in range(9):
        kind = chance.randrange(len(REQUESTS))
        asked, prompt = REQUESTS[kind][0], _prompt(kind, number)
        sampling, name = params(asked, number, chance.choice([0.0, 1.0])), f"{number}"
        expected[name] = None if asked is None else plain(sampling, prompt, TOKENS + 8)
        while len(runner.slots) == SLOTS or (runner.slots and chance.random() < 0.5):
            _step(runner, chance, drafts, expected, waiting)
        runner.add(name, sampling, prompt)
    while runner.slots or waiting:
        _step(runner, chance, drafts, expected, waiting)
    for name, right in expected.items():
        assert right is None or runner.outputs[name] == right[: len(runner.outputs[name])]


def _step(
    runner: Runner,
    chance: random.Random,
    drafts: int,
    expected: dict[str, list[int] | None],
    waiting: list[str],
) -> None:
    """One step, in front of which a request may be preempted or return."""
    if len(waiting) and len(runner.slots) < SLOTS and chance.random() < 0.5:
        runner.back(waiting.pop())
    names = [name for name in runner.slots if chance.random() < 0.8]
    chance.shuffle(names)
    if not names:
        return
    proposed = {}
    for name in names:
        begun = len(runner.outputs[name])
        right = (expected[name] or [5] * 99)[begun : begun + chance.randrange(drafts + 1)]
        proposed[name] = [
            token if chance.random() < 0.7 else chance.choice([EOS, END, -1, 9]) for token in right
        ]
    runner.step(names, proposed, unfinished=[name for name in names if chance.random() < 0.1])
    for name in names:
        if len(runner.outputs[name]) >= TOKENS:
            runner.leave(name)
        elif chance.random() < 0.1:
            runner.leave(name)
            waiting.append(name)


def test_rows_of_requests_without_a_budget_stay_as_they_are_to_the_bit():
    runner = Runner(drafts=2)
    runner.add("with", params(Budget(3, 4)), THINKING)
    runner.add("without", params(None), [9, 8])
    left = runner.step(["with", "without"], {"with": [5, 6], "without": [7]})
    right = torch.stack([logits_after([9, 8]), logits_after([9, 8, 7])])
    assert torch.equal(left[3:], right)
    assert all(row.tolist().count(-torch.inf) == VOCAB - 1 for row in left[:3])


def test_a_slot_that_a_request_with_a_budget_had_does_not_bind_the_next_one():
    runner = Runner(drafts=0)
    runner.add("first", params(Budget(0, 1)), THINKING)
    runner.step(["first"])
    runner.leave("first")
    runner.add("second", params(None), THINKING)
    assert torch.equal(runner.step(["second"])[0], logits_after(THINKING))


def test_a_row_whose_logits_are_broken_ends_and_the_others_go_on():
    nan = torch.full((VOCAB,), torch.nan)
    runner = Runner(model=lambda tokens: nan if tokens[0] == 8 else logits_after(tokens))
    runner.add("broken", params(Budget(3, 4)), [8, *THINKING])
    runner.add("whole", params(Budget(3, 4)), THINKING)
    runner.step(["broken", "whole"], {"broken": [9, 9], "whole": [9, 9]})
    assert runner.outputs["broken"] == [EOS]
    assert runner.outputs["whole"] == plain(params(Budget(3, 4)), THINKING, len(runner.outputs["whole"]))


EARLY_END = RequestBudget(Budget(30, 4, closing="ab</think>cd"))


def _wants_eos(tokens: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(EOS if len(tokens) == 3 else 20), VOCAB) * 20.0


def test_a_preempted_request_remembers_the_eos_that_its_closing_text_replaced():
    runner = Runner(model=_wants_eos)
    sampling = params(EARLY_END, temperature=0.0)
    runner.add("a", sampling, THINKING)
    for _ in range(2):
        runner.step(["a"])
    runner.leave("a")
    runner.add("b", params(Budget(5, 5)), THINKING)
    runner.step(["b"])
    runner.back("a")
    runner.step(["b", "a"])
    runner.step(["b", "a"])
    assert runner.outputs["a"] == plain(sampling, THINKING, 4, _wants_eos)
    assert runner.outputs["a"][-1] == END


def test_a_preempted_request_that_lost_tokens_on_their_way_goes_on_from_those_it_has():
    sampling = params(RequestBudget(Budget(4, 6)), 3)
    runner = Runner()
    runner.add("a", sampling, THINKING)
    for _ in range(4):
        runner.step(["a"])
    runner.leave("a")
    del runner.outputs["a"][2:]
    runner.back("a")
    for _ in range(8):
        runner.step(["a"])
    assert runner.outputs["a"] == plain(sampling, THINKING, 10)


def test_a_request_that_returns_with_other_parameters_is_read_back_from_its_tokens():
    budget = RequestBudget(Budget(6, 5, notices=((2, "xy"),)))
    whole = plain(params(budget, 3), THINKING, 16)
    for begun in range(1, 12):
        runner = Runner(drafts=0)
        runner.add("a", params(budget, 3), THINKING, whole[:begun])
        while len(runner.outputs["a"]) < 16:
            runner.step(["a"])
        assert runner.outputs["a"] == whole


def test_samples_that_share_their_parameters_do_not_take_each_others_states():
    sampling = params(RequestBudget(Budget(4, 6)), 3)
    runner = Runner(drafts=0)
    for name in ("a", "b"):
        runner.add(name, sampling, [*THINKING])
    for _ in range(3):
        runner.step(["a"])
    runner.step(["b"])
    runner.leave("b")
    runner.leave("a")
    runner.back("b")
    runner.back("a")
    for _ in range(8):
        runner.step(["a", "b"])
    whole = plain(sampling, THINKING, 11)
    assert runner.outputs["a"] == whole
    assert runner.outputs["b"] == whole[:9]


def test_what_an_unfinished_prefill_draws_counts_for_nothing():
    sampling = params(RequestBudget(Budget(2, 3)), 1)
    runner = Runner(drafts=2)
    runner.add("a", sampling, THINKING)
    for _ in range(5):
        runner.step(["a"], unfinished=["a"])
    for _ in range(5):
        runner.step(["a"])
    assert runner.outputs["a"] == plain(sampling, THINKING, 5)


def test_what_budgets_hold_does_not_grow_with_their_number():
    runner, chance = Runner(drafts=1), random.Random(0)

    def requests(number: int) -> int:
        for _ in range(number):
            budget = Budget(chance.randint(0, 10**6), chance.randint(1, 10**6))
            runner.add("a", params(budget), THINKING)
            runner.step(["a"], {"a": [5]})
            runner.leave("a")
        gc.collect()
        return len(gc.get_objects())

    requests(50)
    assert abs(requests(300) - requests(300)) < 50


def _fake(mode: FakeTensorMode, holder: Any) -> None:
    """Takes the data from all tensors that an object holds, itself or through its own objects."""
    for name, value in vars(holder).items():
        if isinstance(value, torch.Tensor):
            setattr(holder, name, mode.from_tensor(value))
        elif isinstance(value, (V2Budgets, Rows, SlotStates, BudgetTables, SimpleNamespace)):
            _fake(mode, value)
    for table in getattr(holder, "open", ()):
        fakes = {name: mode.from_tensor(getattr(table.machine, name)) for name in ("tables", "token_flags")}
        table.machine = replace(table.machine, **fakes)


def test_neither_a_step_nor_an_arrival_reads_the_device():
    runner, drafts = Runner(drafts=2), {"a": [5], "b": [5, 6]}
    runner.add("a", params(RequestBudget(Budget(2, 3))), THINKING)
    runner.add("b", params(RequestBudget(Budget(2, 3), end_markers=("ab",))), THINKING)
    runner.add("c", params(None), THINKING)
    runner.step(["a", "b", "c"], drafts)
    runner.leave("a")
    runner.back("a")
    context, mode = runner.context(["c", "b", "a"], drafts), FakeTensorMode()
    for holder in (runner.budgets, runner.buffers, context):
        _fake(mode, holder)
    logits = mode.from_tensor(torch.zeros(6, VOCAB))
    with mode:
        runner.budgets.apply_staged_writes()
        left = runner.budgets.apply(logits, context)
        with pytest.raises(DataDependentOutputException):
            bool((left == 0).any())  # what such a read would have done
