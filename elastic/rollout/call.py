"""One call of the engine: what it has for itself while it runs, and what becomes of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from elastic.budget.markers import Markers
from elastic.models.serving import lent
from elastic.rollout.attention.slot_attention import SlotAttention
from elastic.rollout.cache.memory import KVMemory
from elastic.rollout.cache.pooling import Pooling
from elastic.rollout.decode import Decoder
from elastic.rollout.outcome import batch_of
from elastic.rollout.plan.limits import Limits
from elastic.rollout.plan.plan import Plan
from elastic.rollout.plan.starts import never_thought
from elastic.rollout.record.batch import RolloutBatch
from elastic.rollout.schedule.pools import Pool
from elastic.rollout.step.poll import Poll
from elastic.rollout.step.stepper import Stepper
from elastic.rollout.watch import Watch

_BAR_DELAY_S = 2.0  # a run that is over by then needs no bar


class Lent(NamedTuple):
    """What a call has for itself while it runs."""

    stepper: Stepper
    bar: tqdm
    memory: KVMemory
    pools: list[Pool]


@dataclass(frozen=True)
class Call:
    """A call that has been checked.

    Attributes:
        plan: its rows.
        slots: rows decoded together.
        refill: free slots that start a refill.
        watch: what reads tokens, or None.
        bar: makes the progress bar.
    """

    model: Any
    tokenizer: Any
    markers: Markers
    limits: Limits
    device: torch.device
    attention: SlotAttention
    pooling: Pooling
    stepper: Stepper
    plan: Plan
    slots: int
    refill: int
    poll: Poll
    watch: Watch | None
    bar: Callable[[], tqdm]

    @contextmanager
    def lend(self) -> Iterator[Lent]:
        """The model and what belongs to it, for this thread alone."""
        with lent(self.model):
            with torch.inference_mode():
                memory, pools = self.pooling.fitting(self.plan.needs, self.slots, self.stepper.held_bytes)
            with (
                self.attention.stepping(self.model),
                self.stepper.lend() as stepper,
                self.bar() as bar,
            ):
                yield Lent(stepper, bar, memory, pools)

    def begin(self, to: Lent) -> Decoder:
        """The decoder of all rows, at its start."""
        schedule = self.plan.schedule(to.pools, self.refill, to.stepper.rows)
        return Decoder(
            *(self.model, self.plan, schedule, self.limits, self.device, to.memory, to.stepper),
            *(self.poll, self.watch, to.bar, self.attention),
        )

    def batch(self, decoder: Decoder, rows: Sequence[int] | None = None) -> RolloutBatch:
        """The record of all rows, or of some that have ended alone."""
        outcome, alone = decoder.outcome(rows), rows is not None
        return batch_of(outcome, self.plan, self.limits, self.markers, self.tokenizer, alone=alone)

    def remark(self, batch: RolloutBatch) -> str | None:
        """A warning about the whole batch, or None."""
        budgets = [self.plan.machine.budgets[i] for i in self.plan.budget_index.tolist()]
        return never_thought(batch, self.plan.starts, budgets)


def progress_bar(rows: int, shown: bool | None) -> tqdm:
    """A bar over rows; with `shown=None` it appears on a terminal once a run takes two seconds."""
    hidden = not sys.stderr.isatty() if shown is None else not shown
    return tqdm(total=rows, desc="rollout", unit="row", disable=hidden, delay=0 if shown else _BAR_DELAY_S)
