"""One decode step over the slots: force, draw, account, log, run the model.

S slots, n of them in use (the first ones), V vocabulary, W steps of a log window, L cache columns.

Nothing here reads device memory on the host (SPEC R16): the step runs under FakeTensorMode, where such a
read raises, and it works in place on tensors that stay where they are, as a captured graph needs.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elastic import ops
from elastic.budget import Phase, Source
from elastic.rollout.cache import SlotCache
from elastic.sampling import Sampling, draw

WINDOW = 64  # steps between two refreshes of the uniform numbers; also the length of the log


@dataclass
class Slots:
    """What the device knows about the rows in flight. Slot s is row s of every tensor.

    Attributes:
        logits: [S, V] float32 that the next token is drawn from.
        tokens: [S] int64, emitted last.
        positions: [S] int64, cache column of the next token.
        state: [S, 8] int32, budget machine; a free slot is DONE and emits PAD.
        uniform: [S, W] float64, the draws of the steps of this window.
        signal: [2] int32: rows that went on in the last step; draws so far from logits that were broken.
        log_tokens: [W, S] int64; log_source, log_phase: uint8; log_logprobs, log_full: float32.
    """

    logits: Tensor
    tokens: Tensor
    positions: Tensor
    state: Tensor
    uniform: Tensor
    signal: Tensor
    log_tokens: Tensor
    log_source: Tensor
    log_phase: Tensor
    log_logprobs: Tensor
    log_full: Tensor

    @property
    def log(self) -> tuple[Tensor, ...]:
        """In the order of the record's fields: tokens, source, phase, logprobs, full_logprobs."""
        return self.log_tokens, self.log_source, self.log_phase, self.log_logprobs, self.log_full


def new_slots(slots: int, vocab: int, machine: Any, device: torch.device) -> Slots:
    """Free slots."""

    def make(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    return Slots(
        logits=make(slots, vocab, dtype=torch.float32),
        tokens=make(slots, dtype=torch.int64),
        positions=make(slots, dtype=torch.int64),
        state=done_state(slots, machine, device),
        uniform=make(slots, WINDOW, dtype=torch.float64),
        signal=make(2, dtype=torch.int32),
        log_tokens=make(WINDOW, slots, dtype=torch.int64),
        log_source=make(WINDOW, slots, dtype=torch.uint8),
        log_phase=make(WINDOW, slots, dtype=torch.uint8),
        log_logprobs=make(WINDOW, slots, dtype=torch.float32),
        log_full=make(WINDOW, slots, dtype=torch.float32),
    )


def done_state(rows: int, machine: Any, device: torch.device) -> Tensor:
    """[rows, 8] int32 of rows that emit nothing but PAD."""
    phase = torch.full((rows,), int(Phase.DONE), dtype=torch.int32, device=device)
    return ops.new_state(torch.zeros(rows, dtype=torch.int64, device=device), machine, phase=phase)


def emit(slots: Slots, machine: Any, sampling: Sampling, rows: int, entry: int, masks: bool) -> None:
    """Draws a token for each of the first `rows` slots and logs it.

    Args:
        entry: the step's place in the window, 0 .. W-1.
        masks: whether `force_logits_` may mask single tokens (on_reopen="forbid"). Only then the logits are
            copied first: `full_logprobs` are the model's, not the mask's.
    """
    logits, state, tokens = slots.logits[:rows], slots.state[:rows], slots.tokens[:rows]
    unmasked = logits.clone() if masks else None
    ops.force_logits_(logits, state, machine)
    drawn = draw(logits, slots.uniform[:rows, entry], sampling, unmasked)
    # A forced row's logits were overwritten, so what is broken here is a row that had to be sampled.
    broken = drawn.logprobs.isnan()
    slots.signal[1:].add_(broken.sum())
    tokens.copy_(drawn.tokens)
    source = ops.budget_step_(tokens, state, machine, active=slots.signal[:1])
    # An EOS that the machine replaced was drawn, but what was emitted was not. NaN stays: it names the row.
    kept = (source == Source.SAMPLED).logical_or_(broken)
    slots.log_tokens[entry, :rows] = tokens
    slots.log_source[entry, :rows] = source
    slots.log_phase[entry, :rows] = ops.last_phase(state)
    slots.log_logprobs[entry, :rows] = drawn.logprobs.where(kept, 0.0)
    slots.log_full[entry, :rows] = drawn.full_logprobs.where(kept, 0.0)


def forward(model: Any, cache: SlotCache, slots: Slots, rows: int, columns: int) -> None:
    """Runs the model on the tokens of the first `rows` slots and leaves the next logits in the slots.

    Args:
        columns: cache columns that are read: one more than the largest write column of a row in flight.
            Rows that are done may stand beyond; they are held back at the last column.
    """
    positions = slots.positions[:rows].clamp_(max=columns - 1)
    cache.cursor.move(positions, columns)
    column = torch.arange(columns, device=positions.device)
    # Additive, in the keys' dtype: SDPA would convert a boolean mask again in every layer.
    mask = torch.zeros(rows, columns, dtype=cache.dtype, device=positions.device)
    mask.masked_fill_(column > positions[:, None], -torch.inf)
    out = model(
        slots.tokens[:rows, None],
        attention_mask=mask[:, None, None],
        position_ids=positions[:, None],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    slots.logits[:rows] = out.logits[:, -1]
    positions.add_(1)
