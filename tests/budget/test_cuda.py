"""The CUDA ops against the CPU ops, bit for bit; graphs, and no synchronisation."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from elastic import Budget, Markers, ops
from elastic.machine import compile_budgets

from .helpers import EOS, PAD, cases_and_streams

START, END = 2, 3
ONE = Markers((START,), (END,))
X, Y = 6, 7


def mixed_batch(rows):
    budgets = [Budget(i % 7, 1 + i % 5, closing=(Y, END, Y), on_reopen="forbid") for i in range(rows)]
    machine, index = compile_budgets(budgets, ONE, None, [EOS], PAD)
    return machine, index


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(both=cases_and_streams())
def test_cuda_equals_cpu_on_random_budgets_and_streams(cuda, both):
    case, stream = both
    here, there = case.machine, case.machine.to(cuda)
    phase = torch.tensor([int(case.start)], dtype=torch.int32)
    a, b = ops.new_state(1, here, phase=phase), ops.new_state(1, there, phase=phase.to(cuda))
    for token in stream:
        t, u = torch.tensor([token]), torch.tensor([token], device=cuda)
        assert torch.equal(ops.budget_step_(t, a, here), ops.budget_step_(u, b, there).cpu())
        assert torch.equal(t, u.cpu())
    assert torch.equal(a, b.cpu())


@pytest.mark.parametrize("rows", [1, 31, 256, 1024, 1025, 3000])  # a warp, a block, more rows than threads
def test_cuda_counts_active_rows_at_every_batch_size(cuda, rows):
    machine, index = mixed_batch(rows)
    there = machine.to(cuda)
    a, b = ops.new_state(index, machine), ops.new_state(index, there)
    count, counted = torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32, device=cuda)
    for step in range(16):
        t = torch.where(torch.arange(rows) % 11 == step, EOS, X)
        u = t.to(cuda)
        source = ops.budget_step_(t, a, machine, active=count)
        assert torch.equal(source, ops.budget_step_(u, b, there, active=counted).cpu())
        assert torch.equal(t, u.cpu())
        assert count.item() == counted.item() == int((~ops.is_done(a)).sum())
    assert torch.equal(a, b.cpu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("vocab", [100, 4096, 4097, 151_936])  # part of a tile, one, one and a bit, many
def test_cuda_forces_logits_like_the_cpu(cuda, dtype, vocab):
    machine, index = mixed_batch(33)
    there = machine.to(cuda)
    a = ops.new_state(index, machine)
    for _ in range(4):
        ops.budget_step_(torch.full((33,), X), a, machine)
    logits = torch.randn(33, vocab + 3).to(dtype)
    device_logits = logits.to(cuda)
    ops.force_logits_(logits[:, :vocab], a, machine)
    ops.force_logits_(device_logits[:, :vocab], a.to(cuda), there)
    assert torch.equal(logits, device_logits.cpu())


def test_cuda_replay_equals_cpu(cuda):
    machine, index = mixed_batch(300)
    tokens = torch.randint(0, 9, (300, 40), generator=torch.Generator().manual_seed(0))
    lengths = torch.randint(0, 41, (300,), generator=torch.Generator().manual_seed(1))
    here = ops.replay(tokens, lengths, ops.new_state(index, machine), machine)
    there = machine.to(cuda)
    device = ops.replay(tokens.to(cuda), lengths.to(cuda), ops.new_state(index, there), there)
    for a, b in zip(here, device, strict=True):
        assert torch.equal(a, b.cpu())


def test_cuda_step_is_captured_in_a_graph_and_never_synchronises(cuda):
    machine, index = mixed_batch(64)
    there = machine.to(cuda)
    first = ops.new_state(index, there)
    state, tokens = first.clone(), torch.full((64,), X, device=cuda)
    logits = torch.zeros(64, 100, device=cuda)
    active = torch.zeros(1, dtype=torch.int32, device=cuda)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        tokens.fill_(X)
        ops.force_logits_(logits, state, there)
        ops.budget_step_(tokens, state, there, active=active)
    state.copy_(first)
    expected = ops.new_state(index, machine)
    for _ in range(12):
        graph.replay()
        want = torch.full((64,), X)
        ops.budget_step_(want, expected, machine)
        assert torch.equal(tokens.cpu(), want)
    torch.cuda.set_sync_debug_mode("error")
    try:
        ops.budget_step_(tokens, state, there, active=active)
        ops.force_logits_(logits, state, there)
        ops.forced_next(state, there)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_cuda_rows_with_an_illegal_index_are_done_and_read_nothing(cuda):
    machine, _ = mixed_batch(3)
    there = machine.to(cuda)
    state = ops.new_state(torch.tensor([0, 10**6, -1], device=cuda), there)
    assert ops.is_done(state).tolist() == [False, True, True]


def test_cuda_opcheck(cuda):
    machine, index = mixed_batch(5)
    there = machine.to(cuda)
    state = ops.new_state(index, there)
    tokens = torch.full((5,), X, device=cuda)
    active = torch.zeros(1, dtype=torch.int32, device=cuda)
    step = torch.ops.elastic.budget_step_.default
    torch.library.opcheck(step, (tokens, state, there.tables, there.token_flags, active))
    logits = torch.randn(5, 100, device=cuda)
    torch.library.opcheck(torch.ops.elastic.force_logits_.default, (logits, state, there.tables))


def test_tensors_on_different_devices_are_refused_naming_both(cuda):
    machine, index = mixed_batch(2)
    state = ops.new_state(index, machine)
    with pytest.raises(ValueError, match="budget_step_: tables: expected device cuda:0, got cpu"):
        ops.budget_step_(torch.tensor([X, X], device=cuda), state, machine)
