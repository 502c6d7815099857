"""Rules R21 and R22 by hand: cuts that wait for whole characters, thinking ended from outside."""

import pytest
import torch

from elastic import Budget, FinishReason, Markers, Phase, Source, ops, reference
from tests.budget.helpers import EOS, CharacterTokenizer, compiled, machine_for, run

pytestmark = pytest.mark.usefixtures("kernels")

START, END = 2, 3
ONE = Markers((START,), (END,))
A, B = 4, 5
AAB = Markers((START,), (A, A, B))
X, Y, Z = 6, 7, 8
FOUR, TWO = 12, 13  # end in the first byte of a character of four, of two bytes
ONE_MORE, TWO_MORE = 14, 15  # nothing but so many bytes that go on with a character
WORDS = CharacterTokenizer(set())
S, F = Source.SAMPLED, Source.FORCED
OPENING, THINKING, CLOSING, NOTICE, SOLUTION, DONE = Phase


def whole(thinking, solution=None, total=None, **options) -> Budget:
    return Budget(thinking, solution, total, whole_characters=True, **options)


def row(budget, stream, markers=ONE, start=THINKING, ended_at=None):
    return run(machine_for(budget, markers, WORDS), stream, start, ended_at=ended_at)


# ---- R21 ----


@pytest.mark.parametrize(
    ("character", "waited"),
    [
        ([TWO, ONE_MORE], 1),
        ([FOUR, TWO_MORE, ONE_MORE], 2),
        ([FOUR, ONE_MORE, TWO_MORE], 2),
        ([FOUR, ONE_MORE, ONE_MORE, ONE_MORE], 3),
    ],
)
def test_r21_a_cut_waits_until_the_character_is_whole(character, waited):
    out = row(whole(2, 1), [X, *character, *[X] * 9])
    assert out.tokens == [X, *character, END, X]
    assert out.thinking == 2 + waited
    assert out.phase[: 2 + waited] == [THINKING] * (2 + waited)


def test_r21_without_the_option_the_cut_does_not_wait():
    assert row(Budget(2, 1), [X, TWO, ONE_MORE, X]).tokens == [X, TWO, END, X]


def test_r21_a_whole_character_at_the_cut_waits_for_nothing():
    for last in (X, ONE_MORE):
        assert row(whole(3, 1), [X, TWO, last, X, X, X]).tokens == [X, TWO, last, END, X]
    # A character that other text broke off is over, and bytes that go on with none say nothing.
    assert row(whole(2, 1), [TWO, X, X, X]).tokens == [TWO, X, END, X]
    assert row(whole(1, 1), [TWO_MORE, X, X]).tokens == [TWO_MORE, END, X]


def test_r21_a_cut_waits_for_three_tokens_at_most():
    out = row(whole(1, 1), [FOUR] * 9)
    assert out.tokens == [FOUR] * 4 + [END, FOUR]
    assert out.thinking == 4


def test_r21_both_cuts_of_a_row_wait_for_three_tokens_together():
    budget = whole(1, 1)
    out = row(budget, [FOUR, TWO_MORE, ONE_MORE, X, FOUR, ONE_MORE, ONE_MORE, X])
    assert out.tokens == [FOUR, TWO_MORE, ONE_MORE, END, FOUR, ONE_MORE]
    assert (out.thinking, out.solution, out.finish) == (3, 2, FinishReason.SOLUTION_BUDGET)
    assert len(out.tokens) == budget.max_tokens(ONE) == 1 + 1 + 1 + 3


def test_r21_the_solution_waits_too_and_an_eos_ends_it():
    out = row(whole(9, 2), [END, X, TWO, ONE_MORE, X])
    assert (out.tokens, out.solution) == ([END, X, TWO, ONE_MORE], 3)
    assert out.finish == FinishReason.SOLUTION_BUDGET
    stopped = row(whole(9, 2), [END, X, TWO, EOS, X])
    assert (stopped.tokens, stopped.finish) == ([END, X, TWO, EOS], FinishReason.STOP)


def test_r21_the_total_waits_in_both_phases():
    out = row(whole(None, None, 2), [X, TWO, ONE_MORE, X])
    assert (out.tokens, out.finish) == ([X, TWO, ONE_MORE], FinishReason.TOTAL_BUDGET)
    out = row(whole(None, None, 2), [X, END, FOUR, TWO_MORE, ONE_MORE, X])
    assert (out.tokens, out.finish) == ([X, END, FOUR, TWO_MORE, ONE_MORE], FinishReason.TOTAL_BUDGET)
    capped = row(whole(1, None, 2), [TWO, *[ONE_MORE] * 9])  # thinking has spent the total: one token is left
    assert capped.tokens == [TWO, ONE_MORE, END, ONE_MORE]


def test_r21_grace_ends_in_a_whole_character():
    out = row(whole(1, 1, grace=2, boundary=(Z,)), [X, X, TWO, ONE_MORE, *[X] * 9])
    assert out.tokens == [X, X, TWO, ONE_MORE, END, X]


def test_r21_a_boundary_inside_a_character_stays_due():
    out = row(whole(1, 1, grace=5, boundary=(FOUR,)), [FOUR, TWO_MORE, ONE_MORE, *[X] * 9])
    assert out.tokens == [FOUR, TWO_MORE, ONE_MORE, END, X]


def test_r21_eos_and_natural_ends_act_while_a_cut_waits():
    assert row(whole(1, 1), [TWO, EOS, X, X]).tokens == [TWO, END, X]
    ended = row(whole(1, 1), [TWO, END, X, X])
    assert (ended.tokens, ended.cut, ended.thinking) == ([TWO, END, X], False, 1)
    early = whole(2, 1, min_thinking=2, extension=(Y,), max_extensions=3)
    out = row(early, [A, FOUR, A, A, B, X], AAB)  # a cut is due: the end is not early
    assert (out.tokens, out.thinking) == ([A, FOUR, A, A, B, X], 2)


def test_r21_no_notice_comes_while_a_cut_waits():
    out = row(whole(2, 1, notices=((1, (Y,)),)), [TWO, *[FOUR] * 9])
    assert out.tokens == [TWO, Y, FOUR, FOUR, FOUR, FOUR, END, FOUR]


def test_r21_nothing_is_open_behind_forced_text():
    out = row(whole(9, 1, closing=(END, Y)), [FOUR, EOS, X, X, X])
    assert out.tokens == [FOUR, END, Y, X]


def test_r21_an_opening_end_at_the_end_of_the_solution_budget_waits():
    markers = Markers((START,), (END,), ends=((Z, TWO),))
    out = row(whole(9, 2), [X, Z, TWO, ONE_MORE, X], markers)
    assert (out.tokens, out.solution) == ([X, Z, TWO, ONE_MORE], 3)


def test_r21_the_bound_grows_by_three():
    for budget in (Budget(5, 3), Budget.vanilla(7), Budget(5, None, 9, grace=2, boundary=(Z,))):
        options = vars(budget) | {"whole_characters": True}
        assert Budget(**options).max_tokens(ONE) == budget.max_tokens(ONE) + 3
    with pytest.raises(ValueError, match="at most 12 under"):
        whole(5, 3).check_context(20, 9, ONE)
    assert whole(None, 5).max_tokens(ONE) is None


def test_r21_without_a_tokenizer_nobody_knows_the_bytes():
    with pytest.raises(ValueError, match=r"^whole_characters: expected a tokenizer"):
        machine_for(whole(2, 2), ONE)
    with pytest.raises(ValueError, match=r"^whole_characters: expected True or False, got 1$"):
        Budget(2, 2, whole_characters=1)


def test_r21_budgets_with_and_without_share_a_batch():
    machine, index = compiled([whole(1, 1), Budget(1, 1)], ONE, WORDS)
    outs = [run(machine, [TWO, ONE_MORE, X, X], state=ops.new_state(i[None], machine)) for i in index]
    assert [out.tokens for out in outs] == [[TWO, ONE_MORE, END, X], [TWO, END, X]]


# ---- R22 ----


@pytest.mark.parametrize("budget", [Budget(9, 1), Budget(None, 1), Budget.vanilla(9), Budget.unlimited()])
def test_r22_the_next_step_forces_the_closing_exactly_as_a_spent_budget_does(budget):
    options = vars(budget) | {"closing": (Y, END, Z)}
    out = row(Budget(**options), [X] * 6, ended_at=2)
    assert out.tokens[:6] == [X, X, Y, END, Z, X]
    assert out.source[:6] == [S, S, F, F, F, S]
    assert out.phase[2:5] == [CLOSING, CLOSING, SOLUTION]
    assert (out.thinking, out.cut) == (2, True)


def test_r22_the_state_shows_it_before_the_next_step():
    machine = machine_for(Budget(9, 2, closing=(Y, END)), ONE)
    state = ops.new_state(3, machine, phase=[1, 1, 0])
    ops.end_thinking_(state, [0, 2])
    assert ops.state_phase(state).tolist() == [CLOSING, THINKING, OPENING]
    assert ops.forced_next(state, machine).tolist() == [Y, -1, -1]
    logits = torch.zeros(3, 100)
    ops.force_logits_(logits, state, machine)
    assert logits.isinf().sum(1).tolist() == [99, 0, 0]
    out = ops.sample(logits, torch.arange(3), torch.arange(3), state=state, machine=machine)
    assert out.source.tolist() == [F, S, S]
    assert out.tokens[0].item() == Y


def test_r22_a_marker_in_progress_is_completed():
    out = row(Budget(9, 1, closing=(Y, A, A, B, Z)), [X, A, *[X] * 9], AAB, ended_at=2)
    assert out.tokens == [X, A, A, B, Z, X]
    assert out.thinking == 1


def test_r22_the_minimum_does_not_hold_it_up():
    budget = Budget(9, 1, min_thinking=5, extension=(Y,), max_extensions=2)
    assert row(budget, [X] * 9, ended_at=1).tokens == [X, END, X]
    waiting = whole(9, 1, min_thinking=5, extension=(Y,), max_extensions=2)
    assert row(waiting, [FOUR, END, X], ended_at=1).tokens == [FOUR, END, X]


def test_r22_a_notice_ends_first_and_no_other_begins():
    budget = Budget(9, 1, notices=((1, (Y, Y)), (1, (Z,))))
    for ended_at in (1, 2):  # about to begin, and in its middle
        assert row(budget, [X] * 9, ended_at=ended_at).tokens == [X, Y, Y, END, X]
    assert row(budget, [X] * 9, ended_at=3).tokens == [X, Y, Y, Z, END, X]
    extended = Budget(9, 1, min_thinking=3, extension=(Y, Y), max_extensions=2)
    assert row(extended, [X, EOS, *[X] * 9], ended_at=2).tokens == [X, Y, Y, END, X]


def test_r22_in_opening_the_closing_comes_as_soon_as_thinking_begins():
    machine = machine_for(Budget(9, 1), ONE, CharacterTokenizer({9}))
    for ended_at in (0, 1):
        out = run(machine, [9, START, *[X] * 9], OPENING, ended_at=ended_at)
        assert out.tokens == [9, START, END, X]
    solved = row(Budget(9, 2), [X] * 9, start=OPENING, ended_at=0)
    assert (solved.tokens, solved.cut) == ([X, X], False)


@pytest.mark.parametrize("tokens", [[X, X], [X, X, X], [X, END], [X, END, X], [X, END, EOS]])
def test_r22_a_row_that_no_longer_thinks_stays_as_it_is(tokens):
    machine = machine_for(Budget(2, 3, closing=(Y, END, Z)), ONE)
    state = run(machine, tokens).state
    before = state.clone()
    ops.end_thinking_(state, torch.tensor([True]))
    assert torch.equal(state, before)


def test_r22_waits_for_a_whole_character_and_for_three_tokens_at_most():
    assert row(whole(9, 1), [X, TWO, ONE_MORE, *[X] * 9], ended_at=2).tokens == [X, TWO, ONE_MORE, END, X]
    assert row(whole(9, 1), [FOUR] * 9, ended_at=1).tokens == [FOUR] * 4 + [END, FOUR]
    waiting = row(whole(2, 1), [X, FOUR, *[FOUR] * 9], ended_at=3)  # a cut waits already
    assert waiting.tokens == [X, *[FOUR] * 4, END, FOUR]
    machine = machine_for(whole(9, 1), ONE, WORDS)
    state = run(machine, [TWO], ended_at=1).state
    assert ops.state_phase(state).tolist() == [THINKING], "it samples on"


def test_r22_the_vanilla_hard_cut_comes_first():
    out = row(whole(None, None, 2), [X, *[FOUR] * 9], ended_at=3)
    assert (out.tokens, out.finish) == ([X, *[FOUR] * 4], FinishReason.TOTAL_BUDGET)


def test_r22_rows_are_indices_or_a_mask_in_any_order_and_any_often():
    machine = machine_for(Budget(9, 1), ONE)
    for rows in ([2, 0], (0, 2, 2), torch.tensor([2, 0]), torch.tensor([0, 2]).int(), [True, False, True]):
        state = ops.new_state(3, machine)
        ops.end_thinking_(state, rows)
        assert ops.state_phase(state).tolist() == [CLOSING, THINKING, CLOSING]
        again = state.clone()
        ops.end_thinking_(state, rows)
        assert torch.equal(state, again)
    ops.end_thinking_(state, [])
    ops.end_thinking_(state, torch.zeros(3, dtype=torch.bool))
    assert torch.equal(state, again)
    ops.end_thinking_(ops.new_state(0, machine), torch.zeros(0, dtype=torch.bool))


def test_r22_many_rows_are_ended_in_one_call(kernels):
    machine = machine_for(whole(9, 1), ONE, WORDS)
    state = ops.new_state(300, machine)
    ops.budget_step_(torch.arange(300) % 16, state, machine)
    twin, mask = state.clone(), torch.arange(300) % 3 == 0
    ops.end_thinking_(state, mask)
    reference.end_thinking_(twin, mask)
    assert torch.equal(state, twin)
    ops.end_thinking_(state, torch.arange(299, -1, -1))
    reference.end_thinking_(twin, torch.arange(300))
    assert torch.equal(state, twin)


def test_r22_an_index_outside_is_refused_on_the_host_and_left_out_on_a_device(kernels):
    machine = machine_for(Budget(9, 1), ONE)
    for index in (3, -1, 2**40):
        state = ops.new_state(3, machine)
        if kernels == "cpu":
            message = f"end_thinking_: rows: expected indices from 0 to 2, got {index} at position 1"
            with pytest.raises(ValueError, match=message):
                ops.end_thinking_(state, [0, index])
            assert torch.equal(state, ops.new_state(3, machine))
        else:
            ops.end_thinking_(state, [0, index])
            assert ops.state_phase(state).tolist() == [CLOSING, THINKING, THINKING]


@pytest.mark.parametrize("ended_at", range(8))
def test_r22_a_history_is_read_back_with_the_position(ended_at):
    machine = machine_for(whole(9, 3, notices=((2, (Y, Y)),)), ONE, WORDS)
    out = run(machine, [X, X, X, X, FOUR, TWO_MORE, *[X] * 4], ended_at=ended_at)
    tokens, lengths = torch.tensor([out.tokens]), torch.tensor([len(out.tokens)])
    call = {"tokens": tokens, "lengths": lengths, "state": ops.new_state(1, machine), "machine": machine}
    for source in (None, torch.tensor([out.source], dtype=torch.uint8)):
        phase, read, state, mismatch = ops.replay(**call, source=source, ended=torch.tensor([ended_at]))
        assert (phase.tolist(), read.tolist(), mismatch.tolist()) == ([out.phase], [out.source], [-1])
        assert torch.equal(state, out.state)


def test_r22_behind_the_last_token_is_a_position_too():
    machine = machine_for(Budget(9, 3), ONE)
    first = ops.new_state(2, machine)
    tokens, ended = torch.full((2, 3), X), torch.tensor([3, -1])
    state = ops.replay(tokens, torch.tensor([3, 3]), first, machine, ended=ended)[2]
    assert ops.state_phase(state).tolist() == [CLOSING, THINKING]


@pytest.mark.cpu_kernels  # what lies on a device is not read
@pytest.mark.parametrize("position", [3, -2])
def test_r22_a_position_outside_the_history_is_refused(position):
    machine = machine_for(Budget(9, 3), ONE)
    tokens, ended = torch.full((1, 4), X), torch.tensor([position])
    message = f"^replay: ended: expected -1 to 2, the tokens of the row, got {position} in row 0$"
    with pytest.raises(ValueError, match=message):
        ops.replay(tokens, torch.tensor([2]), ops.new_state(1, machine), machine, ended=ended)
