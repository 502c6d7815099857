"""One decode step over the slots: draw under the budget, log, run the model.

S slots, n of them in use (the first ones), V vocabulary, W steps of a log window, L cache columns, K ids that
are kept of a token at most.

Nothing here reads device memory on the host (SPEC R16): the step runs under FakeTensorMode, where such a
read raises, and it works in place on tensors that stay where they are, as a captured graph needs.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elastic import ops
from elastic.budget import Phase
from elastic.budget.machine import Machine
from elastic.rollout.attention.slot_attention import MASKED, SlotAttention, SlotReads
from elastic.rollout.cache.slot_cache import CACHE_ARGUMENT, SlotCache
from elastic.rollout.step.slot_sampling import SlotSampling

WINDOW = 64  # steps that the log holds


@dataclass
class Slots:
    """What the device knows about the rows in flight. Slot s is row s of every tensor.

    Attributes:
        logits: [S, V] float32 that the next token is drawn from.
        tokens: [S] int64, emitted last.
        positions: [S] int64, cache column of the next token.
        state: [S, 8] int32, budget machine; a free slot is DONE and emits PAD.
        seeds: [S] int64, of each row's random numbers.
        emitted: [S] int64, tokens that each row's completion holds, the counter of its random numbers.
        signal: [2] int32: rows that went on in the last step; 0, or 1 + a slot whose logits were unusable.
        entry: [1] int64, 0 .. W-1, of the next step in the log, where the device counts (see `emit`).
        log_tokens: [W, S] int64; log_source, log_phase: uint8; log_logprobs, log_full: float32.
        log_kept_counts: [W, S] int32; log_kept_ids: [W, S, K] int32, K = 0 where none are recorded.
    """

    logits: Tensor
    tokens: Tensor
    positions: Tensor
    state: Tensor
    seeds: Tensor
    emitted: Tensor
    signal: Tensor
    entry: Tensor
    log_tokens: Tensor
    log_source: Tensor
    log_phase: Tensor
    log_logprobs: Tensor
    log_full: Tensor
    log_kept_counts: Tensor
    log_kept_ids: Tensor

    @property
    def log(self) -> tuple[Tensor, ...]:
        """In the order of the record's fields: tokens, source, phase, logprobs, full_logprobs; kept sets."""
        fields = (self.log_tokens, self.log_source, self.log_phase, self.log_logprobs, self.log_full)
        return (*fields, self.log_kept_counts, self.log_kept_ids) if self.most_kept else fields

    @property
    def most_kept(self) -> int:
        """K."""
        return self.log_kept_ids.shape[2]


def new_slots(slots: int, vocab: int, machine: Machine, device: torch.device, most_kept: int = 0) -> Slots:
    """Free slots."""

    def make(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    return Slots(
        logits=make(slots, vocab, dtype=torch.float32),
        tokens=make(slots, dtype=torch.int64),
        positions=make(slots, dtype=torch.int64),
        state=done_state(slots, machine, device),
        seeds=make(slots, dtype=torch.int64),
        emitted=make(slots, dtype=torch.int64),
        signal=make(2, dtype=torch.int32),
        entry=make(1, dtype=torch.int64),
        log_tokens=make(WINDOW, slots, dtype=torch.int64),
        log_source=make(WINDOW, slots, dtype=torch.uint8),
        log_phase=make(WINDOW, slots, dtype=torch.uint8),
        log_logprobs=make(WINDOW, slots, dtype=torch.float32),
        log_full=make(WINDOW, slots, dtype=torch.float32),
        log_kept_counts=make(WINDOW, slots, dtype=torch.int32),
        log_kept_ids=make(WINDOW, slots, most_kept, dtype=torch.int32),
    )


def kept_set_bytes(slots: int, most_kept: int) -> int:
    """Bytes that kept sets take of the log window and, while a step is drawn, beside it."""
    return (WINDOW + 1) * slots * (most_kept + 1) * 4 if most_kept else 0


def done_state(rows: int, machine: Machine, device: torch.device) -> Tensor:
    """[rows, 8] int32 of rows that emit nothing but PAD."""
    phase = torch.full((rows,), int(Phase.DONE), dtype=torch.int32, device=device)
    return ops.new_state(torch.zeros(rows, dtype=torch.int64, device=device), machine, phase=phase)


def emit(slots: Slots, machine: Machine, sampling: SlotSampling, rows: int, entry: int | None = None) -> None:
    """Draws a token for each of the first `rows` slots, takes their budget step and logs both.

    Args:
        entry: the step's place in the window, 0 .. W-1. None takes `slots.entry` and moves it on: a recorded
            step would log at the same number for ever.
    """
    emitted = slots.emitted[:rows]
    out = ops.sample(
        slots.logits[:rows],
        slots.seeds[:rows],
        emitted,
        *sampling.of(rows),
        state=slots.state[:rows],
        machine=machine,
        most_kept=slots.most_kept,
        active=slots.signal[:1],
        broken=slots.signal[1:],
    )
    assert out.source is not None  # a state was given; mypy cannot follow it
    assert out.phase is not None
    emitted.add_(1)
    slots.tokens[:rows] = out.tokens
    # Logprobs are NaN where logits were unusable: that names the row.
    values = [out.tokens, out.source, out.phase, out.logprobs, out.full_logprobs]
    if out.kept_counts is not None and out.kept_ids is not None:
        values += [out.kept_counts, out.kept_ids]
    for part, value in zip(slots.log, values, strict=True):
        if entry is None:
            part[:, :rows].index_copy_(0, slots.entry, value[None])
        else:
            part[entry, :rows] = value
    if entry is None:
        slots.entry.add_(1).remainder_(WINDOW)


def forward(
    model: Any, cache: SlotCache, slots: Slots, rows: int, columns: int, attention: SlotAttention = MASKED
) -> None:
    """Runs the model on the tokens of the first `rows` slots and leaves the next logits in the slots.

    Args:
        columns: cache columns that are read: one more than the largest write column of a row in flight.
            Rows that are done may stand beyond; the cursor holds them back at the last column. An attention
            by lengths is given all columns, so that their number does not change from step to step.
        attention: of the rows over their slots; the model is within its `stepping`.
    """
    if attention.by_lengths:
        columns = cache.capacity
    positions = slots.positions[:rows]
    cache.cursor.move(positions, columns)
    lengths = positions + 1
    reads = SlotReads(attention, lengths.int() if attention.by_lengths else lengths, columns, cache.dtype)
    out = model(
        slots.tokens[:rows, None],
        position_ids=positions[:, None],
        use_cache=True,
        logits_to_keep=1,
        **{CACHE_ARGUMENT: cache},
        **reads.arguments(),
    )
    slots.logits[:rows] = out.logits[:, -1]
    positions.add_(1)
