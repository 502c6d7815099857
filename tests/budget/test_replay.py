"""`elastic.replay`: what the tokens of finished sequences were."""

import pytest
import torch

from elastic import Budget, FinishReason, Markers, Phase, Source, replay
from tests.budget.helpers import EOS, machine_for, run
from tests.budget.tokenizers import bpe

pytestmark = pytest.mark.usefixtures("kernels")

START, END = 2, 3
ONE = Markers((START,), (END,))
A, B = 4, 5
AAB = Markers((A, B, B), (A, A, B))
X, Y, Z = 6, 7, 8
S, F, P = Source.SAMPLED, Source.FORCED, Source.PAD


def test_tokens_of_another_engine_are_annotated():
    rows = [[X, X, END, X, EOS], [X, END, X, X], [X, X, END, X]]
    out = replay(rows, Budget(2, 2), ONE, eos_ids=[EOS])
    assert out.source.tolist() == [[S, S, F, S, S], [S, S, S, S, P], [S, S, F, S, P]]
    t, c, s, d = Phase.THINKING, Phase.CLOSING, Phase.SOLUTION, Phase.DONE
    assert out.phase.tolist() == [[t, t, c, s, s], [t, t, s, s, d], [t, t, c, s, d]]
    assert out.lengths.tolist() == [5, 4, 4]
    assert out.thinking_tokens.tolist() == [2, 1, 2]
    assert out.solution_tokens.tolist() == [2, 2, 1]
    assert out.thinking_cut.tolist() == [True, False, True]
    reasons = [FinishReason.STOP, FinishReason.SOLUTION_BUDGET, FinishReason.LENGTH]
    assert out.finish_reason.tolist() == reasons


def test_budgets_and_starts_may_differ_by_row():
    out = replay(
        [[X, END, X], [START, END, X], [X, X]],
        [Budget(1, 1), Budget(0, 1), Budget(5, 2)],
        ONE,
        [True, False, False],
        eos_ids=[EOS],
    )
    assert out.source.tolist() == [[S, F, S], [S, F, S], [S, S, P]]
    assert out.phase[2].tolist() == [Phase.SOLUTION, Phase.SOLUTION, Phase.DONE]


def test_recorded_sources_tell_a_replaced_eos_from_a_sampled_marker():
    budget = Budget(5, 1)
    row = run(machine_for(budget, ONE), [X, EOS, X])
    assert row.tokens == [X, END, X]
    told = replay([row.tokens], budget, ONE, eos_ids=[EOS], source=[row.source])
    assert told.source.tolist() == [row.source] == [[S, F, S]]
    assert told.thinking_cut.tolist() == [True]
    guessed = replay([row.tokens], budget, ONE, eos_ids=[EOS])
    assert guessed.source.tolist() == [[S, S, S]]
    assert guessed.thinking_cut.tolist() == [False]


def test_recorded_sources_tell_an_extension_from_sampled_text():
    budget = Budget(9, 1, min_thinking=4, extension=(Y, Z), max_extensions=1)
    row = run(machine_for(budget, ONE), [X, END, X, X, END, X])
    told = replay([row.tokens], budget, ONE, eos_ids=[EOS], source=[row.source])
    assert told.source.tolist() == [row.source]
    assert told.phase.tolist() == [row.phase]
    assert told.thinking_tokens.tolist() == [row.thinking]


@pytest.mark.parametrize(
    ("tokens", "source", "position"),
    [
        ([X, X, X], None, 2),  # a forced token differs
        ([X, EOS], None, 1),  # an EOS that would have been replaced
        ([X, X, END, X, X, X], None, 5),  # goes on past its budget
        ([X, END], [S, F], None),
        ([X, Y], [S, F], 1),  # forced, but not what the budget forces
        ([X, X, END], [S, S, S], 2),  # sampled where it must be forced
        ([X, END, X], [S, S, F], 2),  # nothing is forced in a solution
        ([X], [P], 0),
    ],
)
def test_a_history_the_budget_cannot_have_written_names_row_and_position(tokens, source, position):
    def annotate():
        return replay([tokens], Budget(2, 2), ONE, eos_ids=[EOS], source=None if source is None else [source])

    if position is None:
        assert annotate().source.tolist() == [source]
    else:
        message = rf"tokens: row 0, position {position}: .*emits token {tokens[position]}"
        with pytest.raises(ValueError, match=message):
            annotate()


def test_a_forced_token_where_on_eos_stop_forces_none_is_a_contradiction():
    with pytest.raises(ValueError, match="recorded as FORCED"):
        replay([[X, END]], Budget(5, 2, on_eos="stop"), ONE, eos_ids=[EOS], source=[[S, F]])


def test_one_row_and_padded_tensors_are_understood():
    budget = Budget(2, 2)
    tokens = [X, X, END, X]
    flat = replay(tokens, budget, ONE, eos_ids=[EOS])
    padded = replay(torch.tensor([[*tokens, 0, 0]]), budget, ONE, eos_ids=[EOS], lengths=[4])
    assert flat.source.tolist() == [padded.source[0, :4].tolist()]
    assert padded.source[0, 4:].tolist() == [P, P]
    with pytest.raises(ValueError, match="lengths"):
        replay(torch.tensor([tokens]), budget, ONE)
    with pytest.raises(ValueError, match="source: expected shape"):
        replay([tokens], budget, ONE, eos_ids=[EOS], source=[[S]])


def test_nothing_to_annotate_gives_empty_annotations():
    out = replay([], Budget(2, 2), ONE, eos_ids=[EOS])
    assert out.source.shape == (0, 0)
    one = replay([[]], Budget(2, 2), ONE, eos_ids=[EOS])
    assert one.finish_reason.tolist() == [FinishReason.LENGTH]


def test_a_wrong_number_of_budgets_or_starts_is_refused():
    with pytest.raises(ValueError, match="budget: expected one or 2 budgets"):
        replay([[X], [X]], [Budget(2, 2)] * 3, ONE)
    with pytest.raises(
        ValueError, match=r"starts_in_thinking: expected 2 values, one per row, got shape \[3\]"
    ):
        replay([[X], [X]], Budget(2, 2), ONE, [True] * 3)


def test_texts_and_eos_come_from_the_markers_own_tokenizer():
    tokenizer = bpe(["time is up k"], special=["<think>", "</think>"])
    markers = Markers.from_tokenizer(tokenizer)
    budget = Budget(2, 9, closing="\ntime is up\n</think>\n")
    k = tokenizer.encode("k")[0]
    row = run(machine_for(budget, markers, tokenizer, None), [k] * 2 + [0] * 40)
    out = replay([row.tokens], budget, markers)
    assert out.source.tolist() == [row.source]
    assert out.finish_reason.tolist() == [FinishReason.STOP]


def test_without_eos_ids_no_token_ends_a_row():
    tokenizer = bpe(["time is up k"], special=["<think>", "</think>"])
    markers = Markers.from_tokenizer(tokenizer)
    end, eos = markers.end[0], tokenizer.eos_token_id
    by_default = replay([[end, eos]], Budget(5, 3), markers)
    assert by_default.finish_reason.tolist() == [FinishReason.STOP]
    out = replay([[end, eos, eos, eos]], Budget(5, 3), markers, eos_ids=())
    assert out.finish_reason.tolist() == [FinishReason.SOLUTION_BUDGET]
    assert out.solution_tokens.tolist() == [3]
