"""The CUDA ops against the CPU ops, bit for bit; graphs, and no synchronisation."""

import pytest
import torch

from elastic import Budget, Markers, ops
from elastic.budget.machine import compile_budgets

START, END = 2, 3
EOS, PAD = 0, 99
ONE = Markers((START,), (END,))
X, Y = 6, 7


def mixed_batch(rows):
    budgets = [Budget(i % 7, 1 + i % 5, closing=(Y, END, Y), on_reopen="forbid") for i in range(rows)]
    machine, index = compile_budgets(budgets, ONE, None, [EOS], PAD)
    return machine, index


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


# Part of a block's tile, one tile of 2-byte elements and a bit more, many of any.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("vocab", [100, 8192, 8193, 151_936])
@pytest.mark.parametrize("first", [0, 1, 5])  # where rows begin within 16 bytes; the stride moves that on
def test_cuda_forces_logits_like_the_cpu(cuda, dtype, vocab, first):
    machine, index = mixed_batch(33)
    there = machine.to(cuda)
    a = ops.new_state(index, machine)
    for _ in range(4):
        ops.budget_step_(torch.full((33,), X), a, machine)
    logits = torch.randn(33, vocab + 9).to(dtype)
    device_logits = logits.to(cuda)
    ops.force_logits_(logits[:, first : first + vocab], a, machine)
    ops.force_logits_(device_logits[:, first : first + vocab], a.to(cuda), there)
    assert torch.equal(logits, device_logits.cpu())


@pytest.mark.parametrize("vocab", [6, 40, 8192, 20_001])  # 6: less than a 16-byte word
def test_cuda_forces_the_last_and_the_first_token_of_a_row(cuda, vocab):
    for token in (0, 1, vocab - 2, vocab - 1):
        markers = Markers((START,), (token,))
        machine, index = compile_budgets([Budget(0, 5)], markers, None, [3], 3)  # the end marker at once
        logits = torch.randn(3, vocab, device=cuda)
        there = machine.to(cuda)
        ops.force_logits_(logits, ops.new_state(index.expand(3), there), there)
        expected = torch.full((3, vocab), -torch.inf)
        expected[:, token] = 0
        assert torch.equal(logits.cpu(), expected)


def test_state_off_a_16_byte_boundary_is_refused(cuda):
    machine, index = mixed_batch(4)
    there = machine.to(cuda)
    state = torch.empty(33, dtype=torch.int32, device=cuda)[1:].view(4, 8)
    state.copy_(ops.new_state(index, there))
    with pytest.raises(ValueError, match="budget_step_: state: expected rows aligned to 16 bytes"):
        ops.budget_step_(torch.full((4,), X, device=cuda), state, there)


def test_cuda_replay_equals_cpu(cuda):
    machine, index = mixed_batch(300)
    tokens = torch.randint(0, 9, (300, 40), generator=torch.Generator().manual_seed(0))
    lengths = torch.randint(0, 41, (300,), generator=torch.Generator().manual_seed(1))
    here = ops.replay(tokens, lengths, ops.new_state(index, machine), machine)
    there = machine.to(cuda)
    device = ops.replay(tokens.to(cuda), lengths.to(cuda), ops.new_state(index, there), there)
    for a, b in zip(here, device, strict=True):
        assert torch.equal(a, b.cpu())


@pytest.mark.parametrize("rows", [64, 2000])
def test_cuda_step_is_captured_in_a_graph(cuda, rows):
    machine, index = mixed_batch(rows)
    there = machine.to(cuda)
    first = ops.new_state(index, there)
    state, tokens = first.clone(), torch.full((rows,), X, device=cuda)
    logits = torch.zeros(rows, 101, device=cuda, dtype=torch.bfloat16)
    active = torch.zeros(1, dtype=torch.int32, device=cuda)

    def region():
        logits.fill_(1)
        tokens.fill_(X)
        ops.force_logits_(logits, state, there)
        return ops.budget_step_(tokens, state, there, active=active)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        region()  # loads the kernels, which a capture may not
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        source = region()
    state.copy_(first)
    expected = ops.new_state(index, machine)
    for _ in range(12):
        graph.replay()
        forced, want = torch.ones(rows, 101, dtype=torch.bfloat16), torch.full((rows,), X)
        ops.force_logits_(forced, expected, machine)
        came_from = ops.budget_step_(want, expected, machine)
        assert torch.equal(logits.cpu(), forced)
        assert torch.equal(tokens.cpu(), want)
        assert torch.equal(source.cpu(), came_from)
        assert torch.equal(state.cpu(), expected)
        assert active.item() == int((~ops.is_done(expected)).sum())


def test_cuda_step_never_synchronises(cuda):
    machine, index = mixed_batch(64)
    there = machine.to(cuda)
    state, tokens = ops.new_state(index, there), torch.full((64,), X, device=cuda)
    logits = torch.zeros(64, 100, device=cuda)
    active = torch.zeros(1, dtype=torch.int32, device=cuda)
    torch.cuda.set_sync_debug_mode("error")
    try:
        ops.force_logits_(logits, state, there)
        ops.budget_step_(tokens, state, there, active=active)
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
    with pytest.raises(ValueError, match="budget_step_: state: expected a tensor on cuda:0, got one on cpu"):
        ops.budget_step_(torch.tensor([X, X], device=cuda), state, machine)
