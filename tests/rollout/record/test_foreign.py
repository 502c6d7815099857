"""Records of completions that another engine wrote."""

import math

import pytest

from elastic import Budget, Markers
from elastic.budget import FinishReason, Phase, Source
from elastic.models.tiny.vocabulary import IDS, build_tokenizer
from elastic.rollout.record.foreign import foreign_batch

S, F = Source.SAMPLED, Source.FORCED
END, EOS, PAD = IDS["</think>"], IDS["<eos>"], IDS["<pad>"]


def batch_of(*completions, budget, logprobs=None):
    tokenizer = build_tokenizer()
    return foreign_batch(
        *(completions, [budget] * len(completions), Markers.from_tokenizer(tokenizer)),
        prompts=[[IDS["<bos>"], IDS["<think>"]]],
        prompt_index=[0] * len(completions),
        phases=[Phase.THINKING] * len(completions),
        seeds=range(len(completions)),
        tokenizer=tokenizer,
        eos_ids=[EOS],
        logprobs=logprobs,
    )


def test_an_eos_behind_a_spent_budget_is_no_part_of_the_row():
    cut, stopped, early = [7, 8, END, 9, 9, EOS], [7, 8, END, 9, EOS], [7, END, EOS]
    batch = batch_of(cut, stopped, early, budget=Budget(2, 2))
    assert batch.lengths.tolist() == [5, 5, 3]
    assert batch.tokens.tolist() == [[7, 8, END, 9, 9], stopped, [*early, PAD, PAD]]
    assert batch.source[0].tolist() == [S, S, F, S, S]
    assert [FinishReason(reason) for reason in batch.finish_reason.tolist()] == [
        FinishReason.SOLUTION_BUDGET,
        FinishReason.STOP,
        FinishReason.STOP,
    ]
    assert batch.thinking_cut.tolist() == [True, True, False]
    assert batch.solution(0).split() == ["3", "3"]


def test_a_row_that_ends_before_its_budget_does_is_of_length():
    batch = batch_of([7, 8], budget=Budget(4, 4))
    assert batch.finish_reason.tolist() == [FinishReason.LENGTH]


def test_logprobs_are_those_given_or_unknown_and_0_where_a_token_was_forced():
    row = [7, 8, END, 9, EOS]
    batch = batch_of(row, budget=Budget(2, 2), logprobs=[[-1.0, None, -9.0, -2.0, -3.0]])
    first, second, forced, *rest = batch.full_logprobs[0].tolist()
    assert math.isnan(second)
    assert (first, forced, rest) == (-1.0, 0.0, [-2.0, -3.0])
    unknown = batch_of(row, budget=Budget(2, 2)).full_logprobs[0].isnan()
    assert unknown.tolist() == [True, True, False, True, True]


def test_a_row_that_no_engine_can_have_written_is_named():
    with pytest.raises(ValueError, match="row 1, position 2"):
        batch_of([7, END, EOS], [7, 8, 9], budget=Budget(2, 2))
    with pytest.raises(ValueError, match="completions: expected at least one"):
        batch_of(budget=Budget(2, 2))


def test_a_row_with_fewer_logprobs_than_tokens_is_refused():
    rows = [7, END, 9, EOS], [7, END, EOS]
    with pytest.raises(ValueError, match="logprobs: row 1: expected 3, one per token, got 2"):
        batch_of(*rows, budget=Budget(2, 2), logprobs=[[-1.0] * 4, [-1.0] * 2])
