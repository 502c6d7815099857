"""A rollout record of two prompts with two completions each, written by hand."""

import torch

from elastic.budget import Budget, Phase
from elastic.data import Problem
from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.rollout import RolloutBatch
from elastic.rollout.plan.default_markers import choose_markers
from elastic.rollout.record.replay import replay

PROBLEMS = [
    Problem("<bos> 1 + 1 = ? <think>", "2", "two", columns={"level": 1, "ground_truth": "2"}),
    Problem("<bos> 1 + 2 = ? <think>", "3", "three", columns={"level": 5, "ground_truth": "3"}),
]
TEXTS = [
    "so </think> answer is 2 <eos>",
    "so so answer is 2 </think> answer is 4 <eos>",
    "so </think> answer is 3 <eos>",
    "answer is 3 answer is 3",  # the budget ends it in its thought
]


def written_batch() -> RolloutBatch:
    """The rows of `TEXTS`, the first two of the first problem; thoughts end with the row."""
    tokenizer = build_tokenizer()
    markers = choose_markers(tokenizer)
    rows = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    budget = Budget.vanilla(9)
    eos = (tokenizer.eos_token_id,)
    found = replay(rows, budget, markers, tokenizer=tokenizer, eos_ids=eos)
    count = torch.arange(len(rows))
    return RolloutBatch(
        tokens=found.tokens,
        source=found.source,
        phase=found.phase,
        logprobs=torch.zeros(found.tokens.shape),
        full_logprobs=torch.zeros(found.tokens.shape),
        lengths=found.lengths,
        thinking_tokens=found.thinking_tokens,
        solution_tokens=found.solution_tokens,
        thinking_cut=found.thinking_cut,
        finish_reason=found.finish_reason,
        initial_phase=torch.full((len(rows),), int(Phase.THINKING), dtype=torch.uint8),
        initial_thinking=torch.zeros_like(count),
        ended_at=-torch.ones_like(count),
        seeds=count,
        prompt_index=count // 2,
        prompts=[tokenizer.encode(problem.prompt, add_special_tokens=False) for problem in PROBLEMS],
        markers=markers,
        eos_ids=eos,
        pad_id=tokenizer.pad_token_id,
        tokenizer=tokenizer,
    )
