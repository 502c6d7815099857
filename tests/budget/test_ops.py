"""The ops themselves: opcheck, torch.compile, checks that name op, argument, expected and got."""

import pytest
import torch

from elastic import Budget, Markers, Phase, ops, reference
from elastic.machine import compile_budgets

from .helpers import EOS, PAD, machine_for

pytestmark = pytest.mark.usefixtures("kernels")

START, END = 2, 3
ONE = Markers((START,), (END,))
A, B = 4, 5
X, Y, Z = 6, 7, 8
CONTENTS = pytest.mark.cpu_kernels  # CUDA ops do not read contents back
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
    phases = torch.full((5,), int(Phase.THINKING), dtype=torch.int32)
    torch.library.opcheck(torch.ops.elastic.new_state.default, (torch.tensor([0, 0, 1, 2, 1]), phases, t))
    tokens = torch.tensor([X, END, X, EOS, X])
    step = torch.ops.elastic.budget_step_.default
    torch.library.opcheck(step, (tokens.clone(), state.clone(), t, f))
    torch.library.opcheck(step, (tokens.clone(), state.clone(), t, f, torch.zeros(1, dtype=torch.int32)))
    for dtype in DTYPES:
        force = torch.ops.elastic.force_logits_.default
        torch.library.opcheck(force, (torch.randn(5, 100).to(dtype), state.clone(), t))
    history = torch.tensor(
        [[X, X, Y, END], [X, END, X, X], [END, X, PAD, PAD], [X, X, X, END], [END, X, 0, 0]]
    )
    lengths = torch.tensor([4, 3, 2, 4, 2])
    fresh = ops.new_state(torch.tensor([0, 0, 1, 2, 1]), machine)
    replay = torch.ops.elastic.replay.default
    torch.library.opcheck(replay, (history, lengths, fresh, t, f))
    torch.library.opcheck(
        replay, (history, lengths, fresh, t, f, torch.zeros_like(history, dtype=torch.uint8))
    )


def test_a_compiled_step_equals_the_eager_one(machine):
    def step(logits, tokens, state, active):
        ops.force_logits_(logits, state, machine)
        source = ops.budget_step_(tokens, state, machine, active=active)
        return source, ops.is_done(state), ops.forced_next(state, machine), ops.last_phase(state)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    results = []
    for function in (step, compiled):
        state = ops.new_state(torch.tensor([0, 0, 1, 2, 1]), machine)
        out = []
        for token in [X, X, END, X, START, X, X]:
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


CALLS = {
    "tokens dtype": (
        lambda a: a | {"tokens": a["tokens"].int()},
        TypeError,
        r"tokens: expected Long, got Int",
    ),
    "tokens shape": (
        lambda a: a | {"tokens": a["tokens"][None]},
        ValueError,
        r"tokens: expected 1 dim.*\[1, 5\]",
    ),
    "tokens strided": (
        lambda a: a | {"tokens": torch.zeros(10).long()[::2]},
        ValueError,
        "tokens: expected a contiguous",
    ),
    "state rows": (
        lambda a: a | {"state": a["state"][:3]},
        ValueError,
        r"state: expected size 5 .* got .*\[3, 8\]",
    ),
    "state width": (
        lambda a: a | {"state": a["state"][:, :7].contiguous()},
        ValueError,
        r"state: expected size 8 in dimension 1",
    ),
    "state dtype": (lambda a: a | {"state": a["state"].long()}, TypeError, "state: expected Int, got Long"),
    "state of another machine": (
        lambda a: a | {"state": a["state"] + 7},
        ValueError,
        r"state: expected a budget below 3 in row 0, got 7",
    ),
    "active": (
        lambda a: a | {"active": torch.zeros(2, dtype=torch.int32)},
        ValueError,
        r"active: expected size 1 .* got shape \[2\]",
    ),
    "active dtype": (lambda a: a | {"active": torch.zeros(1)}, TypeError, "active: expected Int, got Float"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=CONTENTS) if n == "state of another machine" else n for n in CALLS]
)
def test_a_wrong_step_argument_names_op_argument_expected_and_got(machine, state, name):
    change, error, message = CALLS[name]
    before = {"tokens": torch.full((5,), X), "state": state, "active": None}
    arguments = change(before)
    with pytest.raises(error, match="budget_step_: " + message):
        ops.budget_step_(arguments["tokens"], arguments["state"], machine, active=arguments["active"])
    assert before["tokens"].tolist() == [X] * 5


@pytest.mark.parametrize(
    ("logits", "error", "message"),
    [
        (torch.zeros(5, 100, dtype=torch.int32), TypeError, "logits: expected bfloat16, .* got Int"),
        (torch.zeros(5, 10), ValueError, r"logits: expected at least 100 columns .* got shape \[5, 10\]"),
        (torch.zeros(4, 100), ValueError, "state: expected size 4"),
        (torch.zeros(500), ValueError, "logits: expected 2 dimensions"),
        (torch.zeros(100, 5).t(), ValueError, "logits: expected a last dimension of stride 1"),
        (torch.zeros(100).expand(5, 100), ValueError, "logits: expected rows that do not overlap"),
    ],
)
def test_wrong_logits_name_expected_and_got(machine, state, logits, error, message):
    with pytest.raises(error, match="force_logits_: " + message):
        ops.force_logits_(logits, state, machine)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param(
            {"lengths": torch.tensor([9])}, ValueError, "lengths: .* got 9 in row 0", marks=CONTENTS
        ),
        pytest.param(
            {"lengths": torch.tensor([-1])}, ValueError, "lengths: .* got -1 in row 0", marks=CONTENTS
        ),
        ({"lengths": torch.tensor([1, 2])}, ValueError, r"lengths: expected size 1"),
        ({"tokens": torch.zeros(3).long()}, ValueError, "tokens: expected 2 dimensions"),
        (
            {"source": torch.zeros(1, 2, dtype=torch.uint8)},
            ValueError,
            "source: expected size 3 in dimension 1",
        ),
        ({"source": torch.zeros(1, 3)}, TypeError, "source: expected Byte, got Float"),
    ],
)
def test_a_wrong_replay_argument_names_expected_and_got(machine, change, error, message):
    arguments = {
        "tokens": torch.zeros(1, 3).long(),
        "lengths": torch.tensor([3]),
        "state": ops.new_state([0], machine),
        "source": None,
    } | change
    with pytest.raises(error, match="replay: " + message):
        ops.replay(
            arguments["tokens"], arguments["lengths"], arguments["state"], machine, source=arguments["source"]
        )


@pytest.mark.parametrize(
    ("rows", "phase", "message"),
    [
        (2, None, "rows: expected the budget index of each row, for 3 budgets, got 2"),
        pytest.param([0, 3], None, "budgets: expected indices below 3, got 3 in row 1", marks=CONTENTS),
        pytest.param([0, -1], None, "budgets: expected indices below 3, got -1 in row 1", marks=CONTENTS),
        pytest.param(
            [0],
            torch.tensor([2], dtype=torch.int32),
            "phases: expected OPENING, THINKING, SOLUTION or DONE, got 2",
            marks=CONTENTS,
        ),
        pytest.param([0], torch.tensor([9], dtype=torch.int32), "phases: .* got 9 in row 0", marks=CONTENTS),
        ([0], torch.tensor([1, 1], dtype=torch.int32), "phases: expected size 1"),
    ],
)
def test_a_wrong_new_state_argument_names_expected_and_got(machine, rows, phase, message):
    with pytest.raises(ValueError, match="new_state: " + message):
        ops.new_state(rows, machine, phase=phase)


def test_a_wrong_number_of_starts_is_refused(machine):
    with pytest.raises(ValueError, match=r"starts_in_thinking: expected a bool or shape \[1\], got \[2\]"):
        ops.new_state([0], machine, starts_in_thinking=torch.tensor([True, False]))


def test_a_negative_number_of_rows_is_refused():
    with pytest.raises(ValueError, match="new_state: rows: expected at least 0, got -2"):
        ops.new_state(-2, machine_for(Budget(2, 2), ONE))
