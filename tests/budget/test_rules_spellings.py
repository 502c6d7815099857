"""Rule R18 by hand: markers that tokens spell in several ways."""

import pytest
import torch

from elastic import Budget, Markers, Phase, ops
from elastic.budget.pattern import Spelling
from tests.budget.ends import END, SOLUTION, START, THINKING, A, B, F, M, S, T, U, X, Y, Z, masked, row
from tests.budget.helpers import ListTokenizer, machine_for, run

pytestmark = pytest.mark.usefixtures("kernels")


SPELLED = Markers(
    (A, B),
    (X, Y),
    start_spellings=(Spelling((A, B)), Spelling((10, 11, 12))),
    end_spellings=(Spelling((X, Y)), Spelling((7, 8, 9)), Spelling((13,))),
)
TEXT = 20


@pytest.mark.parametrize("end", [[X, Y], [7, 8, 9], [13]])
def test_r18_every_spelling_of_the_end_ends_thinking(end):
    out = row(Budget(9, 2), [TEXT, *end, TEXT, TEXT], SPELLED)
    assert (out.thinking, out.solution, out.cut) == (1, 2, False)


@pytest.mark.parametrize("begun", [[X], [7], [7, 8]])
def test_r18_a_cut_inside_each_spelling_goes_on_in_that_spelling(begun):
    rest = {X: [Y], 7: [8, 9], 8: [9]}[begun[-1]]
    out = row(Budget(3, 1, closing=(TEXT, X, Y, 30)), [TEXT] * (3 - len(begun)) + begun + [TEXT] * 9, SPELLED)
    assert out.tokens[3:] == [*rest, 30, TEXT]
    assert out.thinking == 3 - len(begun)


def test_r18_a_spelling_with_the_closings_last_piece_ends_in_the_closings_own_token():
    """F is written with a token that holds text behind the marker: nothing of F is lost inside a marker."""
    spellings = (Spelling((A, B), last=frozenset({M})), Spelling((T, U, B), last=frozenset({M})))
    markers = Markers((START,), (A, B), end_spellings=spellings)
    for begun in ([A], [T, U]):
        out = row(Budget(2, 1, closing=(A, M, Z)), [X] * (2 - len(begun)) + begun + [X] * 9, markers)
        assert out.tokens[2:] == [M, Z, X]


def test_r18_text_that_the_closings_last_token_holds_follows_a_spelling_with_another_last_piece():
    texts = ["?"] * 20
    texts[B], texts[M], texts[14] = ">", ">\n", "\n"

    class Encoding(ListTokenizer):
        def encode(self, text, **_):
            return [texts.index(text)]

    spellings = (Spelling((A, B), last=frozenset({M})), Spelling((T, U)))
    markers = Markers((START,), (A, B), end_spellings=spellings)
    machine = machine_for(Budget(2, 1, closing=(A, M, Z)), markers, Encoding(texts), eos=())
    assert run(machine, [X, T, *[X] * 9]).tokens == [X, T, U, 14, Z, X]


def test_r18_every_spelling_of_the_start_opens_thinking_and_is_free():
    for start in ([A, B], [10, 11, 12]):
        out = row(Budget(1, 1), [*start, *[TEXT] * 9], SPELLED, Phase.OPENING)
        assert out.tokens == [*start, TEXT, X, Y, TEXT]
        assert (out.thinking, out.solution) == (1, 1)


def test_r18_half_a_start_in_any_spelling_is_completed_where_it_would_overspend():
    out = row(Budget(1, 2), [10, 11, *[TEXT] * 9], SPELLED, Phase.OPENING)
    assert out.tokens[:3] == [10, 11, 12]
    assert out.source[:3] == [S, S, F]


def test_r18_forbid_masks_what_would_complete_any_spelling_of_the_start():
    machine = machine_for(Budget(9, 9, on_reopen="forbid"), SPELLED)
    seen = []
    state = ops.new_state(1, machine)
    for token in [13, 10, 11, A, TEXT]:
        ops.budget_step_(torch.tensor([token]), state, machine)
        seen.append(masked(machine, state))
    assert seen == [[], [], [12], [B], []]


def test_r18_the_bound_holds_for_the_longest_way_to_end_thinking():
    long = Spelling(tuple(range(30, 40)))
    markers = Markers((START,), (END,), end_spellings=(Spelling((END,)), long))
    budget = Budget(5, 2)
    out = row(budget, [X] * 4 + [30] + [X] * 20, markers)  # cut behind its first token, which is given back
    assert out.tokens == [X] * 4 + list(range(30, 40)) + [X] * 2
    assert out.thinking == 4
    assert budget.max_tokens(markers) == 5 + 2 + 10


# ---- tokens that end one marker and begin another ----

JOINED = 14  # the last piece of the one and the first piece of the other, as "></" of "<think></think>"


def test_a_token_that_opens_thinking_may_begin_its_end():
    markers = Markers(
        (START, A),
        (B, END),
        start_spellings=(Spelling((START, A), last=frozenset({JOINED})),),
        end_spellings=(Spelling((B, END), first=frozenset({JOINED})),),
    )
    natural = row(Budget(9, 9), [START, JOINED, END, X], markers, Phase.OPENING)
    assert natural.phase == [Phase.OPENING, Phase.OPENING, THINKING, SOLUTION]
    assert (natural.thinking, natural.solution, natural.cut) == (0, 1, False)
    at_once = row(Budget(0, 9), [START, JOINED, X, X], markers, Phase.OPENING)  # only the rest is forced
    assert (at_once.tokens, at_once.source) == ([START, JOINED, END, X], [S, S, F, S])
    text = row(Budget(9, 9), [START, JOINED, X, END], markers, Phase.OPENING)
    assert (text.phase[2:], text.thinking) == ([THINKING, THINKING], 2)
    # A piece of both that holds no text but the marker's own begins nothing.
    own = row(Budget(9, 9), [START, A, END, X], Markers((START, A), (A, END)), Phase.OPENING)
    assert own.phase[2:] == [THINKING, THINKING]


def test_a_token_that_ends_thinking_may_begin_a_start_marker():
    markers = Markers(
        (START, A),
        (B, END),
        start_spellings=(Spelling((START, A), first=frozenset({JOINED})),),
        end_spellings=(Spelling((B, END), last=frozenset({JOINED})),),
    )
    machine = machine_for(Budget(9, 9, on_reopen="forbid"), markers)
    out = run(machine, [X, B, JOINED], state=ops.new_state(1, machine))
    assert masked(machine, out.state) == [A]
    out = run(machine, [X, B, END], state=ops.new_state(1, machine))
    assert masked(machine, out.state) == []
