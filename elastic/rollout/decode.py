"""The decode loop: rows wait in a queue, slots take them, finished rows give their slot to the next.

R rows, S slots, n slots in use, W steps of a log window, T columns of the record.
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
from elastic.rollout.buffer import RecordBuffer
from elastic.rollout.cache import Prefix, SlotCache, prefill
from elastic.rollout.plan import Plan
from elastic.rollout.poll import Poll
from elastic.rollout.step import WINDOW, Slots, done_state, emit, forward, new_slots

# row, token, phase, source; "end_thinking" ends the row's thinking with the next token (SPEC R22)
OnToken = Callable[[int, int, int, int], str | None]

END_THINKING = "end_thinking"  # what on_token returns

_PREFILL_TOKENS = 8192  # of one prefill forward, padding included; a longer prompt goes alone
_FIRST_COLUMNS = 512  # for the completions of rows without a budget; doubled when they need more


class Decoder:
    """One call of `generate`.

    The host knows where every row stands without asking the device, because each row in flight emits one
    token a step. What it cannot know is when a row ends early: that it polls.

    Args:
        refill: free slots that start a refill, or a compaction once the queue is empty.
        poll: when and how completion is looked at.
        on_token: called for every emitted token; needs a poll every step.
        bar: progress over rows.
    """

    def __init__(
        self,
        model: Any,
        plan: Plan,
        slots: int,
        vocab: int,
        pad_id: int,
        device: torch.device,
        refill: int,
        poll: Poll,
        on_token: OnToken | None,
        bar: tqdm,
    ):
        self.model, self.plan, self.device = model, plan, device
        self.refill, self.poll, self.on_token, self.bar = refill, poll, on_token, bar
        self.queue = deque(plan.longest_first())
        self.machine = plan.machine.to(device)
        self.slots: Slots = new_slots(slots, vocab, self.machine, device)
        self.cache: SlotCache | None = None
        self.used = slots  # n
        self.row = [-1] * slots  # of each slot, -1 for none; a finished row stays until the slot is reused
        self.live = [False] * slots
        self.alive = 0  # how many are live
        self.start = [0] * slots  # step at which the slot's row emits its first token
        self.step = 0
        self.flushed = 0  # steps whose log is in the record
        self.next_end = 0  # earliest step at which a row in flight has emitted all it may
        self.columns_ahead = 0  # columns needed at a step, minus the step
        self.prefixes: dict[int, Prefix] = {}
        self.waiting = [0] * len(plan.prompts)  # rows of each prompt still in the queue
        for k in plan.prompt_index:
            self.waiting[k] += 1
        phases, budgets = plan.phases.to(device), plan.budget_index.to(device)
        used = plan.thinking_used.to(device)
        self.first_state = ops.new_state(budgets, self.machine, phase=phases, thinking_used=used)
        self.ended_at = [-1] * len(plan.most)  # of each row, tokens when its thinking was ended from outside
        self.final_state = done_state(len(plan.most), self.machine, device)
        self.done_state = self.final_state[:1].clone()
        self.seeds = torch.tensor(plan.seeds, dtype=torch.int64, device=device)
        # What rows with a bound may need is allocated now (SPEC R5), the others get more as they go.
        firsts = [
            n if own else min(n, _FIRST_COLUMNS) for n, own in zip(plan.most, plan.bounded, strict=True)
        ]
        self.record = RecordBuffer(len(plan.most), max(firsts), max(plan.most), pad_id, device)
        prompts = [len(plan.prompts[k]) for k in plan.prompt_index]
        self.first_columns = max(p + n for p, n in zip(prompts, firsts, strict=True))
        self.max_columns = max(p + n for p, n in zip(prompts, plan.most, strict=True))

    def run(self) -> tuple[list[Tensor], Tensor]:
        """Decodes every row.

        Returns:
            Record fields tokens, source, phase, logprobs, full_logprobs, each [R, T] with T of the longest
            row; and the final state [R, 8].

        Raises:
            RuntimeError: a row's logits held NaN or +inf, or nothing but -inf; names row and prompt.
        """
        while self.queue or self.alive:
            self._schedule()
            entry = self.step % WINDOW
            emit(self.slots, self.machine, self.plan.sampling, self.used, entry)
            self.step += 1
            if self.on_token is not None:
                self._stream(entry, self.on_token)
            self._finish_rows()
            if self.alive:
                self._forward()
            if self.step % WINDOW == 0:
                self._flush()
        self._flush()
        if self.poll.broken(self.slots):
            self._raise_broken()
        return self.record.fields(), self.final_state

    def _forward(self) -> None:
        assert self.cache is not None
        columns = min(self.step + self.columns_ahead, self.max_columns)
        if columns > self.cache.capacity:
            self.cache.grow(min(2 * columns, self.max_columns))
        forward(self.model, self.cache, self.slots, self.used, columns)

    # Scheduling

    def _schedule(self) -> None:
        free = self.used - self.alive
        if self.queue:
            if free >= min(self.refill, len(self.queue)) or not self.alive:
                self._flush()
                self._admit([s for s in range(self.used) if not self.live[s]][: len(self.queue)])
        elif free >= min(self.refill, max(1, self.used // 8)):
            self._flush()
            self._compact()

    def _admit(self, slots: list[int]) -> None:
        rows = [self.queue.popleft() for _ in slots]
        by_prompt: dict[int, list[int]] = {}
        for row, slot in zip(rows, slots, strict=True):
            by_prompt.setdefault(self.plan.prompt_index[row], []).append(slot)
        fresh = self._prefill([k for k in by_prompt if k not in self.prefixes])
        for k, into in by_prompt.items():
            prefix = fresh[k] if k in fresh else self.prefixes[k]
            if self.cache is None:
                self.cache = SlotCache(prefix, len(self.row), self.first_columns)
            index = torch.tensor(into, device=self.device)
            self.cache.insert(index, prefix)
            self.slots.logits[index] = prefix.logits
            self.waiting[k] -= len(into)
        self._keep_prefixes(fresh)
        index, which = torch.tensor([slots, rows], device=self.device)
        lengths = [len(self.plan.prompts[self.plan.prompt_index[row]]) for row in rows]
        self.slots.positions[index] = torch.tensor(lengths, device=self.device)
        self.slots.state[index] = self.first_state[which]
        self.slots.seeds[index] = self.seeds[which]
        self.slots.emitted[index] = 0
        for row, slot in zip(rows, slots, strict=True):
            self.row[slot], self.live[slot], self.start[slot] = row, True, self.step
        self.alive += len(rows)
        self._look_ahead()

    def _prefill(self, prompts: list[int]) -> dict[int, Prefix]:
        """Prefills prompts, as many together as a forward may hold. Rows of one prompt share the result."""
        prefixes: dict[int, Prefix] = {}
        waiting = deque(prompts)
        while waiting:
            batch, longest = [waiting.popleft()], 0
            while waiting:
                longest = max(len(self.plan.prompts[k]) for k in (*batch, waiting[0]))
                if longest * (len(batch) + 1) > _PREFILL_TOKENS:
                    break
                batch.append(waiting.popleft())
            made = prefill(self.model, [self.plan.prompts[k] for k in batch], self.device)
            prefixes |= dict(zip(batch, made, strict=True))
        return prefixes

    def _keep_prefixes(self, fresh: dict[int, Prefix]) -> None:
        """Keeps prompts that rows wait for, at most as many as there are slots; the rest is made again."""
        self.prefixes |= {k: prefix.clone() for k, prefix in fresh.items() if self.waiting[k]}
        kept = [k for k in self.prefixes if self.waiting[k]]
        self.prefixes = {k: self.prefixes[k] for k in kept[-len(self.row) :]}

    def _compact(self) -> None:
        """Moves the rows in flight to the front, so that a step computes fewer slots."""
        alive = [s for s in range(self.used) if self.live[s]]
        holes = [s for s in range(len(alive)) if not self.live[s]]
        movers = alive[len(alive) - len(holes) :]
        if holes and self.cache is not None:
            source, target = torch.tensor([movers, holes], device=self.device)
            self.cache.move(source, target)
            s = self.slots
            for tensor in (s.logits, s.positions, s.state, s.seeds, s.emitted):
                tensor[target] = tensor[source]
            for old, new in zip(movers, holes, strict=True):
                self.row[new], self.live[new], self.start[new] = self.row[old], True, self.start[old]
                self.row[old], self.live[old] = -1, False
        self.used = len(alive)

    def _look_ahead(self) -> None:
        """Refreshes what the host derives from the set of rows in flight."""
        live = [s for s in range(self.used) if self.live[s]]
        self.next_end = min((self._end(s) for s in live), default=0)
        self.columns_ahead = max((self._prompt_tokens(s) - self.start[s] for s in live), default=0)

    def _end(self, slot: int) -> int:
        return self.start[slot] + self.plan.most[self.row[slot]]

    def _prompt_tokens(self, slot: int) -> int:
        return len(self.plan.prompts[self.plan.prompt_index[self.row[slot]]])

    # Completion

    def _finish_rows(self) -> None:
        report = self.poll.look(self.slots, self.used, self.step, self.alive, self.row)
        if report is not None:
            if report.broken:
                self._flush()
                self._raise_broken()
            self._finish([s for s in report.done if self.live[s] and self.row[s] == report.row[s]])
        if self.alive and self.step >= self.next_end:
            self._finish([s for s in range(self.used) if self.live[s] and self._end(s) <= self.step])

    def _finish(self, slots: list[int]) -> None:
        if not slots:
            return
        index = torch.tensor(slots, device=self.device)
        state = self.slots.state[index]
        self.final_state[torch.tensor([self.row[s] for s in slots], device=self.device)] = state
        self.slots.state[index] = self.done_state  # for a row that ran into its limit: nothing from here on
        for slot in slots:
            self.live[slot] = False
        self.alive -= len(slots)
        self._look_ahead()
        self.bar.update(len(slots))

    def _stream(self, entry: int, on_token: OnToken) -> None:
        tokens, sources, phases = (log[entry, : self.used].tolist() for log in self.slots.log[:3])
        ended = []
        for slot in range(self.used):
            if self.live[slot] and sources[slot] != Source.PAD:
                answer = on_token(self.row[slot], tokens[slot], phases[slot], sources[slot])
                if answer not in (None, END_THINKING):
                    raise ValueError(f"on_token: expected None or {END_THINKING!r} returned, got {answer!r}")
                if answer is not None:
                    ended.append(slot)
        if ended:
            self._end_thinking(ended)

    def _end_thinking(self, slots: list[int]) -> None:
        """Ends the thinking of rows that have one before them or are in it (R22); of others there is none."""
        index = torch.tensor(slots, device=self.device)
        phases = ops.state_phase(self.slots.state[index]).tolist()
        ops.end_thinking_(self.slots.state, index)
        for slot, phase in zip(slots, phases, strict=True):
            row = self.row[slot]
            if phase in (Phase.OPENING, Phase.THINKING, Phase.NOTICE) and self.ended_at[row] < 0:
                self.ended_at[row] = self.step - self.start[slot]

    def _raise_broken(self) -> None:
        row, token = self.record.first_nan()
        raise RuntimeError(
            f"row {row} (prompt {self.plan.prompt_index[row]}): the model's logits of its token {token} "
            "hold NaN or +inf, or nothing but -inf"
        )

    # Record

    def _flush(self) -> None:
        """Moves the log of the steps since the last flush into the record, before slots change hands."""
        first, last = self.flushed, self.step
        self.flushed = last
        if first == last:
            return
        longest = max(
            min(last - self.start[s], self.plan.most[self.row[s]])
            for s in range(self.used)
            if self.row[s] >= 0
        )
        entries = slice(first % WINDOW, (last - 1) % WINDOW + 1)
        begins = [first - start for start in self.start[: self.used]]
        log = [part[entries, : self.used] for part in self.slots.log]
        self.record.write(log, self.row[: self.used], begins, longest)
