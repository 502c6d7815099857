"""The CUDA step against the CPU step on random budgets and token streams, bit for bit."""

import torch
from hypothesis import HealthCheck, given, settings

from elastic import ops

from .helpers import cases_and_streams


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
