"""Rule R19 by hand: tokens that a row has thought before its first one here."""

import pytest
import torch

from elastic import Budget, FinishReason, ops
from tests.budget.ends import END, SOLUTION, THINKING, TOOL, X, Y, Z, row
from tests.budget.helpers import machine_for

pytestmark = pytest.mark.usefixtures("kernels")


def test_r19_tokens_already_thought_count():
    assert row(Budget(5, 1), [X] * 9, used=3).tokens == [X, X, END, X]
    for used in (5, 6, 2**62):
        out = row(Budget(5, 1), [X] * 9, used=used)
        assert out.tokens == [END, X]
        assert (out.thinking, out.cut) == (5, True)


def test_r19_a_spent_budget_closes_at_once_whatever_the_grace():
    out = row(Budget(5, 1, grace=2, boundary=(Z,)), [X] * 9, used=5)
    assert out.tokens == [END, X]
    assert row(Budget(5, 1, grace=2, boundary=(Z,)), [X] * 9, used=99).thinking == 7


def test_r19_notices_at_a_lower_count_are_past():
    budget = Budget(9, 1, notices=((1, (Y,)), (3, (Z,)), (3, (Y, Y))))
    assert row(budget, [X] * 3, used=2).tokens == [X, Z, Y]
    assert row(budget, [X] * 4, used=3).tokens == [Z, Y, Y, X]
    assert row(budget, [X] * 3, used=4).tokens == [X, X, X]


def test_r19_the_minimum_and_the_total_see_them():
    budget = Budget(9, 1, min_thinking=4, extension=(Y,), max_extensions=1)
    assert row(budget, [END, X], used=4).tokens == [END, X]
    assert row(budget, [END, X], used=3).tokens == [Y, X]
    out = row(Budget(3, None, 6), [X] * 9, used=3, start=SOLUTION)
    assert (len(out.tokens), out.finish) == (3, FinishReason.TOTAL_BUDGET)
    assert row(Budget.vanilla(5), [X] * 9, used=3).tokens == [X, X]


@pytest.mark.parametrize("start", [THINKING, SOLUTION])
def test_r19_a_row_whose_total_is_spent_is_done(start):
    out = row(Budget.vanilla(5), [X] * 9, used=7, start=start)
    assert (out.tokens, out.finish, out.thinking) == ([], FinishReason.TOTAL_BUDGET, 5)


def test_r19_each_row_has_its_own_count_and_done_rows_ignore_it():
    machine = machine_for(Budget(5, 1), TOOL)
    state = ops.new_state(4, machine, phase=[1, 1, 4, 5], thinking_used=[0, 4, 2, 9])
    assert ops.thinking_used(state).tolist() == [0, 4, 2, 0]
    assert torch.equal(ops.new_state(2, machine, thinking_used=0), ops.new_state(2, machine))


@pytest.mark.cpu_kernels  # what lies on a device is not read
@pytest.mark.parametrize(
    ("phase", "used", "message"),
    [
        (1, -1, "thinking_used: expected at least 0, got -1 in row 1"),
        (0, 2, "thinking_used: expected 0 in OPENING, where thinking has not begun, got 2 in row 1"),
    ],
)
def test_r19_what_cannot_have_been_thought_is_refused(phase, used, message):
    with pytest.raises(ValueError, match=f"^new_state: {message}$"):
        ops.new_state(2, machine_for(Budget(5, 1), TOOL), phase=[1, phase], thinking_used=[1, used])
