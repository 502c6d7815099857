"""Compiles budgets into the tables that the budget ops read.

The layout is that of `csrc/core/budget_state.h`: one int32 row a budget, a header of `Column` and then the
lists of ids it points to; one int64 entry a token. Whatever depends on markers or tokenizer is checked
before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import torch

from elastic.budget import Budget
from elastic.eos import EosIds, eos_tuple
from elastic.forced_text import ForcedTexts, forced_texts
from elastic.markers import Markers
from elastic.token_text import token_texts

UNLIMITED = 2**31 - 1
OPENING_WHITESPACE_LIMIT = 32  # csrc/core/budget_state.h
END_OF_TEXT = -1
START_SHIFT = 8
END_SHIFT = 32
FIRST_BOUNDARY_BIT = 3
BOUNDARY_BITS = 5
SENTENCE_ENDS = ("\n", ".", "!", "?")


class TokenFlag(IntEnum):
    """Low bits of a token's entry; five boundary sets follow (R13), then the places in both markers."""

    EOS = 1
    WHITESPACE = 2
    TEXT_BEFORE_START = 4


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
    PAD_ID = 9
    START_LENGTH = 10
    START_AT = 11
    START_WHITESPACE = 12
    START_LAST_COUNT = 13
    START_LAST_AT = 14
    END_LENGTH = 15
    CLOSING_AT = 16
    CLOSING_MARKER_AT = 17
    CLOSING_TAIL_AT = 18
    EXTENSION_AT = 19
    NOTICE_COUNT = 20
    NOTICES_AT = 21


@dataclass(frozen=True, eq=False)
class Machine:
    """Compiled budgets: what the ops need besides a row's state.

    Attributes:
        tables: [M, W] int32, one row a distinct budget.
        token_flags: [V'] int64, one entry a token; ids from V' on have no meaning to the machine.
        budgets: the M budgets.
        markers: the markers they were compiled for.
        pad_id: what finished rows emit.
        smallest_vocab: logits need at least this many columns, or a forced token would have none.
    """

    tables: torch.Tensor
    token_flags: torch.Tensor
    budgets: tuple[Budget, ...]
    markers: Markers
    pad_id: int
    smallest_vocab: int

    def to(self, device: torch.device | str) -> Machine:
        """The same machine with its tensors on `device`."""
        return replace(self, tables=self.tables.to(device), token_flags=self.token_flags.to(device))


def compile_budgets(
    budgets: Sequence[Budget],
    markers: Markers,
    tokenizer: Any = None,
    eos_ids: EosIds = None,
    pad_id: int | None = None,
) -> tuple[Machine, torch.Tensor]:
    """Compiles the budgets of a batch, equal ones once.

    Args:
        budgets: one per row or per prompt; any number of them may be equal.
        markers: the model's markers.
        tokenizer: turns texts into ids and knows white space and sentence ends; the markers' own by default.
            Without one, texts must be ids, and no token counts as white space.
        eos_ids: every id that ends a sequence. None for the tokenizer's; an empty list for none at all.
        pad_id: what finished rows emit; by default the tokenizer's, the first EOS id, or 0.

    Returns:
        The machine on the CPU, and [len(budgets)] int64, the table row of each budget.

    Raises:
        ValueError: no budgets; a closing text without exactly one end marker, or with a start marker (R4); an
            extension or notice that holds, completes or begins a marker (R11, R12); no token for a boundary
            (R13); EOS ids inside a marker or a forced text. The message names the text.
    """
    if len(budgets) == 0:
        raise ValueError("budgets: expected at least one budget, got none")
    tokenizer = tokenizer if tokenizer is not None else markers.tokenizer
    eos = _eos_ids(eos_ids, tokenizer)
    for name, ids in (("start", markers.start), ("end", markers.end)):
        if eos & set(ids):
            raise ValueError(f"eos_ids: {sorted(eos & set(ids))} belong to the {name} marker {list(ids)}")
    if pad_id is None:
        pad_id = getattr(tokenizer, "pad_token_id", None)
    if pad_id is None:
        pad_id = min(eos, default=0)

    rows: dict[Budget, int] = {}
    index = [rows.setdefault(budget, len(rows)) for budget in budgets]
    texts = [forced_texts(budget, markers, tokenizer, eos) for budget in rows]
    flags, masks = _token_flags(list(rows), markers, tokenizer, eos)
    compiled = [
        _table_row(budget, text, markers, flags, mask, pad_id)
        for budget, text, mask in zip(rows, texts, masks, strict=True)
    ]
    width = max(len(row) for row in compiled)
    tables = torch.tensor([row + [END_OF_TEXT] * (width - len(row)) for row in compiled], dtype=torch.int32)
    forced = [i for t in texts for ids in (t.closing, t.extension, *(n for _, n in t.notices)) for i in ids]
    machine = Machine(tables, flags, tuple(rows), markers, pad_id, max([pad_id, *forced, *markers.start]) + 1)
    return machine, torch.tensor(index, dtype=torch.int64)


def max_tokens(budget: Budget, markers: Markers, tokenizer: Any, starts_in_thinking: bool) -> int | None:
    """See `Budget.max_tokens`."""
    if budget.max_sampled is None:
        return None
    tokenizer = tokenizer if tokenizer is not None else markers.tokenizer
    texts = forced_texts(budget, markers, tokenizer, frozenset())
    forced = len(texts.closing) + sum(len(ids) for _, ids in texts.notices)
    forced += budget.max_extensions * len(texts.extension)
    opening = 0 if starts_in_thinking else len(markers.start) + OPENING_WHITESPACE_LIMIT
    # A natural marker comes instead of F, which is never shorter.
    return budget.max_sampled + forced + opening


def _eos_ids(eos_ids: EosIds, tokenizer: Any) -> frozenset[int]:
    if eos_ids is None:
        own = getattr(tokenizer, "eos_token_id", None)
        return frozenset() if own is None else frozenset([own])
    return frozenset(eos_tuple(eos_ids))


def _token_flags(
    budgets: list[Budget], markers: Markers, tokenizer: Any, eos: frozenset[int]
) -> tuple[torch.Tensor, list[int]]:
    """The entry of every token, and the boundary mask of every budget."""
    texts = token_texts(tokenizer) if tokenizer is not None else []
    sets = [_boundary_ids(budget, texts) for budget in budgets]
    distinct = list(dict.fromkeys(s for s in sets if s))
    if len(distinct) > BOUNDARY_BITS:
        raise ValueError(
            f"boundary: expected at most {BOUNDARY_BITS} different sets in a batch, got {len(distinct)}"
        )
    places = (markers.start_pattern.places, markers.end_pattern.places)
    ids = [*eos, *places[0], *places[1], *(i for s in distinct for i in s), len(texts) - 1]
    flags = [0] * (max(ids) + 1)
    for i, text in enumerate(texts):
        flags[i] |= TokenFlag.WHITESPACE if text.isspace() else 0
    for bit, members in enumerate(distinct):
        for i in members:
            flags[i] |= 1 << (FIRST_BOUNDARY_BIT + bit)
    for shift, table in zip((START_SHIFT, END_SHIFT), places, strict=True):
        for i, mask in table.items():
            flags[i] |= mask << shift
    for i in markers.text_before_start:
        flags[i] |= TokenFlag.TEXT_BEFORE_START
    for i in eos:
        flags[i] = int(TokenFlag.EOS)
    masks = [1 << (FIRST_BOUNDARY_BIT + distinct.index(s)) if s else 0 for s in sets]
    return torch.tensor(flags, dtype=torch.int64), masks


def _boundary_ids(budget: Budget, texts: list[str]) -> frozenset[int]:
    if budget.grace == 0:
        return frozenset()
    wanted = budget.boundary or SENTENCE_ENDS
    found: set[int] = set()
    for item in wanted:
        if isinstance(item, int):
            found.add(item)
            continue
        found |= {i for i, text in enumerate(texts) if _ends_in(text, item)}
    if not found:
        raise ValueError(f"boundary: no token of the vocabulary ends in any of {list(wanted)!r}")
    return frozenset(found)


def _ends_in(text: str, boundary: str) -> bool:
    """White space behind the boundary belongs to it: ".\\n" ends a sentence, "\\n  " is a newline."""
    return bool(text) and (text.rstrip().endswith(boundary) or text.rstrip(" \t").endswith(boundary))


def _table_row(
    budget: Budget, texts: ForcedTexts, markers: Markers, flags: torch.Tensor, boundary_mask: int, pad_id: int
) -> list[int]:
    header = [0] * len(Column)
    body: list[int] = []

    def place(ids: Sequence[int]) -> int:
        at = len(header) + len(body)
        body.extend(ids)
        return at

    def limit(value: int | None) -> int:
        return UNLIMITED if value is None else value

    blank = [bool(int(flags[i]) & TokenFlag.WHITESPACE) for i in markers.start]
    closing = place([*texts.closing, END_OF_TEXT])
    extension = place([*texts.extension, END_OF_TEXT])
    notices = [entry for used, ids in texts.notices for entry in (used, place([*ids, END_OF_TEXT]))]
    last = markers.start_pattern.last_ids
    for column, value in {
        Column.THINKING_LIMIT: limit(budget.thinking),
        Column.SOLUTION_LIMIT: limit(budget.solution),
        Column.TOTAL_LIMIT: limit(budget.total),
        Column.MIN_THINKING: budget.min_thinking,
        Column.MAX_EXTENSIONS: budget.max_extensions,
        Column.GRACE: budget.grace,
        Column.BOUNDARY_MASK: boundary_mask,
        Column.EOS_STOPS: int(budget.on_eos == "stop"),
        Column.FORBID_REOPEN: int(budget.on_reopen == "forbid"),
        Column.PAD_ID: pad_id,
        Column.START_LENGTH: len(markers.start),
        Column.START_AT: place(markers.start),
        Column.START_WHITESPACE: next((i for i, b in enumerate(blank) if not b), len(blank)),
        Column.START_LAST_COUNT: len(last),
        Column.START_LAST_AT: place(last),
        Column.END_LENGTH: len(markers.end),
        Column.CLOSING_AT: closing,
        Column.CLOSING_MARKER_AT: closing + texts.marker,
        Column.CLOSING_TAIL_AT: closing + texts.tail,
        Column.EXTENSION_AT: extension,
        Column.NOTICE_COUNT: len(texts.notices),
        Column.NOTICES_AT: place(notices),
    }.items():
        header[column] = value
    return header + body
