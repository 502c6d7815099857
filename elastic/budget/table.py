"""A budget as one row of an int32 table: the layout of `csrc/core/budget_state.h`.

A header of `Column`, then the lists that it points to: first the texts, each ended by -1, then all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum

from elastic.budget.forced_text import ForcedTexts
from elastic.budget.markers import Markers
from elastic.budget.pattern import Pattern
from elastic.budget.values import BudgetValues

UNLIMITED = 2**31 - 1
END_OF_TEXT = -1


class Column(IntEnum):
    """Columns of a table row; `*_AT` hold a column of the same row."""

    THINKING_LIMIT = 0
    SOLUTION_LIMIT = 1
    TOTAL_LIMIT = 2
    MIN_THINKING = 3
    MAX_EXTENSIONS = 4
    GRACE = 5
    BOUNDARY_MASK = 6
    EOS_STOPS = 7
    FORBID_REOPEN = 8
    FORBID_RECLOSE = 9
    WHOLE_CHARACTERS = 10
    PAD_ID = 11
    START_COUNT = 12
    STARTS_AT = 13
    START_FIRSTS = 14
    START_LASTS = 15
    END_COUNT = 16
    ENDS_AT = 17
    END_FIRSTS = 18
    END_LASTS = 19
    CLOSING_AT = 20
    TAIL_AT = 21
    EXTENSION_AT = 22
    NOTICE_COUNT = 23
    NOTICES_AT = 24


class SpellingColumn(IntEnum):
    """Columns of one spelling's record."""

    FIRST_BIT = 0
    LENGTH = 1
    LEADING_SPACE = 2  # of a start marker: its leading tokens that are white space
    OPENS = 2  # of an end: whether it belongs to the solution
    AT = 3
    LAST_COUNT = 4
    LAST_AT = 5


SPELLING_WIDTH = 6


class _Row:
    """A table row in the making."""

    def __init__(self) -> None:
        self.words = [0] * len(Column)

    def place(self, words: Iterable[int]) -> int:
        """Their column."""
        at = len(self.words)
        self.words.extend(words)
        return at

    def text(self, ids: Iterable[int]) -> int:
        return self.place([*ids, END_OF_TEXT])

    def spellings(
        self, at: int, pattern: Pattern, kinds: Sequence[int], places: Sequence[int], eos: frozenset[int]
    ) -> None:
        """Fills the records reserved at a column."""
        for i, spelling in enumerate(pattern.spellings):
            last = [token for token in spelling.last_ids if token not in eos]
            record = [pattern.offsets[i], len(spelling), kinds[i], places[i], len(last), self.place(last)]
            self.words[at + i * SPELLING_WIDTH : at + (i + 1) * SPELLING_WIDTH] = record

    def reserve(self, pattern: Pattern) -> int:
        return self.place([0] * (SPELLING_WIDTH * len(pattern.spellings)))


def table_row(
    budget: BudgetValues,
    texts: ForcedTexts,
    markers: Markers,
    is_blank: Callable[[int], bool],
    eos: frozenset[int],
    boundary_mask: int,
    pad_id: int,
) -> list[int]:
    """The row of one budget.

    Args:
        budget: the budget.
        texts: its forced texts.
        markers: the model's markers.
        is_blank: whether a token is white space.
        eos: ids that end a sequence; they complete no marker.
        boundary_mask: bit of the budget's boundary tokens in a token's entry, 0 for none.
        pad_id: what finished rows emit.
    """
    row = _Row()
    starts, ends = markers.start_pattern, markers.ends_pattern
    opens = [
        *(False for _ in markers.end_spellings),
        *(end.opens for end in markers.ends for _ in end.spellings),
    ]
    closing = row.text(texts.closing[: texts.tail])
    rests = [row.text(rest) if rest else 0 for rest in texts.rests]
    tail = row.text(texts.closing[texts.tail :])
    extension = row.text(texts.extension)
    notices = [word for used, ids in texts.notices for word in (used, row.text(ids))]
    starts_at, ends_at = row.reserve(starts), row.reserve(ends)
    leading = [_leading(map(is_blank, spelling.ids)) for spelling in starts.spellings]
    row.spellings(starts_at, starts, leading, [row.place(s.ids) for s in starts.spellings], eos)
    row.spellings(ends_at, ends, [int(o) for o in opens], rests, eos)
    closing_lasts = sum(
        1 << (bit + len(spelling) - 1)
        for bit, spelling, o in zip(ends.offsets, ends.spellings, opens, strict=True)
        if not o
    )
    for column, value in {
        Column.THINKING_LIMIT: _limit(budget.thinking),
        Column.SOLUTION_LIMIT: _limit(budget.solution),
        Column.TOTAL_LIMIT: _limit(budget.total),
        Column.MIN_THINKING: budget.min_thinking,
        Column.MAX_EXTENSIONS: budget.max_extensions,
        Column.GRACE: budget.grace,
        Column.BOUNDARY_MASK: boundary_mask,
        Column.EOS_STOPS: int(budget.on_eos == "stop"),
        Column.FORBID_REOPEN: starts.lasts if budget.on_reopen == "forbid" else 0,
        Column.FORBID_RECLOSE: closing_lasts if budget.on_reclose == "forbid" else 0,
        Column.WHOLE_CHARACTERS: int(budget.whole_characters),
        Column.PAD_ID: pad_id,
        Column.START_COUNT: len(starts.spellings),
        Column.STARTS_AT: starts_at,
        Column.START_FIRSTS: starts.firsts,
        Column.START_LASTS: starts.lasts,
        Column.END_COUNT: len(ends.spellings),
        Column.ENDS_AT: ends_at,
        Column.END_FIRSTS: ends.firsts,
        Column.END_LASTS: ends.lasts,
        Column.CLOSING_AT: closing,
        Column.TAIL_AT: tail,
        Column.EXTENSION_AT: extension,
        Column.NOTICE_COUNT: len(texts.notices),
        Column.NOTICES_AT: row.place(notices),
    }.items():
        row.words[column] = value
    return row.words


def _limit(value: int | None) -> int:
    return UNLIMITED if value is None else value


def _leading(blank: Iterable[bool]) -> int:
    """How many are true before the first that is not."""
    count = 0
    for b in blank:
        if not b:
            break
        count += 1
    return count
