"""The budget ops in plain Python, row by row: the readable specification of SPEC section 2.

Same arguments and results as `elastic.ops`. Slow: it reads the state back to the host at every step.
"""

from __future__ import annotations

from dataclasses import astuple

import torch
from torch import Tensor

from elastic.budget import FinishReason, Phase, Source
from elastic.machine import END_SHIFT, OPENING_WHITESPACE_LIMIT, START_SHIFT, Column, Machine, TokenFlag
from elastic.reference.budget_state import Row, load_rows

PLACES = 0xFFFFFF


class Rules:
    """The transition function of one budget."""

    def __init__(self, table: list[int], token_flags: list[int]) -> None:
        self.table = table
        self.token_flags = token_flags

    def __getitem__(self, column: Column) -> int:
        return self.table[column]

    def flags(self, token: int) -> int:
        return self.token_flags[token] if 0 <= token < len(self.token_flags) else 0

    def initial(self, budget: int, phase: int) -> Row:
        row = Row(budget, phase, phase)
        if phase == Phase.THINKING:
            self.enter_thinking(row)
        return row

    def next_forced(self, row: Row) -> int | None:
        if row.phase == Phase.DONE:
            return self[Column.PAD_ID]
        return self.table[row.forced] if row.forced else None

    def forbids_start(self, row: Row) -> bool:
        """R8: one more token may complete the start marker, and the budget forbids it."""
        length = self[Column.START_LENGTH]
        almost = length == 1 or row.match >> (length - 2) & 1
        return row.phase == Phase.SOLUTION and bool(self[Column.FORBID_REOPEN]) and bool(almost)

    def masked(self, row: Row) -> list[int]:
        """Ids that may not be sampled next."""
        if not self.forbids_start(row):
            return []
        at = self[Column.START_LAST_AT]
        return self.table[at : at + self[Column.START_LAST_COUNT]]

    def step(self, row: Row, token: int) -> tuple[int, Source]:
        """(state, sampled token) -> (state, emitted token, source); changes `row`."""
        if row.phase == Phase.DONE:
            row.last_phase = Phase.DONE
            return self[Column.PAD_ID], Source.PAD
        if row.forced:
            return self.emit_forced(row)
        if row.phase == Phase.OPENING:
            return self.step_opening(row, token)
        if row.phase == Phase.THINKING:
            return self.step_thinking(row, token)
        return self.step_solution(row, token)

    def step_opening(self, row: Row, token: int) -> tuple[int, Source]:
        """R9: white space and the start marker are free, other text opens the solution.

        The tokens of a start marker in progress count until it completes; once they have spent the solution
        budget, what would overspend it is replaced by the rest of the marker.
        """
        flags = self.flags(token)
        begun, before, free = row.match, row.match.bit_length(), self[Column.START_WHITESPACE]
        places, source = flags >> START_SHIFT & PLACES, Source.SAMPLED
        # Text in front of a marker is text: it begins no marker here, though it may in the solution.
        row.match = advance(begun, places & ~1 if flags & TokenFlag.TEXT_BEFORE_START else places)
        row.last_phase = Phase.OPENING
        if row.match.bit_length() != before + 1 and before > free and self.solution_spent(row):
            token = self.table[self[Column.START_AT] + before]
            row.match = advance(begun, self.flags(token) >> START_SHIFT & PLACES)
            source = Source.FORCED
        after = row.match.bit_length()
        if after == self[Column.START_LENGTH]:
            self.enter_thinking(row)
            return token, source
        dropped = before + 1 - after  # tokens that can no longer belong to a start marker
        blank = dropped <= free if after else before <= free and bool(flags & TokenFlag.WHITESPACE)
        if dropped == 0 or (blank and row.whitespace + dropped <= OPENING_WHITESPACE_LIMIT):
            row.whitespace += dropped
            row.solution = max(0, after - free)
            return token, source
        row.match = advance(begun, places)
        row.phase = row.last_phase = Phase.SOLUTION
        row.solution += 1
        self.end_solution_token(row, bool(flags & TokenFlag.EOS))
        return token, source

    def step_thinking(self, row: Row, token: int) -> tuple[int, Source]:
        flags = self.flags(token)
        eos = bool(flags & TokenFlag.EOS)
        match = advance(row.match, flags >> END_SHIFT & PLACES)
        ends = match.bit_length() == self[Column.END_LENGTH]
        if (eos or ends) and self.wants_extension(row):
            return self.emit_extension(row)
        if eos and not self[Column.EOS_STOPS]:  # R6
            self.begin_closing(row)
            return self.emit_forced(row)
        row.last_phase = Phase.THINKING
        row.thinking += 1
        row.match = match
        beyond = row.thinking - self[Column.THINKING_LIMIT]
        at_boundary = bool(flags & self[Column.BOUNDARY_MASK])
        if eos:
            row.phase, row.finish = Phase.DONE, FinishReason.STOP
        elif ends:  # R2: the marker counts against no budget
            row.thinking -= self[Column.END_LENGTH]
            row.phase, row.match = Phase.SOLUTION, 0
        elif beyond >= 0 and (beyond >= self[Column.GRACE] or at_boundary):  # R1, R13
            self.begin_closing(row)
        elif row.thinking >= self[Column.TOTAL_LIMIT]:  # unlimited thinking under a total: the hard cut
            row.phase, row.finish = Phase.DONE, FinishReason.TOTAL_BUDGET
        else:
            self.continue_thinking(row)
        return token, Source.SAMPLED

    def step_solution(self, row: Row, token: int) -> tuple[int, Source]:
        flags = self.flags(token)
        row.last_phase = Phase.SOLUTION
        row.solution += 1
        row.match = advance(row.match, flags >> START_SHIFT & PLACES)
        self.end_solution_token(row, bool(flags & TokenFlag.EOS))
        return token, Source.SAMPLED

    def emit_forced(self, row: Row) -> tuple[int, Source]:
        at = row.forced
        token = self.table[at]
        row.forced += 1
        ends = self.table[row.forced] < 0
        if row.phase == Phase.NOTICE:
            row.last_phase = Phase.NOTICE
            if ends:
                self.continue_thinking(row)
        else:
            # R4: what stands behind the marker is solution text, and a start marker may begin in it.
            behind = at >= self[Column.CLOSING_TAIL_AT]
            row.last_phase = Phase.SOLUTION if behind else Phase.CLOSING
            if behind:
                row.match = advance(row.match, self.flags(token) >> START_SHIFT & PLACES)
            if ends:
                row.phase, row.forced = Phase.SOLUTION, 0
        return token, Source.FORCED

    def emit_extension(self, row: Row) -> tuple[int, Source]:
        """R11: the extension instead of an early end; a marker in progress stays as thinking text."""
        row.extensions += 1
        row.forced = self[Column.EXTENSION_AT]
        row.match = 0
        row.phase = Phase.NOTICE
        return self.emit_forced(row)

    def wants_extension(self, row: Row) -> bool:
        early = row.thinking - row.match.bit_length() < self[Column.MIN_THINKING]
        return early and row.extensions < self[Column.MAX_EXTENSIONS]

    def enter_thinking(self, row: Row) -> None:
        row.match = row.solution = 0
        if self[Column.THINKING_LIMIT] == 0:
            self.begin_closing(row)
        else:
            self.continue_thinking(row)

    def continue_thinking(self, row: Row) -> None:
        """R12: a due notice first. It waits while an end marker is in progress."""
        row.phase, row.forced = Phase.THINKING, 0
        spent = row.thinking >= self[Column.THINKING_LIMIT]
        if row.match or spent or row.notices >= self[Column.NOTICE_COUNT]:
            return
        at = self[Column.NOTICES_AT] + 2 * row.notices
        if row.thinking >= self.table[at]:
            row.notices += 1
            row.phase, row.forced = Phase.NOTICE, self.table[at + 1]

    def begin_closing(self, row: Row) -> None:
        """R1, R3: F, or what is left of it behind a marker in progress, whose tokens are given back."""
        begun = row.match.bit_length()
        row.thinking -= begun
        row.forced = self[Column.CLOSING_MARKER_AT] + begun if begun else self[Column.CLOSING_AT]
        row.phase, row.match, row.cut = Phase.CLOSING, 0, 1

    def end_solution_token(self, row: Row, eos: bool) -> None:
        reason = FinishReason.STOP if eos else self.solution_spent(row)
        if reason:
            row.phase, row.finish = Phase.DONE, reason

    def solution_spent(self, row: Row) -> FinishReason:
        """R7, R14: why a row may sample no further solution token, or RUNNING."""
        if row.solution >= self[Column.SOLUTION_LIMIT]:
            return FinishReason.SOLUTION_BUDGET
        spent = row.thinking + row.solution >= self[Column.TOTAL_LIMIT]
        return FinishReason.TOTAL_BUDGET if spent else FinishReason.RUNNING

    def replay(self, row: Row, token: int, hint: int | None) -> tuple[Row, Source] | None:
        """One token of a history (R10): the row behind it, or None if it cannot be there."""
        after = Row(*astuple(row))
        if hint == Source.FORCED and row.phase == Phase.THINKING:
            if self.wants_extension(row):
                emitted, source = self.emit_extension(after)
            elif not self[Column.EOS_STOPS]:
                self.begin_closing(after)
                emitted, source = self.emit_forced(after)
            else:
                return None
        else:
            # In OPENING only a token that continues no marker can have been replaced: -1 is one.
            replaced = hint == Source.FORCED and row.phase == Phase.OPENING
            emitted, source = self.step(after, -1 if replaced else token)
        return (after, source) if emitted == token and hint in (None, source) else None


def advance(match: int, places: int) -> int:
    """Bit i of a match: the last i + 1 tokens are the first i + 1 of the marker."""
    return (match << 1 | 1) & places


def rules_of(machine: Machine) -> list[Rules]:
    """The transition function of each budget of a machine."""
    flags = machine.token_flags.tolist()
    return [Rules(table, flags) for table in machine.tables.tolist()]


def new_state(
    rows: int | Tensor,
    machine: Machine,
    *,
    starts_in_thinking: bool | Tensor = True,
    phase: Tensor | None = None,
) -> Tensor:
    """See `elastic.ops.new_state`."""
    budgets = [0] * rows if isinstance(rows, int) else rows.tolist()
    opened = torch.as_tensor(starts_in_thinking).expand(len(budgets))
    if phase is None:
        phase = torch.where(opened, int(Phase.THINKING), int(Phase.OPENING))
    rules = rules_of(machine)
    states = [rules[b].initial(b, p).store() for b, p in zip(budgets, phase.tolist(), strict=True)]
    return torch.tensor(states, dtype=torch.int32, device=machine.tables.device).reshape(-1, 8)


def budget_step_(tokens: Tensor, state: Tensor, machine: Machine, *, active: Tensor | None = None) -> Tensor:
    """See `elastic.ops.budget_step_`."""
    rules = rules_of(machine)
    rows = load_rows(state, machine)
    emitted = [rules[row.budget].step(row, token) for row, token in zip(rows, tokens.tolist(), strict=True)]
    if rows:
        tokens.copy_(torch.tensor([token for token, _ in emitted]))
        state.copy_(torch.tensor([row.store() for row in rows], dtype=torch.int32))
    if active is not None:
        active.fill_(sum(row.phase != Phase.DONE for row in rows))
    return torch.tensor([int(source) for _, source in emitted], dtype=torch.uint8, device=tokens.device)


def force_logits_(logits: Tensor, state: Tensor, machine: Machine) -> None:
    """See `elastic.ops.force_logits_`."""
    rules = rules_of(machine)
    for i, row in enumerate(load_rows(state, machine)):
        rule = rules[row.budget]
        forced = rule.next_forced(row)
        if forced is not None:
            logits[i] = -torch.inf
            logits[i, forced] = 0
        else:
            logits[i, [token for token in rule.masked(row) if token < logits.shape[1]]] = -torch.inf


def forced_next(state: Tensor, machine: Machine) -> Tensor:
    """See `elastic.ops.forced_next`."""
    rules = rules_of(machine)
    forced = [rules[row.budget].next_forced(row) for row in load_rows(state, machine)]
    ids = [-1 if token is None else token for token in forced]
    return torch.tensor(ids, dtype=torch.int32, device=state.device)


def replay(
    tokens: Tensor, lengths: Tensor, state: Tensor, machine: Machine, *, source: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `elastic.ops.replay`."""
    rules = rules_of(machine)
    phase = torch.full(tokens.shape, int(Phase.DONE), dtype=torch.uint8, device=tokens.device)
    read = torch.full(tokens.shape, int(Source.PAD), dtype=torch.uint8, device=tokens.device)
    after, mismatch = state.clone(), torch.full_like(lengths, -1)
    rows = load_rows(state, machine)
    for r, (row, history, length) in enumerate(zip(rows, tokens.tolist(), lengths.tolist(), strict=True)):
        for i, token in enumerate(history[:length]):
            hint = None if source is None else int(source[r, i])
            result = rules[row.budget].replay(row, token, hint)
            if result is None:
                mismatch[r] = i
                break
            row, read[r, i] = result
            phase[r, i] = row.last_phase
        after[r] = torch.tensor(row.store(), dtype=torch.int32)
    return phase, read, after, mismatch
