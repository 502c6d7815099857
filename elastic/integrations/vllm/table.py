"""Compiled budgets of requests that come and go, in buffers that stay where they are.

The ops read one machine for a whole batch. Here its tables have room for every request of a batch: a budget
is compiled alone, into a free row, and its row is free again when the last request with it has gone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from elastic.budget import Budget, Machine, Markers
from elastic.budget.forced_text import forced_texts
from elastic.budget.machine import (
    BOUNDARY_BITS,
    TokenFlag,
    boundary_ids,
    boundary_mask,
    smallest_vocab,
    token_flags,
)
from elastic.budget.table import END_OF_TEXT, table_row
from elastic.budget.token_text import character_codes, token_texts
from elastic.integrations.vllm.on_device import on_device

# int32 per row at first, and at most: one long closing text must not take the memory of all rows.
FIRST_WIDTH = 256
MOST_WIDTH = 8192
MOST_IDLE = 4  # tables without a request that are kept: making one reads the whole vocabulary


class BudgetTable:
    """Budgets under the same markers.

    Args:
        markers: of all its budgets.
        tokenizer: a transformers tokenizer.
        eos_ids: every id that ends a request.
        pad_id: what finished rows emit.
        rows: most different budgets at a time.
        device: of the buffers.

    Attributes:
        machine: for the ops, with [rows, W] tables. Rows of states are those that `acquire` returned. Read it
            anew after `acquire`: tables move when they get wider.
        users: requests by table row.
    """

    def __init__(
        self,
        markers: Markers,
        tokenizer: Any,
        eos_ids: tuple[int, ...],
        pad_id: int,
        rows: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._tokenizer, self._eos, self._texts = tokenizer, frozenset(eos_ids), token_texts(tokenizer)
        self._flags = token_flags((), markers, tokenizer, self._eos, character_codes(tokenizer))
        tables = torch.full((rows, FIRST_WIDTH), END_OF_TEXT, dtype=torch.int32, device=device)
        flags = torch.tensor(self._flags, dtype=torch.int64, device=device)
        self.machine = Machine(tables, flags, (), markers, pad_id, pad_id + 1)
        self.users: dict[int, int] = {}
        self._row_of: dict[Budget, int] = {}
        self._free = list(reversed(range(rows)))
        self._bits: list[frozenset[int] | None] = [None] * BOUNDARY_BITS
        self._bit_of: dict[int, int] = {}  # table row -> boundary set

    def acquire(self, budget: Budget) -> int | None:
        """The table row of a budget, which one more request now uses.

        Returns:
            The row; None if budgets in use have taken all boundary sets (R13): use another table.

        Raises:
            ValueError: a text, boundary or width that the machine refuses, naming it (R4, R11, R12, R13).
            RuntimeError: every row is in use.
        """
        row = self._row_of.get(budget)
        if row is not None:
            self.users[row] += 1
            return row
        bit = self._boundary_bit(boundary_ids(budget, self._texts))
        if bit == BOUNDARY_BITS:
            return None
        words, smallest = self._compile(budget, 0 if bit is None else boundary_mask(bit))
        if not self._free:
            raise RuntimeError(f"budgets: all {self.machine.tables.shape[0]} table rows are in use")
        row = self._free.pop()
        self._write(row, words, smallest)
        self._row_of[budget], self.users[row] = row, 1
        if bit is not None:
            self._bit_of[row] = bit
        return row

    def release(self, row: int) -> None:
        """One request less uses a row."""
        self.users[row] -= 1
        if self.users[row]:
            return
        del self.users[row]
        self._bit_of.pop(row, None)
        self._row_of = {budget: own for budget, own in self._row_of.items() if own != row}
        self._free.append(row)

    def _compile(self, budget: Budget, mask: int) -> tuple[list[int], int]:
        markers, pad_id = self.machine.markers, self.machine.pad_id
        texts = forced_texts(budget, markers, self._tokenizer, self._eos)
        words = table_row(budget, texts, markers, self._is_blank, self._eos, mask, pad_id)
        if len(words) > MOST_WIDTH:
            raise ValueError(
                f"closing, extension, notices: expected texts that take at most {MOST_WIDTH} words of a "
                f"table row, a word per token, got {len(words)} words"
            )
        return words, smallest_vocab(texts, markers, pad_id)

    def _is_blank(self, token: int) -> bool:
        return bool(self._flags[token] & TokenFlag.WHITESPACE)

    def _write(self, row: int, words: list[int], smallest: int) -> None:
        tables = self.machine.tables
        width = tables.shape[1]
        if len(words) > width:
            while width < len(words):
                width *= 2
            wider = tables.new_full((tables.shape[0], width), END_OF_TEXT)
            wider[:, : tables.shape[1]] = tables
            tables = wider
        padded = words + [END_OF_TEXT] * (width - len(words))
        tables[row] = on_device(padded, tables.device, torch.int32)
        smallest = max(smallest, self.machine.smallest_vocab)
        self.machine = replace(self.machine, tables=tables, smallest_vocab=smallest)

    def _boundary_bit(self, members: frozenset[int]) -> int | None:
        """The bit that marks these tokens; None for no tokens, BOUNDARY_BITS where none is free."""
        if not members:
            return None
        if members in self._bits:
            return self._bits.index(members)
        used = set(self._bit_of.values())
        bit = next((bit for bit in range(BOUNDARY_BITS) if bit not in used), BOUNDARY_BITS)
        if bit == BOUNDARY_BITS:
            return bit
        outside = [token for token in members if token >= len(self._flags)]
        if outside:
            raise ValueError(f"boundary: expected token ids below {len(self._flags)}, got {min(outside)}")
        mask = boundary_mask(bit)
        for token, entry in enumerate(self._flags):
            marked = token in members and token not in self._eos
            self._flags[token] = entry | mask if marked else entry & ~mask
        flags = self.machine.token_flags
        flags.copy_(on_device(self._flags, flags.device))
        self._bits[bit] = members
        return bit


class BudgetTables:
    """Budgets under any markers: a table for each.

    Args:
        tokenizer, eos_ids, pad_id, rows, device: of every table, see `BudgetTable`.

    Attributes:
        open: the tables, the one used last behind the others.
    """

    def __init__(
        self,
        tokenizer: Any,
        eos_ids: tuple[int, ...],
        pad_id: int,
        rows: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._of_tables = (tokenizer, eos_ids, pad_id, rows, device)
        self.open: list[BudgetTable] = []

    def acquire(self, budget: Budget, markers: Markers) -> tuple[BudgetTable, int]:
        """The table and the row of a budget, which one more request now uses; the table releases it.

        Raises:
            ValueError, RuntimeError: as `BudgetTable.acquire`.
        """
        for table in self.open:
            if table.machine.markers == markers and (row := table.acquire(budget)) is not None:
                self._touch(table)
                return table, row
        table = BudgetTable(markers, *self._of_tables)
        row = table.acquire(budget)
        assert row is not None  # an empty table has boundary sets
        self._touch(table)
        return table, row

    def _touch(self, table: BudgetTable) -> None:
        others = [other for other in self.open if other is not table]
        idle = [other for other in others if not other.users]
        drop = idle[: max(0, len(idle) - MOST_IDLE)]
        self.open = [*(other for other in others if other not in drop), table]
