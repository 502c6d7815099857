"""Wrong calls of the budget and sampling ops, and the words they are refused in."""

import re

import numpy as np
import pytest
import torch

from elastic import Budget, Markers, ops
from elastic.budget.machine import compile_budgets

pytestmark = pytest.mark.usefixtures("kernels")

X, PAD = 6, 9
COUNT = torch.zeros(1, dtype=torch.int32)
ELSEWHERE = torch.zeros(2, device="meta")
# Two rows of 10 logits, under two budgets that force ids up to 9.
MACHINE = compile_budgets([Budget(2, 2), Budget(0, 1)], Markers((2,), (3,)), None, [0], PAD)[0]
ONE = compile_budgets([Budget(2, 2)], Markers((2,), (3,)), None, [0], PAD)[0]


def arguments(op: str) -> dict:
    """A call that works."""
    rows = torch.tensor([0, 1])
    logits, state = torch.zeros(2, 10), ops.new_state(rows, MACHINE)
    return {
        "new_state": {"rows": rows, "machine": MACHINE},
        "end_thinking_": {"state": state, "rows": rows},
        "budget_step_": {"tokens": torch.tensor([X, X]), "state": state, "machine": MACHINE},
        "force_logits_": {"logits": logits, "state": state, "machine": MACHINE},
        "replay": {
            "tokens": torch.tensor([[X, X, X], [3, X, X]]),
            "lengths": torch.tensor([1, 2]),
            "state": state,
            "machine": MACHINE,
        },
        "forced_next": {"state": state, "machine": MACHINE},
        "sample": {"logits": logits, "seeds": rows, "positions": rows},
    }[op]


NO_TENSOR = ((None, "NoneType"), ([0, 1], "list"), (np.array([0, 1]), "ndarray"), (7, "int"), ("x", "str"))
NO_MACHINE = ((None, "None"), ("x", "'x'"), ([MACHINE], "list"))
NO_STATE = [
    (torch.zeros(2, 8, dtype=torch.int64), TypeError, "[2, 8] int32 on cpu", "[2, 8] int64 on cpu"),
    (torch.zeros(3, 8, dtype=torch.int32), ValueError, "[2, 8] int32 on cpu", "[3, 8] int32 on cpu"),
    (torch.zeros(2, 7, dtype=torch.int32), ValueError, "[2, 8] int32 on cpu", "[2, 7] int32 on cpu"),
    (ELSEWHERE, ValueError, "a tensor on cpu", "one on meta"),
]
NO_COUNT = [
    (torch.zeros(2, dtype=torch.int32), ValueError, "[1] int32 on cpu", "[2] int32 on cpu"),
    (torch.zeros(1, dtype=torch.int64), TypeError, "[1] int32 on cpu", "[1] int64 on cpu"),
    (torch.zeros(1), TypeError, "[1] int32 on cpu", "[1] float32 on cpu"),
    (ELSEWHERE, ValueError, "a tensor on cpu", "one on meta"),
]
NO_PARAMETER = [
    (None, TypeError, "a number", "None"),
    (True, TypeError, "a number", "True"),
    ("warm", TypeError, "a number", "'warm'"),
    ([0.5, 0.5], TypeError, "a number", "list"),
    (np.array([0.5, 0.5]), TypeError, "a number", "ndarray"),
    (torch.tensor([True, True]), TypeError, "numbers", "bool"),
    (torch.tensor([0.5]), ValueError, "[2] float64 on cpu", "[1] float64 on cpu"),
    (ELSEWHERE, ValueError, "a tensor on cpu", "one on meta"),
]
NO_INTEGERS = [
    (torch.tensor([0.0, 1.0]), TypeError, "int64", "float32"),
    (torch.tensor([True, False]), TypeError, "int64", "bool"),
    (torch.tensor([0, 1, 2]), ValueError, "[2] int64 on cpu", "[3] int64 on cpu"),
    (torch.tensor(0), ValueError, "[2] int64 on cpu", "[] int64 on cpu"),
    (ELSEWHERE.long(), ValueError, "a tensor on cpu", "one on meta"),
]
START = "OPENING, THINKING, SOLUTION or DONE"
LIST = "integers, as a tensor or a list"

# op, argument -> value, error, expected, got
WRONG = {
    ("new_state", "rows"): [
        (2.0, TypeError, LIST, "2.0"),
        (True, TypeError, LIST, "True"),
        (None, TypeError, LIST, "None"),
        ("01", TypeError, LIST, "'01'"),
        (np.array([0, 1]), TypeError, LIST, "ndarray"),
        ([0, True], TypeError, "an integer", "True"),
        ([0.0], TypeError, "an integer", "0.0"),
        ([2**70], ValueError, "an integer of 64 bits", str(2**70)),
        (torch.tensor([True]), TypeError, "int64", "bool"),
        (torch.tensor([1.0]), TypeError, "int64", "float32"),
        (torch.tensor([[0]]), ValueError, "one dimension", "[1, 1] int64 on cpu"),
        (2, ValueError, "the budget index of each row, for 2 budgets", "2"),
    ],
    ("new_state", "machine"): [(x, TypeError, "a Machine", got) for x, got in NO_MACHINE],
    ("new_state", "phase"): [
        (torch.tensor([1.0, 1.0]), TypeError, "int64", "float32"),
        (1, TypeError, LIST, "1"),
        (["THINKING", "DONE"], TypeError, "an integer", "'THINKING'"),
        ([1], ValueError, "[2] int64 on cpu", "[1] int64 on cpu"),
    ],
    ("new_state", "starts_in_thinking"): [
        (1, TypeError, "a bool or [B] bool", "1"),
        ("yes", TypeError, "a bool or [B] bool", "'yes'"),
        ([1, 0], TypeError, "a bool or [B] bool", "list"),
        (torch.tensor([1, 0]), TypeError, "a bool or [B] bool", "a tensor of int64"),
        ([True], ValueError, "a bool or shape [2]", "[1]"),
    ],
    ("new_state", "thinking_used"): [
        (1.0, TypeError, LIST, "1.0"),
        (True, TypeError, "an integer", "True"),
        ([1, None], TypeError, "an integer", "None"),
        (2**70, ValueError, "an integer of 64 bits", str(2**70)),
        (torch.tensor([1.0, 1.0]), TypeError, "int64", "float32"),
        ([1], ValueError, "[2] int64 on cpu", "[1] int64 on cpu"),
    ],
    ("end_thinking_", "state"): [
        *((x, TypeError, "a tensor", got) for x, got in NO_TENSOR),
        (torch.zeros(2, 8).long(), TypeError, "[2, 8] int32 on cpu", "[2, 8] int64 on cpu"),
        (torch.zeros(8, dtype=torch.int32), ValueError, "[B, 8]", "[8] int32 on cpu"),
        (torch.zeros(2, 7, dtype=torch.int32), ValueError, "[2, 8] int32 on cpu", "[2, 7] int32 on cpu"),
        (torch.zeros(2, 16, dtype=torch.int32)[:, ::2], ValueError, "a contiguous tensor", "strides [16, 2]"),
    ],
    ("end_thinking_", "rows"): [
        (1, TypeError, LIST, "1"),
        ("01", TypeError, LIST, "'01'"),
        ([0, True], TypeError, "an integer", "True"),
        ([0.0], TypeError, "an integer", "0.0"),
        (torch.tensor([1.0]), TypeError, "int64", "float32"),
        (torch.tensor(1), ValueError, "one dimension", "[] int64 on cpu"),
        ([True, False, True], ValueError, "[2] bool on cpu", "[3] bool on cpu"),
    ],
    ("budget_step_", "tokens"): [
        *((x, TypeError, "a tensor", got) for x, got in NO_TENSOR),
        (torch.zeros(2, dtype=torch.int32), TypeError, "[2] int64 on cpu", "[2] int32 on cpu"),
        (torch.zeros(1, 2).long(), ValueError, "one dimension", "[1, 2] int64 on cpu"),
        (torch.zeros(4).long()[::2], ValueError, "a contiguous tensor", "strides [2]"),
    ],
    ("budget_step_", "state"): [
        *((x, TypeError, "a tensor", got) for x, got in NO_TENSOR),
        *NO_STATE,
        (torch.zeros(2, 16, dtype=torch.int32)[:, ::2], ValueError, "a contiguous tensor", "strides [16, 2]"),
    ],
    ("budget_step_", "machine"): [
        *((x, TypeError, "a Machine", got) for x, got in NO_MACHINE),
        (MACHINE.to("meta"), ValueError, "one on cpu", "one on meta"),
    ],
    ("budget_step_", "active"): [(1, TypeError, "a tensor", "int"), *NO_COUNT],
    ("force_logits_", "logits"): [
        *((x, TypeError, "a tensor", got) for x, got in NO_TENSOR),
        (
            torch.zeros(2, 10, dtype=torch.int32),
            TypeError,
            "float32, bfloat16, float16 or float64",
            "int32",
        ),
        (torch.zeros(10), ValueError, "[B, V]", "[10] float32 on cpu"),
        (torch.zeros(10, 2).t(), ValueError, "a last dimension of stride 1", "strides [1, 2]"),
        (torch.zeros(10).expand(2, 10), ValueError, "rows that do not overlap", "strides [0, 1]"),
        (
            torch.zeros(2, 9),
            ValueError,
            "at least 10 columns for the ids of markers and forced texts",
            "shape [2, 9]",
        ),
        (
            torch.zeros(2, 10, requires_grad=True),
            ValueError,
            "a tensor outside autograd, which cannot follow writes in place",
            "one that requires grad; call it under torch.no_grad(), or with logits.detach()",
        ),
    ],
    ("force_logits_", "state"): [(None, TypeError, "a tensor", "NoneType"), *NO_STATE],
    ("force_logits_", "machine"): [(x, TypeError, "a Machine", got) for x, got in NO_MACHINE],
    ("forced_next", "state"): [
        (None, TypeError, "a tensor", "NoneType"),
        NO_STATE[0],
        (torch.zeros(8, dtype=torch.int32), ValueError, "[B, 8]", "[8] int32 on cpu"),
        NO_STATE[2],
    ],
    ("forced_next", "machine"): [(x, TypeError, "a Machine", got) for x, got in NO_MACHINE],
    ("replay", "tokens"): [
        *((x, TypeError, "a tensor", got) for x, got in NO_TENSOR),
        (torch.zeros(2, 3), TypeError, "int64", "float32"),
        (torch.zeros(3).long(), ValueError, "[R, T]", "[3] int64 on cpu"),
    ],
    ("replay", "lengths"): [(7, TypeError, "a tensor", "int"), *NO_INTEGERS],
    ("replay", "state"): [(None, TypeError, "a tensor", "NoneType"), *NO_STATE],
    ("replay", "machine"): [(x, TypeError, "a Machine", got) for x, got in NO_MACHINE],
    ("replay", "source"): [
        ([[0]], TypeError, "a tensor", "list"),
        (torch.zeros(2, 3).long(), TypeError, "[2, 3] uint8 on cpu", "[2, 3] int64 on cpu"),
        (torch.zeros(2, 2).byte(), ValueError, "[2, 3] uint8 on cpu", "[2, 2] uint8 on cpu"),
    ],
    ("replay", "ended"): [([0, 1], TypeError, "a tensor", "list"), *NO_INTEGERS],
    ("sample", "logits"): [
        *((x, TypeError, "a tensor", got) for x, got in NO_TENSOR),
        (torch.zeros(2, 10).double(), TypeError, "float32, bfloat16 or float16", "float64"),
        (torch.zeros(10), ValueError, "shape [B, V]", "[10]"),
        (torch.zeros(2, 0), ValueError, "1 to 4194304 columns", "[2, 0] float32 on cpu"),
        (torch.zeros(10, 2).t(), ValueError, "a last dimension of stride 1", "strides [1, 2]"),
    ],
    ("sample", "seeds"): [*((x, TypeError, "a tensor", got) for x, got in NO_TENSOR), *NO_INTEGERS],
    ("sample", "positions"): [([0, 1], TypeError, "a tensor", "list"), *NO_INTEGERS],
    ("sample", "temperature"): NO_PARAMETER,
    ("sample", "top_p"): NO_PARAMETER,
    ("sample", "min_p"): NO_PARAMETER,
    ("sample", "top_k"): [
        (None, TypeError, "an integer", "None"),
        (True, TypeError, "an integer", "True"),
        (6.0, TypeError, "an integer", "6.0"),
        ([6, 6], TypeError, "an integer", "list"),
        (2**63, ValueError, "an integer of 64 bits", str(2**63)),
        (torch.tensor([6.0, 6.0]), TypeError, "integers", "float32"),
        (torch.tensor([True, True]), TypeError, "integers", "bool"),
    ],
    ("sample", "active"): [(COUNT, ValueError, "a state to count the rows of", "none")],
    ("sample", "broken"): [(1, TypeError, "a tensor", "int"), *NO_COUNT],
    ("sample", "state"): [
        (torch.zeros(2, 8, dtype=torch.int32), ValueError, "state and machine together", "one of them")
    ],
}


def named(case) -> str:
    return "-".join(case[:2])


@pytest.mark.parametrize("case", WRONG, ids=named)
def test_a_wrong_argument_is_named_with_what_was_expected_and_what_came(case):
    op, argument = case
    for value, error, expected, got in WRONG[case]:
        call = arguments(op)
        before = {name: part.clone() for name, part in call.items() if isinstance(part, torch.Tensor)}
        with pytest.raises((TypeError, ValueError, RuntimeError)) as raised:
            getattr(ops, op)(**call | {argument: value})
        assert str(raised.value) == f"{op}: {argument}: expected {expected}, got {got}"
        assert raised.type is error, raised.value
        assert all(torch.equal(call[name], part) for name, part in before.items())


@pytest.mark.parametrize(
    ("argument", "value", "error", "expected", "got"),
    [
        *(("state", *wrong) for wrong in NO_STATE),
        *(("active", *wrong) for wrong in NO_COUNT),
        *(("machine", x, TypeError, "a Machine", got) for x, got in NO_MACHINE[1:]),
        ("machine", MACHINE.to("meta"), ValueError, "one on cpu", "one on meta"),
        ("machine", None, ValueError, "state and machine together", "one of them"),
        (
            "logits",
            torch.zeros(2, 9),
            ValueError,
            "at least 10 columns for the ids of markers and forced texts",
            "shape [2, 9]",
        ),
    ],
)
def test_a_wrong_argument_of_sampling_under_a_budget_is_named(argument, value, error, expected, got):
    state = ops.new_state([0, 1], MACHINE)
    call = {**arguments("sample"), "state": state, "machine": MACHINE, argument: value}
    with pytest.raises(error) as raised:
        ops.sample(**call)
    name = "state" if value is None else argument
    assert str(raised.value) == f"sample: {name}: expected {expected}, got {got}"
    assert torch.equal(state, ops.new_state([0, 1], MACHINE))


READERS = [
    "state_phase",
    "last_phase",
    "finish_reason",
    "thinking_cut",
    "is_done",
    "thinking_used",
    "solution_used",
]


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_takes_states_only(reader):
    for value, error, expected, got in [
        (None, TypeError, "a tensor", "NoneType"),
        (torch.zeros(2, 8), TypeError, "int32", "float32"),
        (torch.zeros(8, dtype=torch.int32), ValueError, "shape [B, 8]", "[8]"),
        (torch.zeros(2, 9, dtype=torch.int32), ValueError, "shape [B, 8]", "[2, 9]"),
    ]:
        with pytest.raises(error, match=re.escape(f"{reader}: state: expected {expected}, got {got}")):
            getattr(ops, reader)(value)


@pytest.mark.cpu_kernels  # contents are not read back from a device
@pytest.mark.parametrize(
    ("op", "change", "message"),
    [
        ("new_state", {"rows": [0, 2]}, "rows: expected indices below 2, got 2 in row 1"),
        ("new_state", {"rows": [0, -1]}, "rows: expected indices below 2, got -1 in row 1"),
        ("new_state", {"phase": [1, 2]}, f"phase: expected {START}, got 2 in row 1"),
        ("new_state", {"phase": [9, 1]}, f"phase: expected {START}, got 9 in row 0"),
        ("new_state", {"phase": [2**32 + 1, 1]}, f"phase: expected {START}, got {2**32 + 1} in row 0"),
        ("replay", {"lengths": torch.tensor([1, 4])}, "lengths: expected 0 to 3, got 4 in row 1"),
        ("replay", {"lengths": torch.tensor([-1, 1])}, "lengths: expected 0 to 3, got -1 in row 0"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_row(op, change, message):
    with pytest.raises(ValueError, match=re.escape(f"{op}: {message}")):
        getattr(ops, op)(**arguments(op) | change)


def test_rows_of_one_budget_are_a_number_of_at_least_zero():
    assert ops.new_state(0, ONE).shape == (0, 8)
    with pytest.raises(ValueError, match="new_state: rows: expected at least 0, got -2"):
        ops.new_state(-2, ONE)


def test_phase_and_starts_in_thinking_exclude_each_other():
    message = "new_state: starts_in_thinking: expected None beside phase, got True"
    with pytest.raises(ValueError, match=message):
        ops.new_state(1, ONE, phase=[1], starts_in_thinking=True)
