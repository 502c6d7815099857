"""Rollout records: the calls they come from, rows made by hand, and what makes two the same."""

import torch

from elastic import Budget, FinishReason, Markers, Phase, RolloutBatch
from elastic.rollout.record.batch import PER_TOKEN_FIELDS, TENSOR_FIELDS

PROMPTS = ["ab<think>", "c<think>", "ddd<think>"]
BUDGETS = [Budget(5, 4), Budget(12, 7, closing="so\n</think>ok"), Budget.vanilla(6)]


def same_rows(got: RolloutBatch, expected: RolloutBatch, rows: list[int]) -> None:
    assert len(got) == len(rows)
    for place, row in enumerate(rows):
        length = int(expected.lengths[row])
        assert got.prompt(place) == expected.prompt(row)
        for name in TENSOR_FIELDS:
            if name == "prompt_index":
                continue
            one, other = getattr(got, name)[place], getattr(expected, name)[row]
            if name in PER_TOKEN_FIELDS:
                one, other = one[:length], other[:length]
            assert torch.equal(one, other), name


def hand_made(
    ids: list[int], phases: str, reason: FinishReason, tokenizer, markers: Markers | None = None
) -> RolloutBatch:
    """One row; a letter of `phases` per token: o(pening) t(hinking) c(losing) n(otice) s(olution)."""
    phase = torch.tensor([["otcns".index(p) for p in phases]], dtype=torch.uint8)
    assert len(ids) == phase.shape[1]
    one = torch.zeros(1, dtype=torch.int64)
    return RolloutBatch(
        tokens=torch.tensor([ids]),
        source=torch.zeros_like(phase),
        phase=phase,
        logprobs=torch.zeros(phase.shape),
        full_logprobs=torch.zeros(phase.shape),
        lengths=one + len(ids),
        thinking_tokens=one.clone(),
        solution_tokens=one.clone(),
        thinking_cut=one.bool(),
        finish_reason=torch.tensor([int(reason)], dtype=torch.uint8),
        initial_phase=torch.tensor([int(Phase.THINKING)], dtype=torch.uint8),
        initial_thinking=one.clone(),
        ended_at=one - 1,
        seeds=one.clone(),
        prompt_index=one,
        prompts=[[5]],
        markers=markers or Markers.from_tokenizer(tokenizer),
        tokenizer=tokenizer,
    )
