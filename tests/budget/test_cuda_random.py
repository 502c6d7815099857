"""The CUDA step against the CPU step on random budgets and token streams, bit for bit."""

import torch
from hypothesis import HealthCheck, given, settings

from elastic import ops
from tests.budget.strategies import cases_and_streams


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(both=cases_and_streams())
def test_cuda_equals_cpu_on_random_budgets_and_streams(cuda, both):
    case, stream = both
    here, there = case.machine, case.machine.to(cuda)
    start = {"phase": [int(case.start)], "thinking_used": [case.used]}
    a, b = ops.new_state([0], here, **start), ops.new_state([0], there, **start)
    for position, token in enumerate(stream):
        if position == case.ended_at:
            ops.end_thinking_(a, [0])
            ops.end_thinking_(b, torch.tensor([True], device=cuda))
        t, u = torch.tensor([token]), torch.tensor([token], device=cuda)
        assert torch.equal(ops.budget_step_(t, a, here), ops.budget_step_(u, b, there).cpu())
        assert torch.equal(t, u.cpu())
    assert torch.equal(a, b.cpu())
