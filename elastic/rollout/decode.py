"""The decode loop on the device: prefill, steps, and the log that becomes the record.

R rows, S slots of which the first n are in use, W steps of a log window, T columns of the record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from tqdm import tqdm

from elastic import ops
from elastic.budget import FinishReason, Phase
from elastic.rollout.attention.slot_attention import MASKED, SlotAttention
from elastic.rollout.cache.memory import KVMemory
from elastic.rollout.cache.prefill import prefill_all
from elastic.rollout.cache.slot_cache import NoRoom, Prefix, SlotCache
from elastic.rollout.log import Log
from elastic.rollout.outcome import Outcome
from elastic.rollout.plan.limits import Limits
from elastic.rollout.plan.plan import Plan
from elastic.rollout.record.buffer import RecordBuffer
from elastic.rollout.schedule.pools import Pool
from elastic.rollout.schedule.schedule import Schedule
from elastic.rollout.step.compiled import expected_steps
from elastic.rollout.step.poll import Poll
from elastic.rollout.step.step import WINDOW, done_state, emit
from elastic.rollout.step.stepper import Stepper
from elastic.rollout.watch import Step, Token, Watch


class Decoder:
    """One call of the engine: does on the device what its `Schedule` says.

    Args:
        plan: the rows.
        schedule: of the plan's rows, at its start.
        memory: of the model on the device.
        stepper: how steps are taken; lent for this call.
        poll: when and how completion is looked at.
        watch: reads what rows emit, whenever completion is looked at; None for nobody.
        bar: progress over rows.
        attention: of the rows over their slots.
    """

    def __init__(
        self,
        model: Any,
        plan: Plan,
        schedule: Schedule,
        limits: Limits,
        device: torch.device,
        memory: KVMemory,
        stepper: Stepper,
        poll: Poll,
        watch: Watch | None,
        bar: tqdm,
        attention: SlotAttention = MASKED,
    ):
        rows, slots = len(plan.most), schedule.used
        self._model, self._plan, self._schedule, self._device = model, plan, schedule, device
        self._memory, self._stepper, self._poll = memory, stepper, poll
        self._watch, self._bar, self._attention = watch, bar, attention
        steps = expected_steps(plan.needs.tokens, slots)
        opened = stepper.open(slots, limits.vocab, plan.machine, plan.samplings, device, steps)
        self._slots, self._machine, self._sampling = opened
        self._cache: SlotCache | None = None
        self._prefixes: dict[int, Prefix] = {}
        self._first_state = plan.state.to(device, copy=True)  # a row's thinking may be ended while it waits
        self._final_state = done_state(rows, self._machine, device)
        self._done_state = self._final_state[:1].clone()
        self._seeds, self._begun = torch.tensor([plan.seeds, plan.begun], dtype=torch.int64, device=device)
        self._record = RecordBuffer(rows, schedule.first_tokens, schedule.most_tokens, limits.pad_id, device)
        self._log = Log(self._slots, schedule, self._record, watch)
        self._wishes: deque[tuple[Callable[[int], None], int]] = deque()
        self._ended_at = [-1] * rows
        self._reasons: dict[int, FinishReason] = {}  # of rows that were ended from outside
        self._stopped: list[int] = []  # rows that went on behind their stop string
        self._tokens: list[Token] = []
        self._ended: list[int] = []

    def steps(self) -> Iterator[Step]:
        """Decodes every row, step by step.

        Raises:
            RuntimeError: a row's logits held NaN or +inf, or nothing but -inf; names row and prompt.
        """
        schedule = self._schedule
        self._obey()
        while schedule.busy:
            self._change_slots()
            entry = schedule.step % WINDOW
            schedule.step += 1
            whole = self._stepper.records  # then looks come behind the forward, which is part of the step
            if whole:
                self._stepper.step(self._grown_cache(), schedule.used, schedule.columns)
            else:
                emit(self._slots, self._machine, self._sampling, schedule.used, entry)
            self._finish_rows()
            yield self._news()
            self._obey()
            if schedule.alive and not whole:
                self._stepper.forward(self._grown_cache(), schedule.used, schedule.columns)
            if schedule.step % WINDOW == 0:
                self._log.flush()
        self._log.flush()
        if self._watch is not None:
            self._look(self._watch, rest=True)
        if self._poll.broken(self._slots):
            self._raise_broken()
        self._take_back()
        self._stepper.finish()
        yield self._news()

    def end_thinking(self, row: int) -> None:
        """Ends the thinking of a row with its next token, also of one that waits (R22). From any thread."""
        self._wishes.append((self._end_thinking, row))

    def cancel(self, row: int) -> None:
        """Ends a row where it is, also one that waits, before the next step. From any thread."""
        self._wishes.append((self._cancel, row))

    def outcome(self, rows: Sequence[int] | None = None) -> Outcome:
        """What the record says of all rows, or of some that have ended."""
        index = slice(None) if rows is None else torch.tensor(rows, device=self._device)
        listed = list(range(len(self._ended_at)) if rows is None else rows)
        fields = self._record.fields(rows)
        return Outcome(
            listed,
            fields,
            self._final_state[index],
            [self._ended_at[row] for row in listed],
            [self._reasons.get(row) for row in listed],
            self._record.kept(listed, fields),
        )

    def _grown_cache(self) -> SlotCache:
        """The cache, with the columns that the step needs."""
        assert self._cache is not None
        columns, most = self._schedule.columns, self._schedule.most_columns
        if columns > self._cache.capacity:
            self._grow(min(2 * columns, most))
        return self._cache

    # Memory of the slots

    def _allocated(self, like: Prefix) -> SlotCache:
        needs, pools = self._plan.needs, self._schedule.pools
        self._memory.check(needs, pools, self._stepper.held_bytes)
        try:
            return self._stepper.cache(like, pools)
        except NoRoom as error:
            raise self._memory.error(needs, pools, error.given) from error

    def _grow(self, columns: int) -> None:
        """Gives the slots of the last pool more columns: for rows without a budget, which lie there."""
        assert self._cache is not None
        pools = [*self._schedule.pools[:-1], Pool(self._schedule.pools[-1].slots, columns)]
        needs, held = self._plan.needs.grown(columns), self._cache.bytes
        # Old and new keys of a layer are there together while they are copied.
        self._memory.check(needs, pools, held - held // len(self._cache.slot_layers) // 2)
        try:
            self._cache.grow(columns)
        except NoRoom as error:
            raise self._memory.error(needs, pools, error.given) from error

    # Slots change hands

    def _change_slots(self) -> None:
        slots = self._schedule.refill()
        if slots:
            self._log.flush()
            self._admit(slots)
        elif self._schedule.sparse:
            self._log.flush()
            self._compact()

    def _admit(self, slots: list[int]) -> None:
        rows = self._schedule.admit(slots)
        by_prompt: dict[int, list[int]] = {}
        for row, slot in zip(rows, slots, strict=True):
            by_prompt.setdefault(self._plan.prompt_index[row], []).append(slot)
        missing = {k: self._plan.prompts[k] for k in by_prompt if k not in self._prefixes}
        with self._attention.prompting(self._model):
            fresh = prefill_all(self._model, missing, self._device)
        for k, into in by_prompt.items():
            prefix = fresh[k] if k in fresh else self._prefixes[k]
            if self._cache is None:
                self._cache = self._allocated(prefix)
            index = torch.tensor(into, device=self._device)
            self._cache.insert(index, prefix)
            self._slots.logits[index] = prefix.logits
        self._keep_prefixes(fresh)
        index, which = torch.tensor([slots, rows], device=self._device)
        lengths = [len(self._plan.prompts[self._plan.prompt_index[row]]) for row in rows]
        self._slots.positions[index] = torch.tensor(lengths, device=self._device)
        self._slots.state[index] = self._first_state[which]
        self._slots.seeds[index] = self._seeds[which]
        self._sampling.admit(index, which)
        self._slots.emitted[index] = self._begun[which]

    def _keep_prefixes(self, fresh: dict[int, Prefix]) -> None:
        """Keeps prompts that rows wait for, at most as many as there are slots; the rest is made again."""
        awaited = self._schedule.awaited
        self._prefixes |= {k: prefix.clone() for k, prefix in fresh.items() if awaited(k)}
        kept = [k for k in self._prefixes if awaited(k)]
        self._prefixes = {k: self._prefixes[k] for k in kept[-len(self._schedule.row) :]}

    def _compact(self) -> None:
        sources, targets = self._schedule.compact()
        assert self._cache is not None
        self._cache.move(sources, targets, self._schedule.counts)
        if sources:
            source, target = torch.tensor([sources, targets], device=self._device)
            s = self._slots
            for tensor in (s.logits, s.positions, s.state, s.seeds, s.emitted):
                tensor[target] = tensor[source]
            self._sampling.move(source, target)
        self._slots.state[self._schedule.used :] = self._done_state  # a step may compute some of these, too

    # Completion

    def _finish_rows(self) -> None:
        schedule = self._schedule
        report = self._poll.look(self._slots, schedule.used, schedule.step, schedule.alive, schedule.row)
        if report is not None:
            if report.broken:
                self._log.flush()
                self._raise_broken()
            self._finish(schedule.still(report.done, report.row))
        self._finish(schedule.spent())
        if self._watch is not None and schedule.step % self._poll.every == 0:
            self._look(self._watch)

    def _finish(self, slots: list[int]) -> None:
        if not slots:
            return
        index = torch.tensor(slots, device=self._device)
        rows = [self._schedule.row[s] for s in slots]
        self._final_state[torch.tensor(rows, device=self._device)] = self._slots.state[index]
        self._slots.state[index] = self._done_state  # for a row that ran into its limit: nothing from here on
        self._schedule.finish(slots)
        self._count_ended(rows)

    def _count_ended(self, rows: list[int]) -> None:
        self._ended += rows
        self._bar.update(len(rows))

    def _look(self, watch: Watch, *, rest: bool = False) -> None:
        """Reads what rows emitted, and ends those that wrote a stop string."""
        self._log.show()
        self._tokens += watch.look(rest=rest)
        for row in watch.stopped():
            self._reasons[row] = FinishReason.STOP
            slot = self._schedule.slot_of(row)
            if slot is None or self._schedule.emitted(slot) > watch.kept[row]:
                self._stopped.append(row)
            if slot is not None:
                self._finish([slot])

    def _take_back(self) -> None:
        """Makes record and state of rows that overshot their stop string what they were there."""
        rows = self._stopped
        if not rows or self._watch is None:
            return
        kept = [self._watch.kept[row] for row in rows]
        self._record.cut(rows, kept)
        tokens, source = (field.cpu() for field in self._record.fields(rows)[:2])
        state = ops.replay(
            *(tokens, torch.tensor(kept), self._first_state[rows].cpu(), self._plan.machine),
            source=source,
            ended=torch.tensor([self._ended_at[row] for row in rows]),
        )[2]
        self._final_state[rows] = state.to(self._device)

    def _news(self) -> Step:
        if self._ended and self._watch is not None:
            self._log.flush()  # whoever follows may ask for their record
        step = Step(self._tokens, self._ended)
        self._tokens, self._ended = [], []
        return step

    # From outside

    def _obey(self) -> None:
        while self._wishes:
            wish, row = self._wishes.popleft()
            wish(row)

    def _cancel(self, row: int) -> None:
        slot = self._schedule.slot_of(row)
        if slot is not None:
            self._reasons[row] = FinishReason.CANCELLED
            self._finish([slot])
        elif self._schedule.withdraw(row):
            self._reasons[row] = FinishReason.CANCELLED
            self._final_state[row] = self._first_state[row]
            self._count_ended([row])

    def _end_thinking(self, row: int) -> None:
        """Ends the thinking of a row that thinks or has yet to; another has none to end."""
        slot = self._schedule.slot_of(row)
        if slot is None and not self._schedule.waits(row):
            return
        states, index = (self._first_state, row) if slot is None else (self._slots.state, slot)
        phase = int(ops.state_phase(states[index : index + 1]))
        ops.end_thinking_(states, [index])
        if phase in (Phase.OPENING, Phase.THINKING, Phase.NOTICE) and self._ended_at[row] < 0:
            self._ended_at[row] = 0 if slot is None else self._schedule.emitted(slot)

    def _raise_broken(self) -> None:
        row, token = self._record.first_nan()
        raise RuntimeError(
            f"row {row} (prompt {self._plan.prompt_index[row]}): the model's logits of its token {token} "
            "hold NaN or +inf, or nothing but -inf"
        )
