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
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from elastic import ops
from elastic.budget import Budget, Phase, Source
from elastic.budget.eos import EosIds
from elastic.budget.markers import Markers
from elastic.models.serving import evaluating, exclusive
from elastic.rollout import RolloutBatch
from elastic.rollout.outcome import Outcome, batch_of
from elastic.rollout.plan.default_markers import default_markers
from elastic.rollout.plan.limits import model_limits
from elastic.rollout.plan.plan import Plan, make_plan
from elastic.rollout.step.slot_sampling import SlotSampling
from elastic.sampling import Sampling


class HFEngine:
    """Decodes with `model.generate`: batches of `max_rows` rows in order, padded on the left.

    A logits processor draws the token (`elastic.ops.sample`, keyed by the row's seed and position) and leaves
    nothing else for `generate` to choose. So rows are those of `RolloutEngine` for the same seeds, as far as
    the logits are. The model's own generation config (penalties, filters) is not applied.

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
                self._decode(plan, rows[first : first + self.max_rows])
                for first in range(0, len(rows), self.max_rows)
            ]
        fields = [_joined([part[i] for part, _ in parts], fill) for i, fill in enumerate(self._fills)]
        state = torch.cat([state for _, state in parts])
        outcome = Outcome(list(rows), fields, state, [-1] * len(rows), [None] * len(rows))
        return batch_of(outcome, plan, self.limits, self.markers, self.tokenizer)

    @property
    def _fills(self) -> tuple[float, ...]:
        """What stands behind a row's end, in the order of the record's fields."""
        return self.limits.pad_id, int(Source.PAD), int(Phase.DONE), 0.0, 0.0

    def _decode(self, plan: Plan, rows: range) -> tuple[list[Tensor], Tensor]:
        """The record's fields of some rows, each [B, T], and their last states, [B, 8]."""
        prompts = [plan.prompts[plan.prompt_index[row]] for row in rows]
        longest, padding = max(map(len, prompts)), self.limits.pad_id
        ids = torch.tensor([[padding] * (longest - len(p)) + p for p in prompts], device=self.device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        draw = _Draw(plan, rows, self.device)
        try:
            with torch.no_grad():
                self.model.generate(
                    ids,
                    attention_mask=mask,
                    max_new_tokens=int(draw.most.max()),
                    logits_processor=LogitsProcessorList([draw]),
                    stopping_criteria=StoppingCriteriaList([_Ended(draw)]),
                )
        except torch.OutOfMemoryError as error:
            raise MemoryError(
                f"max_rows: {len(rows)} rows at a time need more memory than there is"
            ) from error
        fields = [torch.stack(steps, dim=1) for steps in zip(*draw.log, strict=True)]
        behind = torch.arange(fields[0].shape[1], device=self.device) >= draw.most[:, None]
        fields = [field.masked_fill(behind, fill) for field, fill in zip(fields, self._fills, strict=True)]
        broken = fields[3].isnan().any(dim=1)
        if broken.any():
            raise RuntimeError(f"generate: the logits of row {rows[int(broken.nonzero()[0])]} hold NaN")
        return fields, draw.ended


class _Draw(LogitsProcessor):
    """Draws each row's token under its budget and masks every other one.

    Attributes:
        most: [B] int64, tokens after which a row is ended from outside.
        emitted: [B] int64, tokens that each row holds.
        state: [B, 8] int32, of the budget machine.
        ended: [B, 8] int32, the same, no further than `most` tokens.
        log: of each step tokens, source, phase, logprobs and full_logprobs, each [B].
    """

    def __init__(self, plan: Plan, rows: range, device: torch.device):
        self._machine = plan.machine.to(device)
        self._seeds = torch.tensor([plan.seeds[row] for row in rows], device=device)
        self._sampling = SlotSampling([plan.samplings[row] for row in rows], len(rows), device)
        self._sampling.admit(*[torch.arange(len(rows), device=device)] * 2)
        self.most = torch.tensor([plan.most[row] for row in rows], device=device)
        self.emitted = torch.zeros_like(self.most)
        self.state = plan.state[list(rows)].to(device)
        self.ended = self.state.clone()
        self.log: list[tuple[Tensor, ...]] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        out = ops.sample(
            *(scores, self._seeds, self.emitted, *self._sampling.of(len(scores))),
            state=self.state,
            machine=self._machine,
        )
        assert out.source is not None  # a state was given; mypy cannot follow it
        assert out.phase is not None
        self.emitted += 1
        self.ended = torch.where((self.emitted <= self.most)[:, None], self.state, self.ended)
        self.log.append((out.tokens, out.source, out.phase, out.logprobs, out.full_logprobs))
        return torch.full_like(scores, -torch.inf).scatter_(1, out.tokens[:, None], 0.0)


class _Ended(StoppingCriteria):
    """Which rows have ended, by their budgets or from outside."""

    def __init__(self, draw: _Draw):
        self._draw = draw

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        return ops.is_done(self._draw.state) | (self._draw.emitted >= self._draw.most)


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
