"""The ops themselves: opcheck, torch.compile, dtypes, strides, empty batches."""

import pytest
import torch

from elastic import Budget, Markers, Phase, ops, reference
from elastic.budget.machine import compile_budgets
from tests.budget.helpers import EOS, PAD, machine_for

pytestmark = pytest.mark.usefixtures("kernels")

START, END = 2, 3
ONE = Markers((START,), (END,))
A, B = 4, 5
X, Y, Z = 6, 7, 8
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.fixture
def machine():
    return compile_budgets(
        [Budget(2, 2, closing=(Y, END, Z)), Budget(0, 1), Budget(3, 4, on_reopen="forbid")],
        ONE,
        None,
        [EOS],
        PAD,
    )[0]


@pytest.fixture
def state(machine):
    """Rows that are free, forced, masked and done."""
    state = ops.new_state(torch.tensor([0, 0, 1, 2, 1]), machine)
    for tokens in ([X, X, X, END, X], [X, X, X, X, X]):
        ops.budget_step_(torch.tensor(tokens), state, machine)
    return state


def test_opcheck_of_every_op(machine, state):
    t, f = machine.tables, machine.token_flags
    phases = torch.full((5,), int(Phase.THINKING))
    new_state, rows = torch.ops.elastic.new_state.default, torch.tensor([0, 0, 1, 2, 1])
    torch.library.opcheck(new_state, (rows, phases, t))
    torch.library.opcheck(new_state, (rows, phases, t, torch.arange(5)))
    for ended in (torch.tensor([4, 0]), torch.tensor([True, False, True, True, False])):
        torch.library.opcheck(torch.ops.elastic.end_thinking_.default, (state.clone(), ended))
    tokens = torch.tensor([X, END, X, EOS, X])
    step = torch.ops.elastic.budget_step_.default
    torch.library.opcheck(step, (tokens.clone(), state.clone(), t, f))
    torch.library.opcheck(step, (tokens.clone(), state.clone(), t, f, torch.zeros(1, dtype=torch.int32)))
    for dtype in DTYPES:
        force = torch.ops.elastic.force_logits_.default
        torch.library.opcheck(force, (torch.randn(5, 100).to(dtype), state.clone(), t))
    torch.library.opcheck(torch.ops.elastic.forced_next.default, (state, t))
    history = torch.tensor(
        [[X, X, Y, END], [X, END, X, X], [END, X, PAD, PAD], [X, X, X, END], [END, X, 0, 0]]
    )
    lengths = torch.tensor([4, 3, 2, 4, 2])
    fresh = ops.new_state(torch.tensor([0, 0, 1, 2, 1]), machine)
    replay = torch.ops.elastic.replay.default
    torch.library.opcheck(replay, (history, lengths, fresh, t, f))
    hints = torch.zeros_like(history, dtype=torch.uint8)
    torch.library.opcheck(replay, (history, lengths, fresh, t, f, hints))
    torch.library.opcheck(replay, (history, lengths, fresh, t, f, None, torch.tensor([0, -1, 2, 4, 1])))


def test_a_compiled_step_equals_the_eager_one(machine):
    def step(logits, tokens, state, active):
        ops.end_thinking_(state, tokens == START)
        ops.force_logits_(logits, state, machine)
        source = ops.budget_step_(tokens, state, machine, active=active)
        phases = ops.last_phase(state), ops.state_phase(state)
        return source, ops.is_done(state), ops.forced_next(state, machine), *phases

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    results = []
    for function in (step, compiled):
        state = ops.new_state(torch.tensor([0, 0, 1, 2, 1]), machine)
        out = []
        for token in [X, X, START, END, X, START, X, X]:
            logits, tokens = torch.zeros(5, 100), torch.full((5,), token)
            active = torch.zeros(1, dtype=torch.int32)
            result = function(logits, tokens, state, active)
            out += [logits, tokens, active.clone(), state.clone(), *result]
        results.append(out)
    for eager, other in zip(*results, strict=True):
        assert torch.equal(eager, other)


def test_a_whole_compiled_decode_mutates_what_the_schema_says(machine):
    def decode(state):
        state = state.clone()
        out = []
        for _ in range(6):
            tokens = torch.full((2,), X)
            ops.budget_step_(tokens, state, machine)
            out.append(tokens)
        return torch.stack(out), state

    state = ops.new_state(torch.tensor([0, 1]), machine)
    compiled = torch.compile(decode, fullgraph=True, backend="aot_eager")(state)
    for eager, other in zip(decode(state), compiled, strict=True):
        assert torch.equal(eager, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_of_every_dtype_are_forced_exactly(machine, state, dtype):
    logits = torch.randn(5, 101).to(dtype)
    expected = logits.clone()
    ops.force_logits_(logits, state, machine)
    reference.force_logits_(expected, state, machine)
    assert torch.equal(logits, expected)
    forced = ops.forced_next(state, machine)
    assert forced.tolist() == [Y, Y, PAD, -1, PAD]
    assert torch.equal(forced, reference.forced_next(state, machine))
    rows = forced >= 0
    assert torch.equal(logits[rows].argmax(1).int(), forced[rows])
    assert (logits[rows].isinf().sum(1) == 100).all()
    assert logits[3].isinf().nonzero().tolist() == [[START]]


def test_strided_logits_keep_what_lies_between_the_rows(machine, state):
    buffer = torch.randn(5, 130)
    before = buffer.clone()
    ops.force_logits_(buffer[:, :100], state, machine)
    assert torch.equal(buffer[:, 100:], before[:, 100:])
    assert buffer[0, :100].isinf().sum() == 99


def test_rows_already_minus_infinity_stay_samplable(machine, state):
    logits = torch.full((5, 100), -torch.inf)
    ops.force_logits_(logits, state, machine)
    assert torch.isfinite(torch.softmax(logits[:3], -1)).all()


def test_empty_batches_return_empty_outputs(machine):
    state = ops.new_state(torch.empty(0, dtype=torch.int64), machine)
    assert state.shape == (0, 8)
    active = torch.tensor([7], dtype=torch.int32)
    source = ops.budget_step_(torch.empty(0, dtype=torch.int64), state, machine, active=active)
    assert (source.shape, active.item()) == ((0,), 0)
    assert ops.forced_next(state, machine).shape == (0,)
    ops.force_logits_(torch.empty(0, 100), state, machine)
    outs = ops.replay(torch.empty(0, 3, dtype=torch.int64), torch.empty(0, dtype=torch.int64), state, machine)
    assert [tuple(o.shape) for o in outs] == [(0, 3), (0, 3), (0, 8), (0,)]
    outs = ops.replay(
        torch.empty(2, 0, dtype=torch.int64), torch.zeros(2).long(), state.new_zeros(2, 8), machine
    )
    assert [tuple(o.shape) for o in outs] == [(2, 0), (2, 0), (2, 8), (2,)]


def test_ids_outside_the_vocabulary_are_ordinary_text(machine):
    state = ops.new_state(torch.tensor([0]), machine)
    for token in (10**12, -5, 2**31):
        tokens = torch.tensor([token])
        ops.budget_step_(tokens, state, machine)
    assert ops.thinking_used(state).item() == 2


def test_every_row_starts_where_the_caller_says(machine):
    phase = torch.tensor([0, 1, 4, 5], dtype=torch.int32)
    state = ops.new_state([0, 0, 0, 0], machine, phase=phase)
    assert torch.equal(ops.state_phase(state), phase)
    opened = torch.tensor([True, False])
    assert ops.state_phase(ops.new_state([0, 0], machine, starts_in_thinking=opened)).tolist() == [1, 0]
    single = machine_for(Budget(2, 2), ONE)
    assert ops.state_phase(ops.new_state(3, single, starts_in_thinking=False)).tolist() == [0, 0, 0]
    assert reference.new_state(3, single).equal(ops.new_state(3, single))
