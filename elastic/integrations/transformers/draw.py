"""The draw of each row's token under its budget, as a logits processor of `generate`.

R rows of a call, L tokens of the longest prompt, T of the longest completion, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from elastic import ops
from elastic.budget import Phase, Source
from elastic.rollout.plan.plan import Plan
from elastic.rollout.step.slot_sampling import SlotSampling


class TokenDraw(LogitsProcessor):
    """Draws each row's token (`elastic.ops.sample`) and masks every other one.

    So nothing is left for `generate` to choose, and a row is that of `RolloutEngine` for the same seed, as
    far as the logits are. It serves one call of `generate`, which takes one token of every row a step.

    Args:
        plan: the rows.
        pad_id: what finished rows emit.
        device: of the scores: that of the ids which `generate` is given.

    Attributes:
        input_ids, attention_mask: [R, L] int64, the prompts padded on the left.
        most: [R] int64, tokens after which a row is ended from outside.
        emitted: tokens that each row holds.
        state: [R, 8] int32, of the budget machine.
    """

    def __init__(self, plan: Plan, pad_id: int, device: torch.device):
        if any(sampling.recorded for sampling in plan.samplings):
            raise ValueError("most_kept: expected 0: RolloutEngine and VLLMEngine alone record kept sets")
        self.plan, self._pad_id = plan, pad_id
        prompts = [plan.prompts[k] for k in plan.prompt_index]
        rows, longest = len(prompts), max(map(len, prompts))
        self.input_ids = torch.tensor([[pad_id] * (longest - len(p)) + p for p in prompts], device=device)
        self.attention_mask = torch.tensor(
            [[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device
        )
        self._machine = plan.machine.to(device)
        self._seeds = torch.tensor(plan.seeds, device=device)
        self._sampling = SlotSampling(plan.samplings, rows, device)
        self._sampling.admit(*[torch.arange(rows, device=device)] * 2)
        self.most = torch.tensor(plan.most, device=device)
        self.emitted = 0
        self.state = plan.state.to(device, copy=True)
        self._ended = self.state.clone()  # no further than `most` tokens
        self._log: list[tuple[Tensor, ...]] = []  # of each step the record's fields, each [R]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Draws.

        Args:
            input_ids: [R, L + emitted] int64, prompts and what was drawn so far.
            scores: [R, V] float32, after what the generation config puts in front (penalties, bad words).

        Returns:
            [R, V] float32, 0 at the token drawn and -inf elsewhere.

        Raises:
            ValueError: the rows are not those of this call: other prompts, a second call, beam search,
                assisted decoding; or `generate` wrote another token than the one drawn.
        """
        self._check(input_ids)
        positions = torch.full_like(self.most, self.emitted)
        out = ops.sample(
            *(scores, self._seeds, positions, *self._sampling.of(len(scores))),
            state=self.state,
            machine=self._machine,
        )
        assert out.source is not None  # a state was given; mypy cannot follow it
        assert out.phase is not None
        self.emitted += 1
        self._ended = torch.where((self.emitted <= self.most)[:, None], self.state, self._ended)
        self._log.append((out.tokens, out.source, out.phase, out.logprobs, out.full_logprobs))
        return torch.full_like(scores, -torch.inf).scatter_(1, out.tokens[:, None], 0.0)

    @property
    def done(self) -> Tensor:
        """[R] bool, which rows have ended, by their budgets or from outside."""
        return ops.is_done(self.state) | (self.emitted >= self.most)

    def outcome(self) -> tuple[list[Tensor], Tensor]:
        """The record's fields, each [R, T], and the rows' last states, [R, 8].

        Raises:
            RuntimeError: the logits of a row hold NaN.
        """
        fields = [torch.stack(steps, dim=1) for steps in zip(*self._log, strict=True)]
        behind = torch.arange(fields[0].shape[1], device=self.most.device) >= self.most[:, None]
        fills = fills_of(self._pad_id)
        fields = [field.masked_fill(behind, fill) for field, fill in zip(fields, fills, strict=True)]
        broken = fields[3].isnan().any(dim=1)
        if broken.any():
            raise RuntimeError(f"generate: the logits of row {int(broken.nonzero()[0])} hold NaN")
        return fields, self._ended

    def _check(self, input_ids: Tensor) -> None:
        """That these are the rows and hold what was drawn; `generate` itself waits for the device too."""
        rows, longest = self.input_ids.shape
        if tuple(input_ids.shape) != (rows, longest + self.emitted):
            raise ValueError(
                f"input_ids: expected {rows} rows of {longest + self.emitted} tokens, {self.emitted} of them "
                f"drawn, got {list(input_ids.shape)}: a processor serves one call of generate, one token of "
                "every row a step; make a new one for each call, without beam search (num_beams), assisted "
                "decoding (assistant_model, prompt_lookup_num_tokens) or contrastive search"
            )
        if self.emitted == 0:
            same = (input_ids == self.input_ids) | (self.attention_mask == 0)
            expected = "the prompts that the processor was made for"
        else:
            tokens, source, *_ = self._log[-1]
            idle = (source == Source.PAD) | (self.emitted > self.most)  # `generate` may pad with another id
            same = ((input_ids[:, -1] == tokens) | idle)[:, None]
            expected = "the token drawn; another processor, stop string or EOS id has changed it"
        if not same.all():
            row = int((~same).any(dim=1).nonzero()[0])
            raise ValueError(
                f"input_ids: row {row}: expected {expected}, got {input_ids[row, -1].tolist()} last"
            )


class BudgetStoppingCriteria(StoppingCriteria):
    """Which rows have ended, by their budgets or from outside: [R] bool.

    Args:
        draw: the processor beside it.
    """

    def __init__(self, draw: TokenDraw):
        self._draw = draw

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        return self._draw.done


def fills_of(pad_id: int) -> tuple[float, ...]:
    """What stands behind a row's end, in the order of the record's fields."""
    return pad_id, int(Source.PAD), int(Phase.DONE), 0.0, 0.0
