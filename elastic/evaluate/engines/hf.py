"""`generate` of transformers under budgets: the own engine's tokens, by another decoder.

R rows of a call, B of a batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from elastic.budget import Budget
from elastic.budget.eos import EosIds
from elastic.budget.markers import Markers
from elastic.integrations.transformers.draw import BudgetStoppingCriteria, TokenDraw, fills_of
from elastic.models.serving import evaluating, exclusive
from elastic.rollout import RolloutBatch
from elastic.rollout.outcome import Outcome, batch_of
from elastic.rollout.plan.default_markers import default_markers
from elastic.rollout.plan.limits import model_limits
from elastic.rollout.plan.plan import Plan, make_plan
from elastic.sampling import Sampling


class HFEngine:
    """Decodes with `model.generate`: batches of `max_rows` rows in order, padded on the left.

    `TokenDraw` draws the tokens, so rows are those of `RolloutEngine` for the same seeds, as far as the
    logits are. The model's own generation config (penalties, filters) is not applied.

    Args:
        model: a causal Hugging Face model on its device, with any attention that `generate` can run.
        tokenizer: its tokenizer.
        markers: thinking markers; by default as for `RolloutEngine`.
        max_rows: rows of a `generate` call.
        eos_ids: as for `RolloutEngine`.
        max_length: as for `RolloutEngine`.

    Raises:
        TypeError, ValueError: a tokenizer or markers that do not belong to the model, or `max_rows` below 1.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        markers: Markers | None = None,
        max_rows: int = 64,
        *,
        eos_ids: EosIds = None,
        max_length: int | None = None,
    ):
        if not isinstance(max_rows, int) or isinstance(max_rows, bool) or max_rows < 1:
            raise ValueError(f"max_rows: expected an integer from 1, got {max_rows!r}")
        self.model, self.tokenizer, self.max_rows = model, tokenizer, max_rows
        self.markers = default_markers(tokenizer) if markers is None else markers
        self.limits = model_limits(model, tokenizer, self.markers, eos_ids, max_length)
        self.device = next(model.parameters()).device

    def generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        budget: Budget | Sequence[Budget] | None = None,
        samples_per_prompt: int = 1,
        sampling: Sampling | Sequence[Sampling] | None = None,
        max_new_tokens: int | None = None,
        seeds: Sequence[int] | Tensor | None = None,
        progress: bool | None = None,
        *,
        add_special_tokens: bool | None = None,
        phase: Any = None,
    ) -> RolloutBatch:
        """As `RolloutEngine.generate`; `progress` is not shown.

        Raises:
            MemoryError: the rows of one `generate` call do not fit the GPU's memory.
        """
        plan = make_plan(
            *(prompts, budget, samples_per_prompt, sampling, max_new_tokens, seeds),
            tokenizer=self.tokenizer,
            markers=self.markers,
            limits=self.limits,
            add_special_tokens=add_special_tokens,
            phase=phase,
        )
        rows = range(len(plan.most))
        with exclusive(self.model), evaluating(self.model), _plain(self.model, self.limits.pad_id):
            parts = [
                self._decode(plan.select(rows[first : first + self.max_rows]))
                for first in range(0, len(rows), self.max_rows)
            ]
        fills = fills_of(self.limits.pad_id)
        fields = [_joined([part[i] for part, _ in parts], fill) for i, fill in enumerate(fills)]
        state = torch.cat([state for _, state in parts])
        outcome = Outcome(list(rows), fields, state, [-1] * len(rows), [None] * len(rows))
        return batch_of(outcome, plan, self.limits, self.markers, self.tokenizer)

    def _decode(self, plan: Plan) -> tuple[list[Tensor], Tensor]:
        """The record's fields of some rows, each [B, T], and their last states, [B, 8]."""
        draw = TokenDraw(plan, self.limits.pad_id, self.device)
        try:
            with torch.no_grad():
                self.model.generate(
                    draw.input_ids,
                    attention_mask=draw.attention_mask,
                    max_new_tokens=int(draw.most.max()),
                    logits_processor=LogitsProcessorList([draw]),
                    stopping_criteria=StoppingCriteriaList([BudgetStoppingCriteria(draw)]),
                )
        except torch.OutOfMemoryError as error:
            raise MemoryError(
                f"max_rows: {len(plan.most)} rows at a time need more memory than there is"
            ) from error
        return draw.outcome()


@contextmanager
def _plain(model: Any, pad_id: int) -> Iterator[None]:
    """The model without its own generation config, whose penalties and end tokens `generate` would apply."""
    own = model.generation_config
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=pad_id)
    try:
        yield
    finally:
        model.generation_config = own


def _joined(parts: Sequence[Tensor], fill: float) -> Tensor:
    """Rows of several batches, [R, T]."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([pad(part, (0, width - part.shape[1]), value=fill) for part in parts])
