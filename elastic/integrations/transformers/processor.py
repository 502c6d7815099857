"""Budgets for plain `model.generate`: what to pass to it, and the record of what it wrote.

K prompts, R rows, L tokens of the longest prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

from elastic import ops
from elastic.budget import Budget, Phase
from elastic.budget.eos import EosIds
from elastic.budget.markers import Markers
from elastic.integrations.transformers.draw import BudgetStoppingCriteria, TokenDraw
from elastic.rollout import RolloutBatch
from elastic.rollout.outcome import Outcome, batch_of
from elastic.rollout.plan.default_markers import default_markers
from elastic.rollout.plan.limits import model_limits
from elastic.rollout.plan.plan import make_plan
from elastic.rollout.plan.starts import PhaseName
from elastic.rollout.record.indices import row_index
from elastic.sampling import Sampling


class BudgetLogitsProcessor(TokenDraw):
    """Budgets of one call of `model.generate`:

        inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
        processor = BudgetLogitsProcessor(model, tokenizer, inputs, Budget(512, 256))
        sequences = model.generate(**inputs, **processor.arguments())
        processor.batch.solution(0)

    It draws the tokens itself, by `sampling`: an EOS or an early end that the budget replaces (R6, R11) is
    replaced when it is drawn, which a processor of scores alone could not see. Temperature and filters of the
    generation config do nothing behind it; penalties and bad words act before it.

    Args:
        model: a causal Hugging Face model.
        tokenizer: its tokenizer.
        inputs: what `generate` is given: `input_ids` [K, L] and, where prompts are padded, `attention_mask`
            [K, L]. Padding stands on the left.
        budget: one for all, one per prompt, or one per row.
        samples_per_prompt: `num_return_sequences`; rows are numbered prompt by prompt.
        sampling, max_new_tokens, seeds, phase, thinking_used: as for `RolloutEngine.generate`.
        markers, eos_ids, max_length: as for `RolloutEngine`.

    Raises:
        TypeError, ValueError: naming the argument, its value and the limit; `OutOfContext` where a prompt and
            its budget do not fit the model's context.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        inputs: Mapping[str, Tensor],
        budget: Budget | Sequence[Budget] | None = None,
        samples_per_prompt: int = 1,
        sampling: Sampling | Sequence[Sampling] | None = None,
        max_new_tokens: int | None = None,
        seeds: Sequence[int] | Tensor | None = None,
        *,
        phase: PhaseName | Sequence[PhaseName | None] | None = None,
        thinking_used: int | Sequence[int] | Tensor | None = None,
        markers: Markers | None = None,
        eos_ids: EosIds = None,
        max_length: int | None = None,
    ):
        prompts = prompts_of(inputs)
        self._tokenizer = tokenizer
        self._markers = default_markers(tokenizer) if markers is None else markers
        self._limits = model_limits(model, tokenizer, self._markers, eos_ids, max_length)
        plan = make_plan(
            *(prompts, budget, samples_per_prompt, sampling, max_new_tokens, seeds),
            tokenizer=tokenizer,
            markers=self._markers,
            limits=self._limits,
            phase=phase,
            thinking_used=thinking_used,
        )
        super().__init__(plan, self._limits.pad_id, inputs["input_ids"].device)
        self._samples = samples_per_prompt
        self._ended_at = [-1] * len(self.most)

    def arguments(self) -> dict[str, Any]:
        """What `generate` is given beside `inputs`: the processor, its stopping criterion, their limits."""
        return {
            "logits_processor": LogitsProcessorList([self]),
            "stopping_criteria": StoppingCriteriaList([BudgetStoppingCriteria(self)]),
            "max_new_tokens": int(self.most.max()),
            "num_return_sequences": self._samples,
            "num_beams": 1,
            "do_sample": True,  # of one token that is left; greedy decoding refuses several sequences
            "eos_token_id": list(self._limits.eos_ids) or None,
            "pad_token_id": self._limits.pad_id,
        }

    def end_thinking(self, row: int) -> None:
        """Ends the thinking of a row with its next token (R22), from a streamer or a stopping criterion, say.

        A row that no longer thinks goes on as it is.

        Raises:
            IndexError: no such row.
        """
        index = row_index(row, len(self.most))
        phase = int(ops.state_phase(self.state[index : index + 1]))
        ops.end_thinking_(self.state, [index])
        if phase in (Phase.OPENING, Phase.THINKING, Phase.NOTICE) and self._ended_at[index] < 0:
            self._ended_at[index] = self.emitted

    @property
    def batch(self) -> RolloutBatch:
        """The record of the rows: tokens, sources, phases, logprobs, finish reasons.

        Raises:
            RuntimeError: `generate` has not run, or it ended before the budgets did.
        """
        running = (~self.done).nonzero()
        if len(running):
            row = int(running[0])
            raise RuntimeError(
                f"batch: row {row} has {self.emitted} tokens and goes on to {int(self.most[row])}: generate "
                "has not run, or ended before the budget did; pass it arguments(), which has max_new_tokens="
                f"{int(self.most.max())}"
            )
        fields, state = self.outcome()
        rows = list(range(len(self.most)))
        outcome = Outcome(rows, fields, state, self._ended_at, [None] * len(rows))
        return batch_of(outcome, self.plan, self._limits, self._markers, self._tokenizer)


def prompts_of(inputs: Mapping[str, Tensor]) -> list[list[int]]:
    """The ids of each prompt, without padding.

    Raises:
        TypeError: no mapping with `input_ids`.
        ValueError: a shape that `generate` does not take, or padding that is not on the left.
    """
    if not isinstance(inputs, Mapping) or not isinstance(inputs.get("input_ids"), Tensor):
        raise TypeError(f"inputs: expected a mapping with the tensor input_ids, got {type(inputs).__name__}")
    ids = inputs["input_ids"]
    mask = inputs.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    if ids.dim() != 2 or mask.shape != ids.shape:
        raise ValueError(
            f"inputs: expected input_ids and attention_mask [K, L], got {list(ids.shape)} and "
            f"{list(mask.shape)}"
        )
    gaps = (mask.diff(dim=1) < 0).any(dim=1) | (mask[:, -1:] == 0).any(dim=1)
    if gaps.any():
        row = int(gaps.nonzero()[0])
        raise ValueError(
            f'inputs: prompt {row}: expected padding on the left; tokenize with padding_side="left"'
        )
    return [own[kept.bool()].tolist() for own, kept in zip(ids, mask, strict=True)]
