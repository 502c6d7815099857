"""The rollout record of completions that another engine wrote under budgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elastic.budget import Budget, FinishReason, Markers, Phase, Source
from elastic.budget.eos import pad_of
from elastic.rollout.record.batch import RolloutBatch
from elastic.rollout.record.replay import Annotation, replay

_SPENT = (FinishReason.SOLUTION_BUDGET, FinishReason.TOTAL_BUDGET)


def foreign_batch(
    completions: Sequence[Sequence[int]],
    budgets: Sequence[Budget],
    markers: Markers,
    *,
    prompts: list[list[int]],
    prompt_index: Sequence[int],
    phases: Sequence[Phase],
    seeds: Sequence[int],
    tokenizer: Any,
    eos_ids: Sequence[int],
    logprobs: Sequence[Sequence[float | None]] | None = None,
) -> RolloutBatch:
    """Reads sources, phases and counts off the tokens, by `replay`.

    An engine whose requests end by an EOS alone gets one forced behind a spent solution budget. It is no part
    of the row and is left out. An EOS that the closing text replaced (R6) leaves no trace: such a closing
    reads as sampled.

    Args:
        completions: R lists of token ids.
        budgets: one per row.
        markers: those that the engine has used.
        prompts: K lists of token ids.
        prompt_index: [R] index of each row's prompt.
        phases: where each row started.
        seeds: [R].
        tokenizer: of the texts.
        eos_ids: the tokens that end rows.
        logprobs: of each row's tokens under the temperature-scaled softmax; what is None or not given becomes
            NaN.

    Returns:
        RolloutBatch on the CPU. Its `logprobs`, those after filters, are NaN where a token was sampled.

    Raises:
        ValueError: no rows, fewer logprobs than tokens, or a row that no engine can have written under its
            budget; names its position.
    """
    if not completions:
        raise ValueError("completions: expected at least one, got none")

    def read(rows: Sequence[Sequence[int]]) -> Annotation:
        return replay(
            *(rows, budgets, markers),
            tokenizer=tokenizer,
            eos_ids=list(eos_ids),
            initial_phase=[int(phase) for phase in phases],
        )

    cut = [row[:-1] if row and row[-1] in eos_ids else row for row in completions]
    spent = [reason in _SPENT for reason in read(cut).finish_reason.tolist()]
    rows = [short if over else own for own, short, over in zip(completions, cut, spent, strict=True)]
    found = read(rows)
    pad_id, chosen = pad_of(tokenizer, eos_ids), found.source == Source.SAMPLED
    unknown = torch.full(chosen.shape, float("nan")).masked_fill(~chosen, 0.0)
    return RolloutBatch(
        tokens=found.tokens.masked_fill(found.source == Source.PAD, pad_id),
        source=found.source,
        phase=found.phase,
        logprobs=unknown,
        full_logprobs=unknown if logprobs is None else _padded(logprobs, rows).masked_fill(~chosen, 0.0),
        lengths=found.lengths,
        thinking_tokens=found.thinking_tokens,
        solution_tokens=found.solution_tokens,
        thinking_cut=found.thinking_cut,
        finish_reason=found.finish_reason,
        initial_phase=torch.tensor([int(phase) for phase in phases], dtype=torch.uint8),
        initial_thinking=torch.zeros(len(rows), dtype=torch.int64),
        ended_at=torch.full((len(rows),), -1, dtype=torch.int64),
        seeds=torch.tensor(list(seeds), dtype=torch.int64),
        prompt_index=torch.tensor(list(prompt_index), dtype=torch.int64),
        prompts=prompts,
        markers=markers,
        eos_ids=tuple(eos_ids),
        pad_id=pad_id,
        tokenizer=tokenizer,
    )


def _padded(values: Sequence[Sequence[float | None]], rows: Sequence[Sequence[int]]) -> Tensor:
    """[R, T] float32 of as many values as each row has tokens; NaN for None.

    Raises:
        ValueError: a row has fewer.
    """
    for row, (own, tokens) in enumerate(zip(values, rows, strict=True)):
        if len(own) < len(tokens):
            raise ValueError(f"logprobs: row {row}: expected {len(tokens)}, one per token, got {len(own)}")
    known = [
        torch.tensor([float("nan") if value is None else value for value in own[: len(row)]])
        for own, row in zip(values, rows, strict=True)
    ]
    return torch.nn.utils.rnn.pad_sequence(known, batch_first=True).float()
