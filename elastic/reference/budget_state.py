"""A row's state in plain Python: what its 8 int32 hold, and whether a machine can have led to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from elastic.budget import FinishReason, Phase
from elastic.budget.machine import OPENING_WHITESPACE_LIMIT, Machine
from elastic.budget.pattern import END_PLACES, LONGEST_MARKER
from elastic.budget.table import UNLIMITED, Column

MOST_WAITED = 3
# A complete marker would have led from these phases to another.
COMPLETE: dict[int, Column] = {Phase.OPENING: Column.START_LASTS, Phase.THINKING: Column.END_LASTS}


@dataclass
class Row:
    """One row's state; `csrc/core/budget_state.h` says what the fields mean."""

    budget: int
    phase: int
    last_phase: int
    finish: int = FinishReason.RUNNING
    cut: int = 0
    ended: int = 0
    pending: int = 0
    whitespace: int = 0
    waited: int = 0
    thinking: int = 0
    solution: int = 0
    match: int = 0
    extensions: int = 0
    notices: int = 0
    reclose: int = 0
    forced: int = 0

    @classmethod
    def load(cls, state: list[int]) -> Row:
        """The row of 8 int32."""
        budget, bits, thinking, solution, match, texts, reclose, forced = state
        return cls(
            budget,
            bits & 15,
            bits >> 4 & 15,
            bits >> 8 & 15,
            bits >> 12 & 1,
            bits >> 13 & 1,
            bits >> 14 & 3,
            bits >> 16 & 63,
            bits >> 22,
            thinking,
            solution,
            match,
            texts & 0xFFFF,
            texts >> 16,
            reclose,
            forced,
        )

    def store(self) -> list[int]:
        """The row as 8 int32."""
        bits = self.phase | self.last_phase << 4 | self.finish << 8 | self.cut << 12 | self.ended << 13
        bits |= self.pending << 14 | self.whitespace << 16 | self.waited << 22
        texts = self.extensions | self.notices << 16
        words = [
            self.budget,
            bits,
            self.thinking,
            self.solution,
            self.match,
            texts,
            self.reclose,
            self.forced,
        ]
        return [int(word) for word in words]


class Spelled(NamedTuple):
    """One way to write a marker, as the table has it."""

    first_bit: int
    length: int
    kind: int  # of a start marker its leading white space tokens, of an end whether it opens something
    at: int
    last_count: int
    last_at: int

    def reached(self, match: int) -> int:
        """Tokens of it that a match holds."""
        return (match >> self.first_bit & (1 << self.length) - 1).bit_length()


def longest(spellings: list[Spelled], match: int) -> tuple[Spelled, int]:
    """The spelling that a match has reached furthest into, the first of equal ones, and its tokens there."""
    best = max(spellings, key=lambda spelled: spelled.reached(match))
    return best, best.reached(match)


def give_back(row: Row, tokens: int) -> None:
    """R2, R3: takes a marker's tokens out of the count of thinking tokens."""
    row.thinking = max(0, row.thinking - tokens)


def waits(row: Row) -> bool:
    """R21: whether a cut that is due waits for the character in progress; one more token is sampled then."""
    if row.pending == 0 or row.waited >= MOST_WAITED:
        return False
    row.waited += 1
    return True


def end_thinking(row: Row) -> None:
    """R22: thinking is to end at the next step, as if the budget were spent."""
    if row.ended or row.phase not in (Phase.OPENING, Phase.THINKING, Phase.NOTICE):
        return
    row.ended = 1
    if row.phase == Phase.THINKING and not row.waited:
        waits(row)


def misfit(row: Row, tables: list[list[int]]) -> str | None:
    """The first field that no row under these tables can hold, None if all of them fit."""
    if not 0 <= row.budget < len(tables):
        return "budget"
    table = tables[row.budget]
    for name, (least, most) in _ranges(row, table).items():
        if not least <= getattr(row, name) <= most:
            return name
        if name == "match" and row.phase in COMPLETE and row.match & table[COMPLETE[row.phase]]:
            return name
    return "forced" if row.forced and table[row.forced] < 0 else None


def _ranges(row: Row, table: list[int]) -> dict[str, tuple[int, int]]:
    """Least and most of each field, in the order they are checked."""
    starts, ends = ((1 << table[c].bit_length()) - 1 for c in (Column.START_LASTS, Column.END_LASTS))
    matches: dict[int, int] = {
        Phase.OPENING: starts >> 1,
        Phase.THINKING: ends >> 1,
        Phase.SOLUTION: starts,
        Phase.DONE: 2**END_PLACES - 1,
    }
    tail, extension = table[Column.TAIL_AT], table[Column.EXTENSION_AT]
    # Texts follow each other, an end mark behind each; F behind its marker is forced in SOLUTION.
    texts: dict[int, tuple[int, int]] = {
        Phase.CLOSING: (table[Column.CLOSING_AT], tail - 2),
        Phase.NOTICE: (extension, table[Column.STARTS_AT] - 2),
    }
    if row.forced and tail < extension - 1:
        texts[Phase.SOLUTION] = (tail, extension - 2)
    # In these phases the budget is not spent: its last token would have ended the phase.
    thinks, solves = row.phase in (Phase.THINKING, Phase.NOTICE), row.phase == Phase.SOLUTION
    # An end that opens the solution may be longer than its budget.
    over = LONGEST_MARKER if row.phase == Phase.DONE or row.waited else 0
    solution = table[Column.SOLUTION_LIMIT] + over + row.waited - solves
    if row.phase < Phase.SOLUTION:
        solution = LONGEST_MARKER - 1 if row.phase == Phase.OPENING else 0
    thinking = table[Column.THINKING_LIMIT] + table[Column.GRACE] + row.waited - thinks
    whole = table[Column.WHOLE_CHARACTERS]
    return {
        "phase": (Phase.OPENING, Phase.DONE),
        "last_phase": (Phase.OPENING, Phase.DONE),
        "finish": (FinishReason.RUNNING, FinishReason.TOTAL_BUDGET),
        "ended": (0, int(row.phase in (Phase.OPENING, Phase.THINKING, Phase.NOTICE))),
        "pending": (0, 3 * whole),
        "whitespace": (0, OPENING_WHITESPACE_LIMIT),
        "waited": (0, MOST_WAITED * whole),
        "match": (0, matches.get(row.phase, 0)),
        "thinking": (0, min(thinking, UNLIMITED - 1)),
        "solution": (0, min(solution, UNLIMITED - 1)),
        "extensions": (0, table[Column.MAX_EXTENSIONS]),
        "notices": (0, table[Column.NOTICE_COUNT]),
        "reclose": (0, ends if row.phase >= Phase.SOLUTION else 0),
        "forced": texts.get(row.phase, (0, 0)),
    }


def load_rows(state: Tensor, machine: Machine) -> list[Row]:
    """The rows of a state.

    Raises:
        ValueError: one that no row under this machine can be in; names row and field.
    """
    rows, tables = [Row.load(words) for words in state.tolist()], machine.tables.tolist()
    for i, row in enumerate(rows):
        if (name := misfit(row, tables)) is not None:
            raise ValueError(f"state: row {i}: {name} does not fit the machine: {row}")
    return rows
