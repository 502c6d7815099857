"""Rules R1 to R9 of the budget machine, by hand: tokens in, tokens, phases and counts out."""

import pytest
import torch

from elastic import Budget, FinishReason, Markers, Phase, Source, ops
from elastic.budget.machine import OPENING_WHITESPACE_LIMIT
from elastic.budget.pattern import Spelling
from tests.budget.helpers import EOS, ListTokenizer, machine_for, run

pytestmark = pytest.mark.usefixtures("kernels")

START, END = 2, 3
ONE = Markers((START,), (END,))
A, B = 4, 5
AAB = Markers((A, B, B), (A, A, B))  # three tokens each, overlapping themselves and each other
X, Y, Z = 6, 7, 8
S, F, P = Source.SAMPLED, Source.FORCED, Source.PAD
BLANK = ListTokenizer([" " if i == 9 else f"t{i}" for i in range(10)])


def row(budget, stream, markers=ONE, start=Phase.THINKING, eos=(EOS,)):
    return run(machine_for(budget, markers, BLANK, eos), stream, start)


# ---- R1 ----


def test_r01_after_t_thinking_tokens_the_closing_is_forced():
    out = row(Budget(3, 2, closing=(Y, END, Z)), [X] * 20)
    assert out.tokens == [X, X, X, Y, END, Z, X, X]
    assert out.source == [S, S, S, F, F, F, S, S]
    assert out.phase[3:6] == [Phase.CLOSING, Phase.CLOSING, Phase.SOLUTION]
    assert (out.thinking, out.solution, out.cut) == (3, 2, True)


def test_r01_the_default_closing_is_the_bare_end_marker():
    assert row(Budget(2, 1), [X] * 9, AAB).tokens == [X, X, A, A, B, X]


def test_r01_an_end_marker_as_token_t_needs_no_closing():
    out = row(Budget(3, 2), [X, X, END, X, X])
    assert out.tokens == [X, X, END, X, X]
    assert not out.cut


# ---- R2 ----


def test_r02_a_natural_end_marker_counts_against_neither_budget():
    out = row(Budget(5, 2), [X, A, A, B, X, X], AAB)
    assert (out.thinking, out.solution) == (1, 2)
    assert out.source == [S] * 6
    assert out.phase[1:4] == [Phase.THINKING] * 3


def test_r02_no_closing_is_added_after_a_natural_end_however_long_the_solution():
    out = row(Budget(3, 20, closing=(Y, END, Z)), [X, END] + [X] * 30)
    assert out.tokens == [X, END] + [X] * 20
    assert F not in out.source
    assert not out.cut


# ---- R3 ----


@pytest.mark.parametrize("begun", [0, 1, 2])
def test_r03_a_cut_inside_a_marker_emits_only_its_rest_never_a_doubled_prefix(begun):
    prefix = [A, A][:begun]
    out = row(Budget(4, 1, closing=(Y, A, A, B, Z)), [X] * (4 - begun) + prefix + [X] * 20, AAB)
    closing = [Y, A, A, B, Z] if begun == 0 else [*[A, A, B][begun:], Z]
    assert out.tokens == [X] * (4 - begun) + prefix + closing + [X]
    assert out.thinking == 4 - begun  # begun marker tokens are given back


def test_r03_a_marker_overlapping_itself_is_completed_from_its_longest_beginning():
    out = row(Budget(4, 1), [X, A, A, A, X, X], AAB)  # "aaa": the last two begin "aab"
    assert out.tokens == [X, A, A, A, B, X]
    assert out.thinking == 2


def test_r03_eos_inside_a_marker_is_replaced_by_its_rest():
    out = row(Budget(9, 1), [X, A, A, EOS, X], AAB)
    assert out.tokens == [X, A, A, B, X]
    assert out.source == [S, S, S, F, S]


# ---- R4 ----


@pytest.mark.parametrize(
    ("closing", "why"),
    [
        ((X, Y), "found 0"),
        ((END, X, END), "found 2"),
        ((START, X, END), "start marker"),
        ((X, END, START), "start marker"),
        ((EOS, END), "EOS"),
    ],
)
def test_r04_a_closing_without_exactly_one_end_marker_is_refused(closing, why):
    with pytest.raises(ValueError, match=why) as error:
        machine_for(Budget(3, 3, closing=closing), ONE)
    assert str(closing) in str(error.value)


@pytest.mark.parametrize("closing", ["", ()])
def test_r04_an_empty_closing_is_refused(closing):
    with pytest.raises(ValueError, match="closing"):
        Budget(3, 3, closing=closing)


def test_r04_overlapping_end_markers_count_twice():
    twice = Markers((2,), (A, A))
    with pytest.raises(ValueError, match="found 2"):
        machine_for(Budget(3, 3, closing=(A, A, A)), twice)


def test_r04_tokens_behind_the_marker_are_forced_solution_text():
    out = row(Budget(1, 2, closing=(END, Y, Z)), [X] * 9)
    assert out.source == [S, F, F, F, S, S]
    assert out.phase == [Phase.THINKING, Phase.CLOSING] + [Phase.SOLUTION] * 4
    assert out.solution == 2


# ---- R5 ----


def test_r05_forced_tokens_count_against_no_budget_and_the_bound_is_exact():
    budget = Budget(
        4, 3, closing=(Y, END, Z), notices=((1, (Y, Y)),), min_thinking=2, extension=(Z, Z), max_extensions=1
    )
    out = row(budget, [X, X, X, END, *[X] * 30])
    assert (out.thinking, out.solution) == (4, 3)
    assert len(out.tokens) == 4 + 3 + 3 + 2 + 2 == budget.max_tokens(ONE)


def test_r05_a_row_that_opens_thinking_itself_may_emit_the_start_marker_on_top():
    budget = Budget(2, 2)
    stream = [9] * OPENING_WHITESPACE_LIMIT + [A, B, B] + [X] * 20
    out = row(budget, stream, AAB, Phase.OPENING)
    assert len(out.tokens) == budget.max_tokens(AAB, starts_in_thinking=False)
    assert (out.thinking, out.solution) == (2, 2)


def test_r05_an_unlimited_budget_has_no_bound():
    assert Budget.unlimited().max_tokens(ONE) is None
    assert Budget(5, None).max_tokens(ONE) is None
    assert Budget(None, 5).max_tokens(ONE) is None
    assert Budget.vanilla(7).max_tokens(AAB) == 7 + 3


# ---- R6 ----


def test_r06_eos_while_thinking_is_replaced_by_the_closing():
    out = row(Budget(9, 2, closing=(Y, END)), [X, EOS, X, X, X])
    assert out.tokens == [X, Y, END, X, X]
    assert (out.thinking, out.cut) == (1, True)


def test_r06_on_eos_stop_ends_the_row():
    out = row(Budget(9, 2, on_eos="stop"), [X, EOS, X])
    assert out.tokens == [X, EOS]
    assert out.finish == FinishReason.STOP
    assert not out.cut


def test_r06_every_eos_id_ends_a_sequence():
    out = row(Budget(9, 9), [END, X, 1], eos=(0, 1))
    assert out.finish == FinishReason.STOP


# ---- R7 ----


def test_r07_a_spent_solution_budget_cuts_hard_without_an_eos():
    out = row(Budget(1, 3), [X, END, X, X, X, X])
    assert out.tokens[-3:] == [X, X, X]
    assert EOS not in out.tokens
    assert out.finish == FinishReason.SOLUTION_BUDGET


def test_r07_eos_finishes_with_stop_also_as_the_last_allowed_token():
    out = row(Budget(5, 3), [END, X, X, EOS])
    assert (out.finish, out.solution) == (FinishReason.STOP, 3)


# ---- R8 ----


def test_r08_a_start_marker_inside_thinking_resets_nothing():
    out = row(Budget(5, 2), [X, X, START, START, X, X, X, X, X])
    assert out.tokens == [X, X, START, START, X, END, X, X]
    assert out.thinking == 5


def test_r08_a_start_marker_in_the_solution_is_an_ordinary_token():
    out = row(Budget(3, 4), [X, END, START, X, END, START, X])
    assert out.source == [S] * 6
    assert (out.thinking, out.solution) == (1, 4)


def test_r08_forbid_masks_the_token_that_would_complete_the_start_marker():
    machine = machine_for(Budget(3, 9, on_reopen="forbid"), AAB)
    state = ops.new_state(1, machine)
    masked = []
    for token in [A, A, B, X, A, B, X, X]:  # thinking, which ends at once, then "x a b x x" as solution
        logits = torch.zeros(1, 100)
        ops.force_logits_(logits, state, machine)
        masked.append(torch.isinf(logits[0]).nonzero()[:, 0].tolist())
        ops.budget_step_(torch.tensor([token]), state, machine)
    assert masked == [[], [], [], [], [], [], [B], []]


def test_r08_forbid_masks_a_start_marker_that_begins_in_the_forced_tail():
    machine = machine_for(Budget(0, 9, on_reopen="forbid", closing=(A, A, B, A, B)), AAB)
    state = run(machine, [X] * 5).state
    logits = torch.zeros(1, 100)
    ops.force_logits_(logits, state, machine)
    assert torch.isinf(logits[0]).nonzero()[:, 0].tolist() == [B]


# ---- R9 ----


def test_r09_white_space_and_the_start_marker_are_free_and_lead_to_thinking():
    out = row(Budget(2, 2), [9, 9, A, B, B, *[X] * 5], AAB, Phase.OPENING)
    assert out.phase[:5] == [Phase.OPENING] * 5
    assert out.tokens[:7] == [9, 9, A, B, B, X, X]
    assert out.tokens[7:] == [A, A, B]
    assert out.thinking == 2


def test_r09_other_text_opens_the_solution_where_it_counts():
    out = row(Budget(2, 3), [9, X, X, X, X], AAB, Phase.OPENING)
    assert out.tokens == [9, X, X, X]
    assert out.phase == [Phase.OPENING] + [Phase.SOLUTION] * 3
    assert (out.thinking, out.solution, out.finish) == (0, 3, FinishReason.SOLUTION_BUDGET)


def test_r09_tokens_of_a_half_matched_start_marker_count_as_solution():
    out = row(Budget(2, 9), [9, A, B, X, X], AAB, Phase.OPENING)
    assert out.solution == 4
    assert out.phase[-2:] == [Phase.SOLUTION] * 2


def test_r09_white_space_that_begins_the_start_marker_is_free_as_white_space_and_as_marker():
    markers = Markers((9, A), (END,))
    for blanks in (1, 2, 5):
        out = row(Budget(1, 3), [9] * blanks + [A, X, X], markers, Phase.OPENING)
        assert out.phase == [Phase.OPENING] * (blanks + 1) + [Phase.THINKING, Phase.CLOSING]
    out = row(Budget(1, 2), [9, 9, X, X, X], markers, Phase.OPENING)
    assert out.tokens == [9, 9, X, X]
    assert out.solution == 2


def test_r09_text_joined_to_the_start_marker_is_text():
    joined, blank = 1, 0  # tokens that hold the first piece of the marker behind a word, behind a space
    merged = Spelling((A, B), first=frozenset({joined, blank}), text_before=frozenset({joined}))
    markers = Markers((A, B), (END,), start_spellings=(merged,))
    assert row(Budget(1, 2), [blank, B, X, X], markers, Phase.OPENING, eos=()).phase[2] == Phase.THINKING
    out = row(Budget(1, 2), [joined, B, X, X], markers, Phase.OPENING, eos=())
    assert out.phase == [Phase.SOLUTION] * 2


def test_r09_t_zero_forces_the_closing_as_the_first_tokens_of_thinking():
    assert row(Budget(0, 1, closing=(Y, END)), [X] * 5).tokens == [Y, END, X]
    opened = row(Budget(0, 1), [START, X, X, X], start=Phase.OPENING)
    assert opened.tokens == [START, END, X]


def test_r09_endless_white_space_does_not_escape_the_solution_budget():
    out = row(Budget(2, 3), [9] * 100, ONE, Phase.OPENING)
    assert len(out.tokens) == OPENING_WHITESPACE_LIMIT + 3
    assert out.finish == FinishReason.SOLUTION_BUDGET


def test_r09_half_a_marker_cannot_overspend_the_solution_budget():
    budget = Budget(1, 2)
    out = row(budget, [A, B, X, X, X, X, X, X, X], AAB, Phase.OPENING)
    assert out.tokens == [
        A,
        B,
        B,
        X,
        A,
        A,
        B,
        X,
        X,
    ]  # what would overspend s is the rest of the marker instead
    assert out.source[:4] == [S, S, F, S]
    assert (out.thinking, out.solution) == (1, 2)
    assert row(budget, [A, B, B, X], AAB, Phase.OPENING).source == [S] * 4


def test_r09_a_think_tag_typed_by_the_user_changes_nothing():
    prompt = [X, START, X, Y]  # "... <think> ..." and then the assistant's turn
    assert ONE.initial_phase(prompt) == Phase.OPENING
    assert ONE.initial_phase([*prompt, START]) == Phase.THINKING
