"""States that no row under the machine can be in: refused on the host, DONE on a device, never followed."""

import re
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elastic import Budget, Markers, Phase, Source, ops, reference
from elastic.budget.machine import compile_budgets
from elastic.budget.table import Column
from elastic.ops.state import (
    BUDGET,
    EXTENSIONS,
    FORCED_AT,
    MATCH,
    RECLOSE,
    SOLUTION_USED,
    STATUS,
    THINKING_USED,
)
from elastic.reference.budget_state import Row, misfit
from tests.cuda_on_cpu.redirect import poisoned_outputs, redirected

X, PAD, VOCAB = 6, 9, 24
# Markers of three tokens; an extension and two notices stand between F and the start markers.
MACHINE = compile_budgets(
    [
        Budget(
            5,
            4,
            closing=(10, 3, 4, 5, 11),
            min_thinking=2,
            extension=(12, 13),
            max_extensions=2,
            notices=((1, (14,)), (2, (15, 16))),
            grace=2,
            boundary=(17,),
        ),
        Budget(None, 2),
        Budget(3, None, on_reclose="forbid"),
    ],
    Markers((2, 20, 21), (3, 4, 5), ends=((18, 19),)),
    None,
    [0],
    PAD,
)[0]
HUGE = 10**9
TABLE = MACHINE.tables[0]
TEXTS_AT = (Column.CLOSING_AT, Column.TAIL_AT, Column.EXTENSION_AT, Column.STARTS_AT)
CLOSING, TAIL, EXTENSION, STARTS = (int(TABLE[c]) for c in TEXTS_AT)


def states() -> torch.Tensor:
    """Four sound rows."""
    return ops.new_state([0, 1, 2, 1], MACHINE)


def status(phase: int, last: int = 1, finish: int = 0, ended: int = 0, whitespace: int = 0) -> int:
    return phase | last << 4 | finish << 8 | ended << 13 | whitespace << 16


# column of the state -> value, field, least, most; put into row 0, under the first budget and thinking
FOREIGN = [
    ({BUDGET: 3}, "the budget", 0, 2),
    ({BUDGET: -1}, "the budget", 0, 2),
    ({BUDGET: HUGE}, "the budget", 0, 2),
    ({STATUS: status(6)}, "the phase", 0, 5),
    ({STATUS: status(1, last=15)}, "the last phase", 0, 5),
    ({STATUS: status(1, finish=4)}, "the finish reason", 0, 3),
    ({STATUS: status(2, ended=1), FORCED_AT: CLOSING}, "the end from outside", 0, 0),
    ({STATUS: status(4, ended=1)}, "the end from outside", 0, 0),
    ({STATUS: status(5, ended=1)}, "the end from outside", 0, 0),
    ({STATUS: status(1) | 2 << 14}, "the bytes of a character in progress", 0, 0),
    ({STATUS: status(0, whitespace=33)}, "the white space tokens", 0, 32),
    ({STATUS: status(1) | 1 << 22}, "the tokens waited", 0, 0),
    ({STATUS: status(1) | 1 << 24}, "the tokens waited", 0, 0),
    ({STATUS: -(2**31) | status(1)}, "the tokens waited", 0, 0),
    ({MATCH: 4, THINKING_USED: 3}, "the marker match", 0, 15, "with no complete marker"),
    ({MATCH: 16}, "the marker match", 0, 15, "with no complete marker"),
    ({MATCH: -1}, "the marker match", 0, 15, "with no complete marker"),
    ({MATCH: HUGE}, "the marker match", 0, 15, "with no complete marker"),
    ({STATUS: status(0), MATCH: 4}, "the marker match", 0, 3, "with no complete marker"),
    ({STATUS: status(2), MATCH: 1, FORCED_AT: CLOSING}, "the marker match", 0, 0),
    ({STATUS: status(4), MATCH: 8}, "the marker match", 0, 7),
    ({STATUS: status(3), FORCED_AT: EXTENSION, MATCH: 1}, "the marker match", 0, 0),
    ({THINKING_USED: -1}, "the thinking tokens", 0, 6),
    ({THINKING_USED: 7}, "the thinking tokens", 0, 6),
    ({STATUS: status(5), THINKING_USED: 8}, "the thinking tokens", 0, 7),
    ({SOLUTION_USED: 1}, "the solution tokens", 0, 0),
    ({STATUS: status(0), MATCH: 3, SOLUTION_USED: 24}, "the solution tokens", 0, 23),
    ({STATUS: status(4), SOLUTION_USED: 4}, "the solution tokens", 0, 3),
    ({STATUS: status(5), SOLUTION_USED: 29}, "the solution tokens", 0, 28),
    ({STATUS: status(4), SOLUTION_USED: -HUGE}, "the solution tokens", 0, 3),
    ({EXTENSIONS: 3}, "the extensions", 0, 2),
    ({EXTENSIONS: 3 << 16}, "the notices", 0, 2),
    ({EXTENSIONS: -(1 << 16)}, "the notices", 0, 2),
    ({RECLOSE: 1}, "the match behind a cut", 0, 0),
    ({STATUS: status(4), RECLOSE: 32}, "the match behind a cut", 0, 31),
    ({STATUS: status(4), RECLOSE: -1}, "the match behind a cut", 0, 31),
    ({FORCED_AT: CLOSING}, "the column of the forced token", 0, 0),
    ({STATUS: status(5), FORCED_AT: CLOSING}, "the column of the forced token", 0, 0),
]
TEXTS = [
    # F up to its marker, the marker alone, and their end marks; F behind it and its end mark; the extension,
    # its end mark, a notice, its end mark and the last one
    (Phase.CLOSING, 0, CLOSING, TAIL - 2),
    (Phase.CLOSING, CLOSING - 1, CLOSING, TAIL - 2),
    (Phase.CLOSING, CLOSING + 4, CLOSING, TAIL - 2),
    (Phase.CLOSING, TAIL - 1, CLOSING, TAIL - 2),
    (Phase.CLOSING, TAIL, CLOSING, TAIL - 2),
    (Phase.CLOSING, HUGE, CLOSING, TAIL - 2),
    (Phase.CLOSING, -HUGE, CLOSING, TAIL - 2),
    (Phase.SOLUTION, CLOSING, TAIL, EXTENSION - 2),
    (Phase.SOLUTION, TAIL + 1, TAIL, EXTENSION - 2),
    (Phase.SOLUTION, EXTENSION, TAIL, EXTENSION - 2),
    (Phase.NOTICE, 0, EXTENSION, STARTS - 2),
    (Phase.NOTICE, CLOSING, EXTENSION, STARTS - 2),
    (Phase.NOTICE, EXTENSION + 2, EXTENSION, STARTS - 2),
    (Phase.NOTICE, EXTENSION + 4, EXTENSION, STARTS - 2),
    (Phase.NOTICE, STARTS - 1, EXTENSION, STARTS - 2),
    (Phase.NOTICE, STARTS, EXTENSION, STARTS - 2),
]
CASES = [
    (change, f"{name} of row 2 from {least} to {most}{''.join(f', {hole}' for hole in holes)}")
    for change, name, least, most, *holes in FOREIGN
] + [
    (
        {STATUS: status(phase), FORCED_AT: column},
        f"the column of the forced token of row 2 from {least} to {most}, at no end of a text",
    )
    for phase, column, least, most in TEXTS
]


def spoiled(change: dict[int, int]) -> torch.Tensor:
    """Row 2 is foreign, and under the first budget unless `change` says another."""
    state = states()[[1, 3, 0, 2]]
    for column, value in change.items():
        state[2, column] = value
    return state


def calls(state: torch.Tensor) -> dict:
    """Every op that takes a state: its call and the tensors that it may write."""
    tokens, logits, rows = torch.full((4,), X), torch.zeros(4, VOCAB), torch.arange(4)
    active, broken = torch.full((2, 1), 7, dtype=torch.int32)
    history, under = torch.full((4, 3), X), {"state": state, "machine": MACHINE}
    return {
        "budget_step_": (lambda: ops.budget_step_(tokens, state, MACHINE, active=active), [tokens, active]),
        "force_logits_": (lambda: ops.force_logits_(logits, state, MACHINE), [logits]),
        "replay": (lambda: ops.replay(history, torch.full((4,), 3), state, MACHINE), []),
        "forced_next": (lambda: ops.forced_next(state, MACHINE), []),
        "sample": (
            lambda: ops.sample(logits, rows, rows, **under, active=active, broken=broken),
            [active, broken],
        ),
    }


OPS = list(calls(states()))


@pytest.fixture
def device(shim: ModuleType) -> Iterator[None]:
    """Ops run on the CUDA kernels."""
    shim.set_seed(0)
    with poisoned_outputs(), redirected():
        yield


@pytest.mark.parametrize(("change", "message"), CASES)
def test_a_foreign_state_is_refused_on_the_host_by_row_and_field_before_any_work(change, message):
    for op in OPS:
        state = spoiled(change)
        before = state.clone()
        call, written = calls(state)[op]
        untouched = [tensor.clone() for tensor in written]
        with pytest.raises(ValueError, match="^" + re.escape(f"{op}: state: expected {message}, got ")):
            call()
        assert torch.equal(state, before)
        assert all(torch.equal(a, b) for a, b in zip(written, untouched, strict=True))


@pytest.mark.parametrize(("change", "message"), CASES)
def test_a_foreign_state_on_a_device_is_done_and_emits_padding(device, change, message):
    clean = calls(states()[[1, 3, 0, 2]])
    others = [0, 1, 3]
    for op in OPS:
        state = spoiled(change)
        before = state.clone()
        call, written = calls(state)[op]
        clean_call, clean_written = clean[op]
        out, expected = call(), clean_call()
        if op == "budget_step_":
            tokens, active = written
            assert tokens[2].item() == PAD
            assert out.tolist() == [*expected.tolist()[:2], Source.PAD, expected.tolist()[3]]
            assert active.item() == clean_written[1].item() - 1
        elif op == "sample":
            assert out.tokens[2].item() == PAD
            assert out.source[2].item() == Source.PAD
            assert out.phase[2].item() == Phase.DONE
            assert out.logprobs[2].item() == out.full_logprobs[2].item() == 0
            assert torch.equal(out.tokens[others], expected.tokens[others])
            assert written[1].item() == 7, "it is not broken"
        elif op == "force_logits_":
            assert written[0][2].isneginf().sum() == VOCAB - 1
            assert written[0][2, PAD] == 0
            assert torch.equal(written[0][others], clean_written[0][others])
        elif op == "forced_next":
            assert out.tolist()[2] == PAD
        else:
            assert out[3].tolist()[2] == 0, "no row emits a token after its end"
            assert ops.is_done(out[2]).tolist()[2]
        if op in ("budget_step_", "sample"):
            assert ops.is_done(state).tolist() == [False, False, True, False]
        else:
            assert torch.equal(state, before)


def test_padding_of_an_unknown_budget_is_that_of_the_first(device):
    machine = compile_budgets([Budget(2, 2)], Markers((2,), (3,)), None, [0], 7)[0]
    state = ops.new_state(2, machine)
    state[0, BUDGET] = 5
    assert ops.forced_next(state, machine).tolist() == [7, -1]


def test_a_state_inside_a_longer_forced_text_is_refused_or_done(kernels):
    """The fault as it was found: a column of another machine's F, read in this one's table."""
    markers = Markers((2,), (3,))
    longer = compile_budgets([Budget(0, 2, closing=(10, 11, 12, 13, 3))], markers, None, [0], PAD)[0]
    machine = compile_budgets([Budget(0, 2)], markers, None, [0], PAD)[0]
    state = ops.new_state(1, longer)
    for _ in range(4):
        ops.budget_step_(torch.tensor([X]), state, longer)
    assert ops.forced_next(state, longer).tolist() == [3]
    if kernels == "cpu":
        with pytest.raises(ValueError, match="the column of the forced token of row 0 from 25 to 27, "):
            ops.forced_next(state, machine)
    else:
        assert ops.forced_next(state, machine).tolist() == [PAD]


WORDS = [*range(9), 15, 31, 32, *range(CLOSING - 1, STARTS + 2), -1, HUGE, 2**31 - 1, -(2**31)]
CHANGES = st.one_of(
    st.tuples(st.sampled_from(range(8)), st.sampled_from(WORDS)),
    st.tuples(
        st.just(STATUS),
        st.builds(status, st.integers(0, 6), st.integers(0, 5), st.integers(0, 4), st.integers(0, 1)),
    ),
    st.tuples(st.just(STATUS), st.integers(0, 2**25 - 1)),
)
TOKENS = st.lists(st.sampled_from([X, 2, 20, 21, 3, 4, 5, 18, 19, 0]), max_size=12)


@given(st.integers(0, 2), st.sampled_from([0, 1, 4]), TOKENS, st.lists(CHANGES, max_size=3), TOKENS)
def test_host_and_reference_agree_and_what_fits_goes_on_to_fit(budget, phase, past, changes, future):
    state = ops.new_state([budget], MACHINE, phase=torch.tensor([phase], dtype=torch.int32))
    for token in past:
        ops.budget_step_(torch.tensor([token]), state, MACHINE)
    for column, value in changes:
        state[0, column] = value
    name = misfit(Row.load(state[0].tolist()), MACHINE.tables.tolist())
    if name is not None:
        with pytest.raises(ValueError, match="forced_next: state: expected"):
            ops.forced_next(state, MACHINE)
        with pytest.raises(ValueError, match=f"row 0: {name} does not fit"):
            reference.budget_step_(torch.tensor([X]), state, MACHINE)
        return
    for token in (*future, X):
        ops.budget_step_(torch.tensor([token]), state, MACHINE)
    ops.forced_next(state, MACHINE)


def test_texts_follow_each_other_in_the_tables_as_the_check_assumes():
    for table in MACHINE.tables.tolist():
        closing, tail, extension, starts = (table[c] for c in TEXTS_AT)
        assert table[tail - 1] == table[extension - 1] == table[starts - 1] == -1
        assert -1 not in table[tail : extension - 1]
        assert closing < tail < extension < starts
        ends = [table[table[Column.ENDS_AT] + 6 * i + 3] for i in range(table[Column.END_COUNT])]
        assert [closing < at < tail for at in ends] == [True, False]
        notices = table[Column.NOTICES_AT]
        for i in range(table[Column.NOTICE_COUNT]):
            assert extension < table[notices + 2 * i + 1] < starts
