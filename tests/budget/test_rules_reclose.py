"""Rule R20 by hand: a second end marker behind a forced close."""

import pytest
import torch

from elastic import Budget, Markers, ops
from elastic.budget.pattern import Spelling
from tests.budget.ends import END, OTHER, START, TOOL, A, B, M, X, Y, masked
from tests.budget.helpers import machine_for, run

pytestmark = pytest.mark.usefixtures("kernels")


def test_r20_forbid_masks_a_second_end_behind_a_forced_close():
    machine = machine_for(Budget(1, 9, on_reclose="forbid", closing=(END, Y)), TOOL)
    out = run(machine, [X, X, X, X, X])
    seen = [masked(machine, state) for state in out.states]
    assert seen[0] == []
    assert seen[3:] == [[END, OTHER]] * 3  # the end marker and the other that opens nothing


def test_r20_nothing_is_masked_behind_a_natural_end_or_under_count():
    for budget, stream in ((Budget(9, 9, on_reclose="forbid"), [X, END, X]), (Budget(1, 9), [X, X, X])):
        machine = machine_for(budget, TOOL)
        assert masked(machine, run(machine, stream).state) == []


def test_r20_an_end_that_begins_in_the_forced_tail_is_masked():
    markers = Markers((START,), (A, A, B))
    machine = machine_for(Budget(0, 9, on_reclose="forbid", closing=(A, A, B, Y, A, A)), markers)
    state = run(machine, [X] * 6).state
    assert masked(machine, state) == [B]
    assert masked(machine, run(machine, [X], state=state).state) == []


def test_r20_merged_last_tokens_are_masked_too():
    markers = Markers((START,), (A, B), end_spellings=(Spelling((A, B), last=frozenset({M})),))
    machine = machine_for(Budget(0, 9, on_reclose="forbid"), markers)
    assert masked(machine, run(machine, [X, X, A]).state) == [B, M]


def test_r20_both_markers_are_masked_together():
    machine = machine_for(Budget(0, 9, on_reclose="forbid", on_reopen="forbid"), Markers((START,), (END,)))
    assert masked(machine, run(machine, [X, X]).state) == [START, END]


def test_r20_sampling_draws_no_second_end():
    machine = machine_for(Budget(0, 9, on_reclose="forbid"), TOOL)
    state = run(machine, [X]).state
    logits = torch.zeros(1, 100)
    logits[0, END], logits[0, OTHER], logits[0, X] = 3.0, 2.0, 1.0
    out = ops.sample(logits, torch.tensor([7]), torch.tensor([1]), 0.0, state=state, machine=machine)
    assert out.tokens.tolist() == [X]
    torch.testing.assert_close(out.full_logprobs, logits.log_softmax(-1)[:, X])
