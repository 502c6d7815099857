"""The transition function of one budget in plain Python, rule by rule: SPEC section 2, R1 to R22."""

from __future__ import annotations

from dataclasses import replace

from elastic.budget import FinishReason, Phase, Source
from elastic.budget.machine import (
    CHARACTER_SHIFT,
    END_SHIFT,
    JOINS,
    OPENING_WHITESPACE_LIMIT,
    START_SHIFT,
    Machine,
    TokenFlag,
)
from elastic.budget.pattern import END_PLACES, START_PLACES
from elastic.budget.table import SPELLING_WIDTH, UNLIMITED, Column
from elastic.reference.budget_state import Row, Spelled, give_back, longest, waits


class Rules:
    """The transition function of one budget."""

    def __init__(self, table: list[int], token_flags: list[int]) -> None:
        self.table = table
        self.token_flags = token_flags
        self.starts = self._spellings(Column.STARTS_AT, Column.START_COUNT)
        self.ends = self._spellings(Column.ENDS_AT, Column.END_COUNT)

    def __getitem__(self, column: Column) -> int:
        return self.table[column]

    def _spellings(self, at: Column, count: Column) -> list[Spelled]:
        columns = range(self[at], self[at] + SPELLING_WIDTH * self[count], SPELLING_WIDTH)
        return [Spelled(*self.table[i : i + SPELLING_WIDTH]) for i in columns]

    def flags(self, token: int) -> int:
        return self.token_flags[token] if 0 <= token < len(self.token_flags) else 0

    def start_match(self, match: int, flags: int) -> int:
        return (match << 1 | self[Column.START_FIRSTS]) & flags >> START_SHIFT & 2**START_PLACES - 1

    def end_match(self, match: int, flags: int) -> int:
        return (match << 1 | self[Column.END_FIRSTS]) & flags >> END_SHIFT & 2**END_PLACES - 1

    def initial(self, budget: int, phase: int, used: int = 0) -> Row:
        row = Row(budget, phase, phase)
        if phase in (Phase.OPENING, Phase.DONE):
            return row
        # R19: counted as if the row had sampled them.
        limit = self[Column.THINKING_LIMIT]
        most = limit + self[Column.GRACE] if limit else 0
        row.thinking = min(used, most, self[Column.TOTAL_LIMIT], UNLIMITED - 1)
        at = self[Column.NOTICES_AT]
        row.notices = sum(self.table[at + 2 * i] < row.thinking for i in range(self[Column.NOTICE_COUNT]))
        reason = self.solution_spent(row)
        if reason:
            self.finish(row, reason)
        elif phase == Phase.THINKING:
            self.enter_thinking(row)
        return row

    def next_forced(self, row: Row) -> int | None:
        if row.phase == Phase.DONE:
            return self[Column.PAD_ID]
        return self.table[row.forced] if row.forced else None

    def masked(self, row: Row) -> list[int]:
        """Ids that may not be sampled next: R8 and, behind a forced close, R20."""
        if row.phase != Phase.SOLUTION:
            return []
        starts = (row.match << 1 | self[Column.START_FIRSTS]) & self[Column.FORBID_REOPEN]
        ends = (row.reclose << 1 | self[Column.END_FIRSTS]) & self[Column.FORBID_RECLOSE] if row.cut else 0
        return [
            token
            for bits, spellings in ((starts, self.starts), (ends, self.ends))
            for spelled in spellings
            if bits >> (spelled.first_bit + spelled.length - 1) & 1
            for token in self.table[spelled.last_at : spelled.last_at + spelled.last_count]
        ]

    def step(self, row: Row, token: int) -> tuple[int, Source]:
        """(state, sampled token) -> (state, emitted token, source); changes `row`."""
        self.settle(row)
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
        begun, tokens = longest(self.starts, row.match)
        # Text in front of a marker is text: it begins no marker here, though it may in the solution.
        firsts = self[Column.START_FIRSTS] if flags & TokenFlag.TEXT_BEFORE_START else 0
        row.last_phase = Phase.OPENING
        self.read_bytes(row, flags)
        if self.goes_on_opening(row, begun, tokens, flags & ~(firsts << START_SHIFT)):
            return token, Source.SAMPLED
        if tokens > begun.kind and self.solution_spent(row):
            token = self.table[begun.at + tokens]
            row.pending = 0
            self.goes_on_opening(row, begun, tokens, self.flags(token))
            return token, Source.FORCED
        row.phase, row.ended = Phase.SOLUTION, 0
        row.solution += 1
        self.read_solution_token(row, flags)
        self.end_solution_token(row, bool(flags & TokenFlag.EOS))
        return token, Source.SAMPLED

    def goes_on_opening(self, row: Row, begun: Spelled, tokens: int, flags: int) -> bool:
        """Moves the row on if the token keeps it in OPENING or leads to THINKING; whether it does."""

        def space_before(kept: int) -> int | None:
            """White space passed once only the last `kept` tokens may belong to a start marker."""
            dropped = tokens + 1 - kept
            leading = begun.kind if tokens else 0
            blank = dropped <= leading if kept else tokens <= leading and bool(flags & TokenFlag.WHITESPACE)
            passed = row.whitespace + dropped
            return passed if dropped == 0 or (blank and passed <= OPENING_WHITESPACE_LIMIT) else None

        match, lasts = self.start_match(row.match, flags), self[Column.START_LASTS]
        complete = longest(self.starts, match & lasts)[1]
        if complete and space_before(complete) is not None:
            ends = flags >> END_SHIFT & self[Column.END_FIRSTS] & ~self[Column.END_LASTS]
            self.enter_thinking(row, ends if flags & JOINS else 0)
            return True
        spelled, now = longest(self.starts, match & ~lasts)
        passed = space_before(now)
        if passed is None:
            return False
        row.match, row.whitespace, row.solution = match & ~lasts, passed, max(0, now - spelled.kind)
        return True

    def step_thinking(self, row: Row, token: int) -> tuple[int, Source]:
        flags = self.flags(token)
        eos = bool(flags & TokenFlag.EOS)
        match = self.end_match(row.match, flags)
        ends = bool(match & self[Column.END_LASTS])
        if (eos or ends) and self.wants_extension(row):
            return self.emit_extension(row)
        if eos and not self[Column.EOS_STOPS]:  # R6
            self.begin_closing(row)
            return self.emit_forced(row)
        row.last_phase = Phase.THINKING
        row.thinking += 1
        row.match = match
        self.read_bytes(row, flags)
        if eos:
            self.finish(row, FinishReason.STOP)
        elif ends:
            self.end_naturally(row, flags)
        elif self[Column.TOTAL_LIMIT] <= row.thinking < self[Column.THINKING_LIMIT]:
            if not waits(row):  # unlimited thinking under a total: the hard cut
                self.finish(row, FinishReason.TOTAL_BUDGET)
        elif self.cut_due(row, flags):
            self.cut_thinking(row)
        else:
            self.continue_thinking(row)
        return token, Source.SAMPLED

    def step_solution(self, row: Row, token: int) -> tuple[int, Source]:
        flags = self.flags(token)
        row.solution += 1
        self.read_bytes(row, flags)
        self.read_solution_token(row, flags)
        self.end_solution_token(row, bool(flags & TokenFlag.EOS))
        return token, Source.SAMPLED

    def emit_forced(self, row: Row) -> tuple[int, Source]:
        token = self.table[row.forced]
        row.forced += 1
        row.last_phase, row.pending = row.phase, 0
        if row.phase == Phase.SOLUTION:  # R4: F behind its marker, where a marker may begin
            self.read_solution_token(row, self.flags(token))
        if self.table[row.forced] < 0:
            if row.phase == Phase.NOTICE:
                self.continue_thinking(row)
            elif row.phase == Phase.CLOSING:
                tail = self[Column.TAIL_AT]
                self.enter_solution(row, tail if self.table[tail] >= 0 else 0)
            else:
                row.forced = 0
        return token, Source.FORCED

    def emit_extension(self, row: Row) -> tuple[int, Source]:
        """R11: the extension instead of an early end; a marker in progress stays as thinking text."""
        row.extensions += 1
        row.forced = self[Column.EXTENSION_AT]
        row.match = 0
        row.phase = Phase.NOTICE
        return self.emit_forced(row)

    def wants_extension(self, row: Row) -> bool:
        """R11: an end is early while no cut is due and extensions are left."""
        early = row.thinking - longest(self.ends, row.match)[1] < self[Column.MIN_THINKING]
        return early and row.extensions < self[Column.MAX_EXTENSIONS] and not row.ended and not row.waited

    def enter_thinking(self, row: Row, begun: int = 0) -> None:
        """`begun`: places of an end that begins in the very token that opens thinking."""
        row.match, row.solution = begun, 0
        if row.thinking >= self[Column.THINKING_LIMIT]:  # R9, R19
            self.cut_thinking(row)
        else:
            self.continue_thinking(row)

    def continue_thinking(self, row: Row) -> None:
        """R12: a due notice first. It waits while an end marker is in progress."""
        if row.ended:
            return self.cut_thinking(row)
        row.phase, row.forced = Phase.THINKING, 0
        spent = row.thinking >= self[Column.THINKING_LIMIT]
        if row.match or spent or row.notices >= self[Column.NOTICE_COUNT]:
            return
        at = self[Column.NOTICES_AT] + 2 * row.notices
        if row.thinking >= self.table[at]:
            row.notices += 1
            row.phase, row.forced = Phase.NOTICE, self.table[at + 1]

    def cut_due(self, row: Row, flags: int) -> bool:
        """R1, R13, R22. A cut that waits stays due."""
        over = row.thinking - self[Column.THINKING_LIMIT]
        boundary = bool(flags & self[Column.BOUNDARY_MASK])
        spent = over >= 0 and (over >= self[Column.GRACE] or row.waited > 0 or boundary)
        return bool(row.ended) or spent

    def cut_thinking(self, row: Row) -> None:
        row.phase, row.forced = Phase.THINKING, 0
        if not waits(row):
            self.begin_closing(row)

    def begin_closing(self, row: Row) -> None:
        """R1, R3: F, or its rest behind a marker in progress, whose tokens then count as no thinking."""
        spelled, begun = longest([s for s in self.ends if s.at], row.match)
        give_back(row, begun)
        row.forced = spelled.at + begun if begun else self[Column.CLOSING_AT]
        row.phase, row.match, row.ended, row.cut = Phase.CLOSING, 0, 0, 1

    def settle(self, row: Row) -> None:
        """R22: begins the closing that `end_thinking` asked for."""
        if row.ended and row.phase == Phase.THINKING and not row.waited:
            self.begin_closing(row)

    def end_naturally(self, row: Row, flags: int) -> None:
        """R2: the end counts against no budget; R18: one that opens something is the solution's."""
        end = longest(self.ends, row.match & self[Column.END_LASTS])[0]
        give_back(row, end.length)
        self.enter_solution(row)
        if not end.kind and flags & JOINS:
            row.match = flags >> START_SHIFT & self[Column.START_FIRSTS]
        if end.kind:
            row.solution = end.length
            self.read_solution_token(row, flags)
            self.end_solution_token(row, False)

    def enter_solution(self, row: Row, forced: int = 0) -> None:
        row.phase, row.match, row.ended, row.forced = Phase.SOLUTION, 0, 0, forced

    def read_solution_token(self, row: Row, flags: int) -> None:
        row.last_phase = Phase.SOLUTION
        row.match = self.start_match(row.match, flags)
        if row.cut and self[Column.FORBID_RECLOSE]:
            row.reclose = self.end_match(row.reclose, flags)

    def end_solution_token(self, row: Row, eos: bool) -> None:
        reason = FinishReason.STOP if eos else self.solution_spent(row)
        if reason and (eos or not waits(row)):
            self.finish(row, reason)

    def solution_spent(self, row: Row) -> FinishReason:
        """R7, R14: why a row may sample no further solution token, or RUNNING."""
        if row.solution >= self[Column.SOLUTION_LIMIT]:
            return FinishReason.SOLUTION_BUDGET
        spent = row.thinking + row.solution >= self[Column.TOTAL_LIMIT]
        return FinishReason.TOTAL_BUDGET if spent else FinishReason.RUNNING

    def finish(self, row: Row, reason: FinishReason) -> None:
        row.phase, row.finish, row.ended = Phase.DONE, reason, 0

    def read_bytes(self, row: Row, flags: int) -> None:
        """R21: bytes that the character in progress still needs."""
        code = flags >> CHARACTER_SHIFT & 7
        if self[Column.WHOLE_CHARACTERS]:
            row.pending = code if code < 4 else max(0, row.pending - (code - 4))

    def replay(self, row: Row, token: int, hint: int | None) -> tuple[Row, Source] | None:
        """One token of a history (R10): the row behind it, or None if it cannot be there."""
        after = replace(row)
        self.settle(after)
        if hint == Source.FORCED and after.phase == Phase.THINKING:
            if self.wants_extension(after):
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


def rules_of(machine: Machine) -> list[Rules]:
    """The transition function of each budget of a machine."""
    flags = machine.token_flags.tolist()
    return [Rules(table, flags) for table in machine.tables.tolist()]
