"""`ops.sample` on a GPU: the CPU's tokens and logprobs, also from a replayed CUDA graph."""

import pytest
import torch

from elastic import Budget, Markers, ops
from elastic.budget.machine import compile_budgets
from tests.sampling.draws import DTYPES, SETTINGS, assert_same, batch


@pytest.mark.parametrize("vocab", [1, 31, 5000, 151_936, 262_144])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_draws_the_cpus_bits(cuda, vocab, dtype):
    logits, seeds, positions = batch(6, vocab, dtype)
    there = [tensor.to(cuda) for tensor in (logits, seeds, positions)]
    for settings in SETTINGS:
        out = ops.sample(*there, **settings)
        got = type(out)(*(None if part is None else part.cpu() for part in out))
        assert_same(got, ops.sample(logits, seeds, positions, **settings))


def test_a_replayed_graph_takes_seeds_positions_and_state_from_the_device(cuda):
    rows, vocab = 8, 3000
    machine, index = compile_budgets([Budget(4, 3), Budget(0, 2)], Markers((2,), (3,)), None, [1], 0)
    index = torch.arange(rows) % 2
    there = machine.to(cuda)
    state, on_cpu = ops.new_state(index.to(cuda), there), ops.new_state(index, machine)
    fresh = state.clone()
    logits, seeds, positions = (tensor.to(cuda) for tensor in batch(rows, vocab))
    active, broken = torch.zeros(2, 1, dtype=torch.int32, device=cuda)

    def step():
        return ops.sample(
            logits, seeds, positions, 0.8, top_p=0.9, state=state, machine=there, active=active, broken=broken
        )

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    state.copy_(fresh)
    for position in range(8):
        new, own_seeds, _ = batch(rows, vocab, seed=position)
        at = torch.full((rows,), position)
        for old, value in ((logits, new), (seeds, own_seeds), (positions, at)):
            old.copy_(value)
        graph.replay()
        counted = torch.zeros(1, dtype=torch.int32)
        want = ops.sample(new, own_seeds, at, 0.8, top_p=0.9, state=on_cpu, machine=machine, active=counted)
        assert_same(type(out)(*(part.cpu() for part in out)), want)
        assert torch.equal(state.cpu(), on_cpu)
        assert active.item() == counted.item()
    assert broken.item() == 0
