"""The decode loop on the device: prefill, steps, and the log that becomes the record.

R rows, S slots of which the first n are in use, W steps of a log window, T columns of the record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from elastic import ops
from elastic.budget import Phase, Source
from elastic.rollout.attention import MASKED, SlotAttention
from elastic.rollout.buffer import RecordBuffer
from elastic.rollout.cache import NoRoom, Prefix, SlotCache, prefill
from elastic.rollout.compiled import expected_steps
from elastic.rollout.limits import Limits
from elastic.rollout.memory import KVMemory
from elastic.rollout.plan import Plan
from elastic.rollout.poll import Poll
from elastic.rollout.pools import Pool
from elastic.rollout.schedule import Schedule
from elastic.rollout.step import WINDOW, Slots, done_state, emit
from elastic.rollout.stepper import Stepper

# row, token, phase, source; "end_thinking" ends the row's thinking with the next token (SPEC R22)
OnToken = Callable[[int, int, int, int], str | None]

END_THINKING = "end_thinking"  # what on_token returns

_PREFILL_TOKENS = 8192  # of one prefill forward, padding included; a longer prompt goes alone


class Decoder:
    """One call of `generate`: does on the device what its `Schedule` says.

    Args:
        plan: the rows.
        schedule: of the plan's rows, at its start.
        memory: of the model on the device.
        stepper: how steps are taken; lent for this call.
        poll: when and how completion is looked at.
        on_token: called for every emitted token; needs a poll every step.
        bar: progress over rows.
        attention: of the rows over their slots.

    Attributes:
        ended_at: of each row, its tokens when its thinking was ended from outside, -1 for never.
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
        on_token: OnToken | None,
        bar: tqdm,
        attention: SlotAttention = MASKED,
    ):
        rows, slots = len(plan.most), schedule.used
        self.ended_at = [-1] * rows
        self._model, self._plan, self._schedule, self._device = model, plan, schedule, device
        self._memory, self._stepper, self._poll = memory, stepper, poll
        self._on_token, self._bar, self._attention = on_token, bar, attention
        steps = expected_steps(plan.needs.tokens, slots)
        opened = stepper.open(slots, limits.vocab, plan.machine, plan.sampling, device, steps)
        self._slots: Slots = opened[0]
        self._machine = opened[1]
        self._cache: SlotCache | None = None
        self._flushed = 0  # steps whose log is in the record
        self._prefixes: dict[int, Prefix] = {}
        phases, budgets = plan.phases.to(device), plan.budget_index.to(device)
        used = plan.thinking_used.to(device)
        self._first_state = ops.new_state(budgets, self._machine, phase=phases, thinking_used=used)
        self._final_state = done_state(rows, self._machine, device)
        self._done_state = self._final_state[:1].clone()
        self._seeds = torch.tensor(plan.seeds, dtype=torch.int64, device=device)
        self._record = RecordBuffer(rows, schedule.first_tokens, schedule.most_tokens, limits.pad_id, device)

    def run(self) -> tuple[list[Tensor], Tensor]:
        """Decodes every row.

        Returns:
            Record fields tokens, source, phase, logprobs, full_logprobs, each [R, T] with T of the longest
            row; and the final state [R, 8].

        Raises:
            RuntimeError: a row's logits held NaN or +inf, or nothing but -inf; names row and prompt.
        """
        schedule = self._schedule
        while schedule.busy:
            self._change_slots()
            entry = schedule.step % WINDOW
            schedule.step += 1
            whole = self._stepper.records  # then looks come behind the forward, which is part of the step
            if whole:
                self._stepper.step(self._grown_cache(), schedule.used, schedule.columns)
            else:
                emit(self._slots, self._machine, self._plan.sampling, schedule.used, entry)
            if self._on_token is not None:
                self._stream(entry, self._on_token)
            self._finish_rows()
            if schedule.alive and not whole:
                self._stepper.forward(self._grown_cache(), schedule.used, schedule.columns)
            if schedule.step % WINDOW == 0:
                self._flush()
        self._flush()
        if self._poll.broken(self._slots):
            self._raise_broken()
        self._stepper.finish()
        return self._record.fields(), self._final_state

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
            self._flush()
            self._admit(slots)
        elif self._schedule.sparse:
            self._flush()
            self._compact()

    def _admit(self, slots: list[int]) -> None:
        rows = self._schedule.admit(slots)
        by_prompt: dict[int, list[int]] = {}
        for row, slot in zip(rows, slots, strict=True):
            by_prompt.setdefault(self._plan.prompt_index[row], []).append(slot)
        fresh = self._prefill([k for k in by_prompt if k not in self._prefixes])
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
        self._slots.emitted[index] = 0

    def _prefill(self, prompts: list[int]) -> dict[int, Prefix]:
        """Prefills prompts, as many together as a forward may hold. Rows of one prompt share the result."""
        prefixes: dict[int, Prefix] = {}
        waiting = deque(prompts)
        while waiting:
            batch, longest = [waiting.popleft()], 0
            while waiting:
                longest = max(len(self._plan.prompts[k]) for k in (*batch, waiting[0]))
                if longest * (len(batch) + 1) > _PREFILL_TOKENS:
                    break
                batch.append(waiting.popleft())
            with self._attention.prompting(self._model):
                made = prefill(self._model, [self._plan.prompts[k] for k in batch], self._device)
            prefixes |= dict(zip(batch, made, strict=True))
        return prefixes

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
        self._slots.state[self._schedule.used :] = self._done_state  # a step may compute some of these, too

    # Completion

    def _finish_rows(self) -> None:
        schedule = self._schedule
        report = self._poll.look(self._slots, schedule.used, schedule.step, schedule.alive, schedule.row)
        if report is not None:
            if report.broken:
                self._flush()
                self._raise_broken()
            self._finish(schedule.still(report.done, report.row))
        self._finish(schedule.spent())

    def _finish(self, slots: list[int]) -> None:
        if not slots:
            return
        index = torch.tensor(slots, device=self._device)
        rows = [self._schedule.row[s] for s in slots]
        self._final_state[torch.tensor(rows, device=self._device)] = self._slots.state[index]
        self._slots.state[index] = self._done_state  # for a row that ran into its limit: nothing from here on
        self._schedule.finish(slots)
        self._bar.update(len(slots))

    def _stream(self, entry: int, on_token: OnToken) -> None:
        schedule = self._schedule
        tokens, sources, phases = (log[entry, : schedule.used].tolist() for log in self._slots.log[:3])
        ended = []
        for slot in range(schedule.used):
            if schedule.live[slot] and sources[slot] != Source.PAD:
                answer = on_token(schedule.row[slot], tokens[slot], phases[slot], sources[slot])
                if answer not in (None, END_THINKING):
                    raise ValueError(f"on_token: expected None or {END_THINKING!r} returned, got {answer!r}")
                if answer is not None:
                    ended.append(slot)
        if ended:
            self._end_thinking(ended)

    def _end_thinking(self, slots: list[int]) -> None:
        """Ends the thinking of rows that have one before them or are in it (R22); of others there is none."""
        index = torch.tensor(slots, device=self._device)
        phases = ops.state_phase(self._slots.state[index]).tolist()
        ops.end_thinking_(self._slots.state, index)
        for slot, phase in zip(slots, phases, strict=True):
            row = self._schedule.row[slot]
            if phase in (Phase.OPENING, Phase.THINKING, Phase.NOTICE) and self.ended_at[row] < 0:
                self.ended_at[row] = self._schedule.emitted(slot)

    def _raise_broken(self) -> None:
        row, token = self._record.first_nan()
        raise RuntimeError(
            f"row {row} (prompt {self._plan.prompt_index[row]}): the model's logits of its token {token} "
            "hold NaN or +inf, or nothing but -inf"
        )

    # Record

    def _flush(self) -> None:
        """Moves the log of the steps since the last flush into the record, before slots change hands."""
        schedule = self._schedule
        first, last = self._flushed, schedule.step
        self._flushed = last
        if first == last:
            return
        entries = slice(first % WINDOW, (last - 1) % WINDOW + 1)
        begins = [first - start for start in schedule.start[: schedule.used]]
        log = [part[entries, : schedule.used] for part in self._slots.log]
        self._record.write(log, schedule.row[: schedule.used], begins, schedule.longest())
