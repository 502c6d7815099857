"""Calls of the budget and sampling ops that are harmless and work; and that outputs share no memory."""

import itertools

import numpy as np
import pytest
import torch

from elastic import Budget, Markers, Phase, ops
from elastic.budget.machine import compile_budgets
from tests.budget.test_calls import READERS

pytestmark = pytest.mark.usefixtures("kernels")

MACHINE = compile_budgets([Budget(2, 2), Budget(0, 1)], Markers((2,), (3,)), None, [0], 9)[0]
ONE = compile_budgets([Budget(2, 2)], Markers((2,), (3,)), None, [0], 9)[0]


def test_indices_and_phases_may_be_lists_and_integers_of_any_width():
    want = ops.new_state(torch.tensor([1, 0]), MACHINE, phase=torch.tensor([4, 1], dtype=torch.int32))
    phases = [Phase.SOLUTION, Phase.THINKING], (4, 1), torch.tensor([4, 1]), torch.tensor([4, 1]).byte()
    indices = [1, 0], range(1, -1, -1), torch.tensor([1, 0]).int(), list(np.array([1, 0]))
    for phase, rows in itertools.product(phases, indices):
        assert torch.equal(ops.new_state(rows, MACHINE, phase=phase), want)
    for opened in ([True, False], torch.tensor([True, False])):
        assert ops.state_phase(ops.new_state(2, ONE, starts_in_thinking=opened)).tolist() == [1, 0]


def test_parameters_of_sampling_may_be_0_dim_and_of_any_width():
    rows = torch.arange(4)
    logits = torch.randn(4, 40, generator=torch.Generator().manual_seed(0))
    want = ops.sample(logits, rows, rows, 0.5, top_k=9, top_p=0.75, min_p=0.125)
    for float_type in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for int_type in (torch.int64, torch.int32, torch.uint8):
            for shape in ((), (4,)):
                temperature, top_p, min_p = (
                    torch.full(shape, value, dtype=float_type) for value in (0.5, 0.75, 0.125)
                )
                top_k = torch.full(shape, 9, dtype=int_type)
                got = ops.sample(logits, rows.to(int_type), rows.int(), temperature, top_k, top_p, min_p)
                assert all(torch.equal(a, b) for a, b in zip(got[:3], want[:3], strict=True))
    whole = ops.sample(logits, rows, rows, 2)
    leaf = torch.full((4,), 2.0, requires_grad=True)
    for two in (2.0, np.float32(2), torch.tensor(2), torch.full((4,), 2), leaf):
        assert torch.equal(ops.sample(logits, rows, rows, two).tokens, whole.tokens)


def test_replay_takes_integers_of_any_width():
    call = {
        "tokens": torch.tensor([[6, 6, 6], [3, 6, 6]]),
        "lengths": torch.tensor([1, 2]),
        "state": ops.new_state([0, 1], MACHINE),
        "machine": MACHINE,
    }
    want = ops.replay(**call)
    got = ops.replay(**call | {"tokens": call["tokens"].int(), "lengths": call["lengths"].byte()})
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_a_state_that_is_only_read_may_lie_anywhere():
    state = ops.new_state([0, 1], MACHINE)
    moved = torch.zeros(17, dtype=torch.int32)[1:].view(2, 8).copy_(state)
    assert torch.equal(ops.forced_next(moved, MACHINE), ops.forced_next(state, MACHINE))
    tokens, lengths = torch.tensor([[6, 6], [3, 6]]), torch.tensor([1, 2])
    want = ops.replay(tokens, lengths, state, MACHINE)
    got = ops.replay(tokens, lengths, moved, MACHINE)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    here, there = torch.randn(2, 2, 12).unbind()
    there.copy_(here)
    ops.force_logits_(here, state, MACHINE)
    ops.force_logits_(there, moved, MACHINE)
    assert torch.equal(here, there)


def test_no_output_shares_memory_with_an_argument():
    for rows in (torch.tensor([0, 1]), torch.zeros(0, dtype=torch.int64)):
        state = ops.new_state(rows, MACHINE)
        before = state.clone()
        history = rows[:, None].expand(-1, 3).contiguous()
        source = torch.zeros_like(history, dtype=torch.uint8)
        lengths = torch.zeros_like(rows)
        outputs = [
            *(getattr(ops, reader)(state) for reader in READERS),
            ops.forced_next(state, MACHINE),
            *ops.replay(history, lengths, state, MACHINE, source=source),
            ops.new_state(rows, MACHINE, phase=rows),
        ]
        for output in outputs:
            output.fill_(1)
        assert torch.equal(state, before)
        assert rows.tolist() == [0, 1][: len(rows)]
        assert not source.any()
        assert not lengths.any()
