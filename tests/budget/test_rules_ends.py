"""Rule R18 by hand: thinking ends also where a natural end stands, and what may stand in texts then."""

import pytest

from elastic import Budget, FinishReason, Markers
from elastic.budget.markers import NaturalEnd
from elastic.budget.pattern import Spelling
from tests.budget.ends import (
    CLOSING,
    END,
    OTHER,
    PHRASE,
    SOLUTION,
    START,
    THINKING,
    TOOL,
    A,
    B,
    S,
    T,
    U,
    X,
    Y,
    Z,
    masked,
    row,
)
from tests.budget.helpers import EOS, machine_for, run

pytestmark = pytest.mark.usefixtures("kernels")


def test_r18_an_end_that_opens_something_belongs_to_the_solution_and_counts_there():
    out = row(Budget(9, 5), [X, T, U, X, X, X, X])
    assert out.tokens == [X, T, U, X, X, X]
    assert out.source == [S] * 6
    assert out.phase == [THINKING, THINKING] + [SOLUTION] * 4
    assert (out.thinking, out.solution, out.cut) == (1, 5, False)
    assert out.finish == FinishReason.SOLUTION_BUDGET


def test_r18_another_closing_marker_counts_against_neither_budget():
    out = row(Budget(9, 2), [X, OTHER, X, X, X])
    assert out.tokens == [X, OTHER, X, X]
    assert out.phase == [THINKING, THINKING, SOLUTION, SOLUTION]
    assert (out.thinking, out.solution, out.cut) == (1, 2, False)


def test_r18_an_end_that_completes_with_the_budgets_last_token_needs_no_closing():
    for end in ([T, U], [X, OTHER]):
        out = row(Budget(3, 9), [X, *end, X, EOS])
        assert out.tokens == [X, *end, X, EOS]
        assert not out.cut


def test_r18_an_opening_end_longer_than_the_solution_budget_ends_the_row():
    out = row(Budget(9, 1), [X, T, U, X])
    assert out.tokens == [X, T, U]
    assert (out.thinking, out.solution, out.finish) == (1, 2, FinishReason.SOLUTION_BUDGET)


def test_r18_an_opening_end_counts_in_the_total():
    out = row(Budget.vanilla(3), [X, T, U, X])
    assert out.tokens == [X, T, U]
    assert (out.thinking, out.solution, out.finish) == (1, 2, FinishReason.TOTAL_BUDGET)
    assert row(Budget.vanilla(4), [X, T, U, X, X]).tokens == [X, T, U, X]


def test_r18_an_opening_end_before_the_minimum_gives_way_to_the_extension():
    budget = Budget(9, 9, min_thinking=2, extension=(Y,), max_extensions=1)
    out = row(budget, [X, T, U, X, T, U, EOS])
    # The first token of the replaced end stays as thinking text; that of the second end counts no more.
    assert out.tokens == [X, T, Y, X, T, U, EOS]
    assert (out.thinking, out.solution) == (3, 3)
    kept = row(Budget(9, 9, min_thinking=2, extension=(Y,), max_extensions=1), [X, X, T, U, EOS])
    assert kept.tokens == [X, X, T, U, EOS]


def test_r18_other_ends_in_progress_at_a_cut_are_text_and_never_forced():
    out = row(Budget(2, 2), [X, T, X, U, X])
    assert out.tokens == [X, T, END, U, X]
    assert (out.thinking, out.cut) == (2, True)
    assert row(Budget(9, 1), [X, T, EOS, X]).tokens == [X, T, END, X]


def test_r18_the_bare_end_is_a_natural_end_also_where_a_phrase_stands_before_the_configured_one():
    for end in ([A, B], [Y, A, B]):  # the longer one counts where both complete at once
        out = row(Budget(9, 2), [X, *end, X, X], PHRASE)
        assert out.tokens == [X, *end, X, X]
        assert (out.thinking, out.solution, out.cut) == (1, 2, False)


@pytest.mark.parametrize(
    ("begun", "forced"),
    [([], [Z, Y, A, B, X]), ([Y], [A, B, X]), ([Y, A], [B, X]), ([A], [B, X]), ([X, A], [B, X])],
)
def test_r18_a_cut_inside_the_phrase_or_the_bare_end_emits_only_the_rest(begun, forced):
    out = row(Budget(4, 1, closing=(Z, Y, A, B, X)), [Z] * (4 - len(begun)) + begun + [Z] * 20, PHRASE)
    assert out.tokens == [Z] * (4 - len(begun)) + begun + forced + [Z]
    assert out.phase[4:-1] == [CLOSING] * (len(forced) - 1) + [SOLUTION]
    assert out.thinking == 4 - len([t for t in begun if t in (Y, A)])


def test_r18_equal_ends_at_once_are_the_end_marker():
    opens = NaturalEnd((Spelling((T, U), last=frozenset({B})),))
    first = Spelling((A, B), first=frozenset({T}))
    both = Markers((START,), (A, B), ends=(opens,), end_spellings=(first,))
    out = row(Budget(9, 1), [X, T, B, X], both)  # "t b" is the end marker and opens something too
    assert out.tokens == [X, T, B, X]
    assert (out.thinking, out.solution) == (1, 1)


def test_r18_of_two_ends_at_once_the_longer_one_counts():
    out = row(Budget(9, 9), [X, A, B, EOS], Markers((START,), (B,), ends=((A, B),)))
    assert out.phase == [THINKING, THINKING, SOLUTION, SOLUTION]
    assert (out.thinking, out.solution) == (1, 3)


def test_r18_the_last_token_of_an_opening_end_is_solution_text_where_a_start_marker_may_begin():
    markers = Markers((U, A), (END,), ends=((T, U),))
    machine = machine_for(Budget(9, 9, on_reopen="forbid"), markers)
    assert masked(machine, run(machine, [X, T, U]).state) == [A]


# ---- what may stand in texts ----


@pytest.mark.parametrize("closing", [(T, U, END), (OTHER, END), (END, OTHER), (X, OTHER, END, Y)])
def test_r18_a_closing_with_another_natural_end_is_refused(closing):
    with pytest.raises(ValueError, match=r"closing: .* holds the natural end \[1[02]") as error:
        machine_for(Budget(3, 3, closing=closing), TOOL)
    assert str(closing) in str(error.value)


def test_r18_a_closing_may_open_something_behind_its_marker():
    out = row(Budget(1, 2, closing=(END, T, U)), [X] * 9)
    assert out.tokens == [X, END, T, U, X, X]
    assert out.solution == 2
    assert row(Budget(1, 1, closing=(Z, Y, A, B)), [X] * 9, PHRASE).tokens == [X, Z, Y, A, B, X]


@pytest.mark.parametrize("text", [(T, U), (OTHER,), (X, T), (U,)])
def test_r18_extensions_and_notices_hold_complete_and_begin_no_end(text):
    for options in (
        {"min_thinking": 1, "max_extensions": 1, "extension": text},
        {"notices": ((1, text),)},
    ):
        with pytest.raises(ValueError, match=r"^(extension|notices): "):
            machine_for(Budget(9, 9, **options), TOOL)


def test_r18_eos_ids_may_not_belong_to_a_natural_end():
    with pytest.raises(ValueError, match=r"eos_ids: \[11\] belong to the end marker \[10, 11\]"):
        machine_for(Budget(5, 5), TOOL, eos=[U])


def test_r18_a_prompt_that_ends_in_any_natural_end_starts_in_the_solution():
    for end in ([END], [T, U], [OTHER]):
        assert TOOL.initial_phase([X, START, X, *end]) == SOLUTION
