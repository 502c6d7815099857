"""Force, draw, account without the model: what a CUDA graph needs, checked without a GPU.

Under FakeTensorMode a tensor has no data, so every read by the host raises.
"""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from elastic import Budget, Markers, ops
from elastic.budget.machine import compile_budgets
from tests.budget.helpers import EOS, PAD

ROWS, VOCAB = 6, 120
MARKERS = Markers((2,), (3,))


def region(logits, state, tokens, uniform, active, machine):
    """A decode step without the model; the results stand in its arguments."""
    ops.end_thinking_(state, uniform > 0.99)
    ops.force_logits_(logits, state, machine)
    up_to = logits.double().softmax(-1).cumsum(-1)
    tokens.copy_(torch.searchsorted(up_to, uniform[:, None])[:, 0].clamp_(max=VOCAB - 1))
    source = ops.budget_step_(tokens, state, machine, active=active)
    tokens.masked_fill_(ops.is_done(state) & (source == 2), PAD)


@pytest.fixture
def arguments():
    budgets = [Budget(1 + i % 3, 2, closing=(7, 3, 7), on_reopen="forbid") for i in range(ROWS)]
    machine, index = compile_budgets(budgets, MARKERS, None, [EOS], PAD)
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(ROWS, VOCAB, generator=generator),
        ops.new_state(index, machine),
        torch.zeros(ROWS, dtype=torch.int64),
        torch.rand(ROWS, dtype=torch.float64, generator=generator),
        torch.zeros(1, dtype=torch.int32),
        machine,
    )


def faked(mode, arguments):
    *tensors, machine = arguments
    fields = {name: mode.from_tensor(getattr(machine, name)) for name in ("tables", "token_flags")}
    return [*map(mode.from_tensor, tensors), replace(machine, **fields)]


def test_the_region_reads_nothing_on_the_host(arguments):
    mode = FakeTensorMode()
    fakes = faked(mode, arguments)
    with mode:
        region(*fakes)


@pytest.mark.parametrize(
    "read",
    [
        lambda tokens: tokens.sum().item(),
        lambda tokens: bool((tokens == EOS).any()),
        lambda tokens: tokens.tolist(),
        lambda tokens: tokens.nonzero(),
        lambda tokens: tokens[tokens == EOS],
    ],
    ids=["item", "any", "tolist", "nonzero", "boolean index"],
)
def test_a_region_that_did_read_would_raise(arguments, read):
    mode = FakeTensorMode()
    fakes = faked(mode, arguments)
    with mode:
        region(*fakes)
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            read(fakes[2])


def test_results_are_written_into_the_arguments(arguments):
    logits, state, tokens, _, active, _ = arguments
    for _ in range(12):  # until every row has spent its budget
        region(*arguments)
    assert ops.is_done(state).all()
    assert (tokens == PAD).all()
    assert active.item() == 0
    assert (logits.isinf().sum(1) == VOCAB - 1).all()  # each row was forced


def test_the_ops_take_tensors_of_a_device_that_is_not_there(arguments):
    """Nothing on the way to a CUDA kernel needs the device, or its memory, before the launch."""
    machine = arguments[-1]
    with FakeTensorMode():
        there = replace(
            machine,
            tables=torch.empty(machine.tables.shape, dtype=torch.int32, device="cuda"),
            token_flags=torch.empty(machine.token_flags.shape, dtype=torch.int64, device="cuda"),
        )
        state = torch.empty(ROWS, 8, dtype=torch.int32, device="cuda")
        tokens = torch.empty(ROWS, dtype=torch.int64, device="cuda")
        ops.force_logits_(torch.empty(ROWS, VOCAB, device="cuda"), state, there)
        ops.end_thinking_(state, torch.empty(ROWS, dtype=torch.bool, device="cuda"))
        source = ops.budget_step_(tokens, state, there)
    assert (source.device.type, source.dtype, source.shape) == ("cuda", torch.uint8, (ROWS,))
