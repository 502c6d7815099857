"""A row's state in plain Python: what its 8 int32 hold, and whether a machine can have led to it."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from torch import Tensor

from elastic.budget import FinishReason, Phase
from elastic.machine import OPENING_WHITESPACE_LIMIT, UNLIMITED, Column, Machine


@dataclass
class Row:
    """One row's state; `csrc/core/budget_state.h` says what the fields mean."""

    budget: int
    phase: int
    last_phase: int
    finish: int = FinishReason.RUNNING
    cut: int = 0
    whitespace: int = 0
    thinking: int = 0
    solution: int = 0
    match: int = 0
    extensions: int = 0
    notices: int = 0
    forced: int = 0

    @classmethod
    def load(cls, state: list[int]) -> Row:
        budget, bits, *rest = state
        return cls(budget, bits & 15, bits >> 4 & 15, bits >> 8 & 15, bits >> 12 & 15, bits >> 16, *rest)

    def store(self) -> list[int]:
        budget, phase, last_phase, finish, cut, whitespace, *rest = (int(x) for x in astuple(self))
        return [budget, phase | last_phase << 4 | finish << 8 | cut << 12 | whitespace << 16, *rest]


def misfit(row: Row, tables: list[list[int]]) -> str | None:
    """The first field that no row under these tables can hold, None if all of them fit."""
    if not 0 <= row.budget < len(tables):
        return "budget"
    table = tables[row.budget]
    start, end, extension = table[Column.START_LENGTH], table[Column.END_LENGTH], table[Column.EXTENSION_AT]
    # A complete marker leads to another phase, but for a start marker in solution text.
    places: dict[int, int] = {
        Phase.OPENING: start - 1,
        Phase.THINKING: end - 1,
        Phase.NOTICE: 0,
        Phase.DONE: 24,
    }
    # F, the extension, the notices and the start marker follow each other, an end mark behind each text.
    texts: dict[int, tuple[int, int]] = {
        Phase.CLOSING: (table[Column.CLOSING_AT], extension - 2),
        Phase.NOTICE: (extension, table[Column.START_AT] - 2),
    }
    begun = row.match.bit_length()
    # Thinking goes on, or the solution does: the last token of a budget would have ended it.
    thinks, solves = row.phase in (Phase.THINKING, Phase.NOTICE), row.phase in (Phase.SOLUTION, Phase.DONE)
    opening = max(0, begun - table[Column.START_WHITESPACE]) if row.phase == Phase.OPENING else 0
    thinking = min(table[Column.THINKING_LIMIT] + table[Column.GRACE] - thinks, UNLIMITED - 1)
    solution = min(table[Column.SOLUTION_LIMIT] - (row.phase == Phase.SOLUTION), UNLIMITED - 1)
    ranges = {
        "phase": (Phase.OPENING, Phase.DONE),
        "last_phase": (Phase.OPENING, Phase.DONE),
        "finish": (FinishReason.RUNNING, FinishReason.TOTAL_BUDGET),
        "cut": (0, 1),
        "whitespace": (0, OPENING_WHITESPACE_LIMIT),
        "match": (0, 2 ** places.get(row.phase, start) - 1),
        "thinking": (begun if row.phase == Phase.THINKING else 0, thinking),
        "solution": (0, solution) if solves else (opening, opening),
        "extensions": (0, table[Column.MAX_EXTENSIONS]),
        "notices": (0, table[Column.NOTICE_COUNT]),
        "forced": texts.get(row.phase, (0, 0)),
    }
    for name, (least, most) in ranges.items():
        if not least <= getattr(row, name) <= most:
            return name
    return "forced" if row.forced and table[row.forced] < 0 else None


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
