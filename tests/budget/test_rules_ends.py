"""Rules R18 to R20 by hand: several spellings, further natural ends, tokens already thought, reclosing."""

import pytest
import torch

from elastic import Budget, FinishReason, Markers, Phase, Source, ops
from elastic.budget.markers import NaturalEnd
from elastic.budget.pattern import Spelling

from .helpers import EOS, ListTokenizer, machine_for, run

pytestmark = pytest.mark.usefixtures("kernels")

START, END = 2, 3
A, B = 4, 5
X, Y, Z = 6, 7, 8
T, U = 10, 11  # <tool _call>
OTHER = 12  # </thinking>
M = 15  # B with other text behind it
TOOL = Markers((START,), (END,), ends=((T, U), NaturalEnd((Spelling((OTHER,)),), opens=False)))
# "y a b" is configured, "a b" is left of it without its phrase.
PHRASE = Markers((START,), (Y, A, B), ends=(NaturalEnd((Spelling((A, B)),), opens=False),))
S, F = Source.SAMPLED, Source.FORCED
THINKING, CLOSING, SOLUTION = Phase.THINKING, Phase.CLOSING, Phase.SOLUTION


def row(budget, stream, markers=TOOL, start=Phase.THINKING, used=0):
    machine = machine_for(budget, markers)
    return run(machine, stream, state=ops.new_state(1, machine, phase=[int(start)], thinking_used=used))


def masked(machine, state) -> list[int]:
    logits = torch.zeros(1, 100)
    ops.force_logits_(logits, state, machine)
    return torch.isinf(logits[0]).nonzero()[:, 0].tolist()


# ---- R18: natural ends ----


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


# ---- R18: several spellings ----

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


def test_r18_the_last_token_of_an_opening_end_is_solution_text_where_a_start_marker_may_begin():
    markers = Markers((U, A), (END,), ends=((T, U),))
    machine = machine_for(Budget(9, 9, on_reopen="forbid"), markers)
    assert masked(machine, run(machine, [X, T, U]).state) == [A]


# ---- R18: what may stand in texts ----


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


def test_r18_the_bound_holds_for_the_longest_way_to_end_thinking():
    long = Spelling(tuple(range(30, 40)))
    markers = Markers((START,), (END,), end_spellings=(Spelling((END,)), long))
    budget = Budget(5, 2)
    out = row(budget, [X] * 4 + [30] + [X] * 20, markers)  # cut behind its first token, which is given back
    assert out.tokens == [X] * 4 + list(range(30, 40)) + [X] * 2
    assert out.thinking == 4
    assert budget.max_tokens(markers) == 5 + 2 + 10


# ---- R19 ----


def test_r19_tokens_already_thought_count():
    assert row(Budget(5, 1), [X] * 9, used=3).tokens == [X, X, END, X]
    for used in (5, 6, 2**62):
        out = row(Budget(5, 1), [X] * 9, used=used)
        assert out.tokens == [END, X]
        assert (out.thinking, out.cut) == (5, True)


def test_r19_a_spent_budget_closes_at_once_whatever_the_grace():
    out = row(Budget(5, 1, grace=2, boundary=(Z,)), [X] * 9, used=5)
    assert out.tokens == [END, X]
    assert row(Budget(5, 1, grace=2, boundary=(Z,)), [X] * 9, used=99).thinking == 7


def test_r19_notices_at_a_lower_count_are_past():
    budget = Budget(9, 1, notices=((1, (Y,)), (3, (Z,)), (3, (Y, Y))))
    assert row(budget, [X] * 3, used=2).tokens == [X, Z, Y]
    assert row(budget, [X] * 4, used=3).tokens == [Z, Y, Y, X]
    assert row(budget, [X] * 3, used=4).tokens == [X, X, X]


def test_r19_the_minimum_and_the_total_see_them():
    budget = Budget(9, 1, min_thinking=4, extension=(Y,), max_extensions=1)
    assert row(budget, [END, X], used=4).tokens == [END, X]
    assert row(budget, [END, X], used=3).tokens == [Y, X]
    out = row(Budget(3, None, 6), [X] * 9, used=3, start=SOLUTION)
    assert (len(out.tokens), out.finish) == (3, FinishReason.TOTAL_BUDGET)
    assert row(Budget.vanilla(5), [X] * 9, used=3).tokens == [X, X]


@pytest.mark.parametrize("start", [THINKING, SOLUTION])
def test_r19_a_row_whose_total_is_spent_is_done(start):
    out = row(Budget.vanilla(5), [X] * 9, used=7, start=start)
    assert (out.tokens, out.finish, out.thinking) == ([], FinishReason.TOTAL_BUDGET, 5)


def test_r19_each_row_has_its_own_count_and_done_rows_ignore_it():
    machine = machine_for(Budget(5, 1), TOOL)
    state = ops.new_state(4, machine, phase=[1, 1, 4, 5], thinking_used=[0, 4, 2, 9])
    assert ops.thinking_used(state).tolist() == [0, 4, 2, 0]
    assert torch.equal(ops.new_state(2, machine, thinking_used=0), ops.new_state(2, machine))


@pytest.mark.cpu_kernels  # what lies on a device is not read
@pytest.mark.parametrize(
    ("phase", "used", "message"),
    [
        (1, -1, "thinking_used: expected at least 0, got -1 in row 1"),
        (0, 2, "thinking_used: expected 0 in OPENING, where thinking has not begun, got 2 in row 1"),
    ],
)
def test_r19_what_cannot_have_been_thought_is_refused(phase, used, message):
    with pytest.raises(ValueError, match=f"^new_state: {message}$"):
        ops.new_state(2, machine_for(Budget(5, 1), TOOL), phase=[1, phase], thinking_used=[1, used])


# ---- R20 ----


def test_r20_forbid_masks_a_second_end_behind_a_forced_close():
    machine = machine_for(Budget(1, 9, on_reclose="forbid", closing=(END, Y)), TOOL)
    out = run(machine, [X, X, X, X, X])
    seen = [masked(machine, state) for state in out.states]
    assert seen[0] == []
    assert seen[3:] == [[END, OTHER]] * 3  # the end marker and the other that opens nothing


def test_r20_nothing_is_masked_behind_a_natural_end_or_under_count():
    for budget, stream in ((Budget(9, 9, on_reclose="forbid"), [X, END, X]), (Budget(1, 9), [X, X, X])):
        machine = machine_for(budget, TOOL)
        assert masked(machine, run(machine, stream).state) == []


def test_r20_an_end_that_begins_in_the_forced_tail_is_masked():
    markers = Markers((START,), (A, A, B))
    machine = machine_for(Budget(0, 9, on_reclose="forbid", closing=(A, A, B, Y, A, A)), markers)
    state = run(machine, [X] * 6).state
    assert masked(machine, state) == [B]
    assert masked(machine, run(machine, [X], state=state).state) == []


def test_r20_merged_last_tokens_are_masked_too():
    markers = Markers((START,), (A, B), end_spellings=(Spelling((A, B), last=frozenset({M})),))
    machine = machine_for(Budget(0, 9, on_reclose="forbid"), markers)
    assert masked(machine, run(machine, [X, X, A]).state) == [B, M]


def test_r20_both_markers_are_masked_together():
    machine = machine_for(Budget(0, 9, on_reclose="forbid", on_reopen="forbid"), Markers((START,), (END,)))
    assert masked(machine, run(machine, [X, X]).state) == [START, END]


def test_r20_sampling_draws_no_second_end():
    machine = machine_for(Budget(0, 9, on_reclose="forbid"), TOOL)
    state = run(machine, [X]).state
    logits = torch.zeros(1, 100)
    logits[0, END], logits[0, OTHER], logits[0, X] = 3.0, 2.0, 1.0
    out = ops.sample(logits, torch.tensor([7]), torch.tensor([1]), 0.0, state=state, machine=machine)
    assert out.tokens.tolist() == [X]
    torch.testing.assert_close(out.full_logprobs, logits.log_softmax(-1)[:, X])


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
