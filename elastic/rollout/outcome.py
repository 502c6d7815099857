"""From what the decode loop leaves behind to the record of its rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from elastic import ops
from elastic.budget import FinishReason, Source
from elastic.budget.markers import Markers
from elastic.rollout.plan.limits import Limits
from elastic.rollout.plan.plan import Plan
from elastic.rollout.record.batch import RolloutBatch
from elastic.rollout.record.kept import KeptSets


class Outcome(NamedTuple):
    """R rows that have ended, T tokens of the longest.

    Attributes:
        rows: their indices in the plan.
        fields: tokens, source, phase, logprobs, full_logprobs, each [R, T].
        state: [R, 8] int32.
        ended_at: of each row, its tokens when its thinking was ended from outside, -1 for never.
        reasons: of each row, why it ended where that was from outside of its budget, else None.
        kept: the tokens' kept sets; None where none are recorded.
    """

    rows: list[int]
    fields: list[Tensor]
    state: Tensor
    ended_at: list[int]
    reasons: list[FinishReason | None]
    kept: KeptSets | None = None


def batch_of(
    outcome: Outcome, plan: Plan, limits: Limits, markers: Markers, tokenizer: Any, *, alone: bool = False
) -> RolloutBatch:
    """The record of these rows.

    Args:
        alone: whether the batch has the prompts of these rows only; else all of the plan, whose numbers they
            keep.
    """
    # Copies made outside of inference mode are ordinary tensors, which autograd takes.
    tokens, source, phase, logprobs, full_logprobs = (field.clone() for field in outcome.fields)
    state, device = outcome.state.clone(), outcome.state.device
    reason = ops.finish_reason(state)
    reason = reason.masked_fill(reason == FinishReason.RUNNING, int(FinishReason.LENGTH))
    outside = torch.tensor([int(own or 0) for own in outcome.reasons], dtype=reason.dtype, device=device)
    reason = torch.where(outside > 0, outside, reason)
    prompt_index = [plan.prompt_index[row] for row in outcome.rows]
    used = sorted(set(prompt_index)) if alone else range(len(plan.prompts))
    place = {k: i for i, k in enumerate(used)}
    return RolloutBatch(
        tokens=tokens,
        source=source,
        phase=phase,
        logprobs=logprobs,
        full_logprobs=full_logprobs,
        lengths=(source != Source.PAD).sum(dim=1),
        thinking_tokens=ops.thinking_used(state).long(),
        solution_tokens=ops.solution_used(state).long(),
        thinking_cut=ops.thinking_cut(state),
        finish_reason=reason.to(torch.uint8),
        initial_phase=plan.phases[outcome.rows].to(device, torch.uint8),
        initial_thinking=plan.thinking_used[outcome.rows].to(device),
        ended_at=torch.tensor(outcome.ended_at, dtype=torch.int64, device=device),
        seeds=torch.tensor([plan.seeds[row] for row in outcome.rows], device=device),
        prompt_index=torch.tensor([place[k] for k in prompt_index], device=device),
        prompts=[plan.prompts[k] for k in used],
        markers=markers,
        eos_ids=limits.eos_ids,
        pad_id=limits.pad_id,
        run_seed=plan.run_seed,
        stop=plan.stop,
        dropped={} if alone else dict(plan.dropped),
        kept=outcome.kept,
        tokenizer=tokenizer,
    )
