"""Compiles budgets into the tables that the budget ops read.

One int32 row per budget (`elastic.budget.table`), one int64 entry per token; `csrc/core/budget_state.h` has
both layouts. Whatever depends on markers or tokenizer is checked before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from elastic.budget import token_text
from elastic.budget.eos import EosIds, eos_tuple, pad_of, tokenizer_eos
from elastic.budget.forced_text import ForcedTexts, forced_texts
from elastic.budget.kinds import Phase
from elastic.budget.markers import Markers
from elastic.budget.table import END_OF_TEXT, table_row
from elastic.budget.values import BudgetValues

if TYPE_CHECKING:  # at run time torch is loaded to compile budgets: a command line checks them without
    import torch

OPENING_WHITESPACE_LIMIT = 32  # csrc/core/budget_state.h
START_SHIFT = 8
END_SHIFT = 32
CHARACTER_SHIFT = 60
JOINS = -(1 << 63)
FIRST_BOUNDARY_BIT = 3
BOUNDARY_BITS = 5
SENTENCE_ENDS = ("\n", ".", "!", "?")


class TokenFlag(IntEnum):
    """Low bits of a token's entry.

    Above them come five boundary sets (R13), the places in start markers and in natural ends, and what the
    token leaves of a character (R21). The sign, `JOINS`: it ends a marker and begins one of the other kind.
    """

    EOS = 1
    WHITESPACE = 2
    TEXT_BEFORE_START = 4


@dataclass(frozen=True, eq=False)
class Machine:
    """Compiled budgets: what the ops need besides a row's state.

    Attributes:
        tables: [M, W] int32, one row per distinct budget.
        token_flags: [V'] int64, one entry per token; ids from V' on have no meaning to the machine.
        budgets: the M budgets.
        markers: the markers they were compiled for.
        pad_id: what finished rows emit.
        smallest_vocab: logits need at least this many columns, or a forced token would have none.
    """

    tables: torch.Tensor
    token_flags: torch.Tensor
    budgets: tuple[BudgetValues, ...]
    markers: Markers
    pad_id: int
    smallest_vocab: int

    def to(self, device: torch.device | str) -> Machine:
        """The same machine with its tensors on `device`."""
        return replace(self, tables=self.tables.to(device), token_flags=self.token_flags.to(device))


def compile_budgets(
    budgets: Sequence[BudgetValues],
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
        ValueError: no budgets; a closing text without exactly one end marker, or with another marker where it
            may hold none (R4); an extension or notice that holds, completes or begins a marker (R11, R12); no
            token for a boundary (R13); `whole_characters` without a tokenizer (R21); EOS ids inside a marker
            or a forced text. The message names the text.
    """
    import torch

    if len(budgets) == 0:
        raise ValueError("budgets: expected at least one budget, got none")
    tokenizer = tokenizer if tokenizer is not None else markers.tokenizer
    eos = frozenset(tokenizer_eos(tokenizer) if eos_ids is None else eos_tuple(eos_ids))
    for name, pattern in (("start", markers.start_pattern), ("end", markers.ends_pattern)):
        for ids in (spelling.ids for spelling in pattern.spellings):
            if eos & set(ids):
                raise ValueError(f"eos_ids: {sorted(eos & set(ids))} belong to the {name} marker {list(ids)}")
    if pad_id is None:
        pad_id = pad_of(tokenizer, eos)

    rows: dict[BudgetValues, int] = {}
    index = [rows.setdefault(budget, len(rows)) for budget in budgets]
    texts = [forced_texts(budget, markers, tokenizer, eos) for budget in rows]
    flags, masks = _flags_and_masks(list(rows), markers, tokenizer, eos)
    blank = [bool(entry & TokenFlag.WHITESPACE) for entry in flags]
    compiled = [
        table_row(budget, text, markers, blank.__getitem__, eos, mask, pad_id)
        for budget, text, mask in zip(rows, texts, masks, strict=True)
    ]
    width = max(len(row) for row in compiled)
    tables = torch.tensor([row + [END_OF_TEXT] * (width - len(row)) for row in compiled], dtype=torch.int32)
    smallest = max(smallest_vocab(text, markers, pad_id) for text in texts)
    machine = Machine(tables, torch.tensor(flags, dtype=torch.int64), tuple(rows), markers, pad_id, smallest)
    return machine, torch.tensor(index, dtype=torch.int64)


def smallest_vocab(texts: ForcedTexts, markers: Markers, pad_id: int) -> int:
    """Columns that logits need so that every forced token has one."""
    forced = [token for ids in texts.all for token in ids]
    starts = [token for spelling in markers.start_spellings for token in spelling.ids]
    return max([pad_id, *forced, *starts]) + 1


def max_tokens(
    budget: BudgetValues, markers: Markers, tokenizer: Any, phase: Phase, thinking_used: int
) -> int | None:
    """See `Budget.max_tokens`."""
    sampled = budget.sampled_from(phase, thinking_used)
    if sampled is None:
        return None
    tokenizer = tokenizer if tokenizer is not None else markers.tokenizer
    texts = forced_texts(budget, markers, tokenizer, frozenset())
    if phase == Phase.SOLUTION:
        return sampled
    tail = len(texts.closing) - texts.tail
    # What ends thinking uncounted: F, the rest of a marker begun and what follows it, or a natural end.
    closings = [len(texts.closing), *(len(rest) + tail for rest in texts.rests)]
    closings += [len(s) for end in markers.ends if not end.opens for s in end.spellings]
    closings += [len(s) for s in markers.end_spellings]
    forced = max(closings) + sum(len(ids) for _, ids in texts.notices)
    forced += budget.max_extensions * len(texts.extension)
    start = max(len(spelling) for spelling in markers.start_spellings)
    opening = start + OPENING_WHITESPACE_LIMIT if phase == Phase.OPENING else 0
    return sampled + forced + opening


def _flags_and_masks(
    budgets: list[BudgetValues], markers: Markers, tokenizer: Any, eos: frozenset[int]
) -> tuple[list[int], list[int]]:
    """The entry of every token, and the boundary mask of every budget."""
    texts = token_text.token_texts(tokenizer) if tokenizer is not None else []
    sets = [boundary_ids(budget, texts) for budget in budgets]
    distinct = list(dict.fromkeys(s for s in sets if s))
    if len(distinct) > BOUNDARY_BITS:
        raise ValueError(
            f"boundary: expected at most {BOUNDARY_BITS} different sets in a batch, got {len(distinct)}"
        )
    flags = token_flags(distinct, markers, tokenizer, eos, _character_codes(budgets, tokenizer))
    return flags, [boundary_mask(distinct.index(s)) if s else 0 for s in sets]


def boundary_mask(bit: int) -> int:
    """The bit of boundary set 0 .. BOUNDARY_BITS - 1 in a token's entry."""
    return 1 << (FIRST_BOUNDARY_BIT + bit)


def token_flags(
    boundaries: Sequence[frozenset[int]],
    markers: Markers,
    tokenizer: Any,
    eos: frozenset[int],
    codes: Sequence[int] = (),
) -> list[int]:
    """The entry of every token.

    Args:
        boundaries: the boundary sets (R13), set i in bit i; at most `BOUNDARY_BITS`.
        markers: the model's markers.
        tokenizer: knows white space; may be None.
        eos: ids that end a sequence.
        codes: what each token leaves of a character (R21); empty where no budget asks.
    """
    texts = token_text.token_texts(tokenizer) if tokenizer is not None else []
    places = (markers.start_pattern.places, markers.ends_pattern.places)
    ids = [*eos, *places[0], *places[1], *(i for s in boundaries for i in s), len(texts) - 1]
    flags = [0] * (max(ids) + 1)
    for i, text in enumerate(texts):
        flags[i] |= TokenFlag.WHITESPACE if text.isspace() else 0
    for bit, members in enumerate(boundaries):
        for i in members:
            flags[i] |= boundary_mask(bit)
    for shift, table in zip((START_SHIFT, END_SHIFT), places, strict=True):
        for i, mask in table.items():
            flags[i] |= mask << shift
    for i in (i for spelling in markers.start_spellings for i in spelling.text_before):
        flags[i] |= TokenFlag.TEXT_BEFORE_START
    for i in _joining(markers):
        flags[i] |= JOINS
    for i, code in enumerate(codes):
        flags[i] |= code << CHARACTER_SHIFT
    for i in eos:
        flags[i] = int(TokenFlag.EOS)
    return flags


def _joining(markers: Markers) -> set[int]:
    """Tokens such as "></", which end a marker and begin one of the other kind behind it."""
    sides = (markers.start_pattern.spellings, markers.ends_pattern.spellings)
    first, last = (
        [{i for s in side for i in getattr(s, name)} for side in sides] for name in ("first", "last")
    )
    return last[0] & first[1] | last[1] & first[0]


def _character_codes(budgets: list[BudgetValues], tokenizer: Any) -> list[int]:
    """What each token leaves of a character, where any budget asks (R21)."""
    if not any(budget.whole_characters for budget in budgets):
        return []
    if tokenizer is None:
        raise ValueError(
            "whole_characters: expected a tokenizer, which knows the bytes of tokens, or False; got True"
        )
    return token_text.character_codes(tokenizer)


def boundary_ids(budget: BudgetValues, texts: list[str]) -> frozenset[int]:
    """The tokens at which a budget's grace ends (R13), by the vocabulary's texts; empty without grace."""
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
