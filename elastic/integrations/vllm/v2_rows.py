"""Which request with a budget has which of vLLM's slots, and what it takes along when it is preempted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from elastic.integrations.request_values import RequestBudget
from elastic.integrations.vllm.settings import Settings
from elastic.integrations.vllm.table import BudgetTable
from elastic.integrations.vllm.v2_states import Kept, SlotStates

# A request's own row, on its SamplingParams. vLLM hands on the same object when a preempted request returns,
# as long as scheduler and worker share a process; else the request is read back from its tokens alone.
_ROW = "_elastic_row"


@dataclass(eq=False)
class Row:
    """A request with a budget.

    Attributes:
        request: what it asked for.
        prompt: tokens of its prompt.
        seed: of its draws.
        slot: its slot, -1 for none.
        table: where its budget is compiled, while it has a slot.
        budget: row of that table.
        kept: its states, while it has no slot.
        returned: whether its slot holds states from before it was preempted.
    """

    request: RequestBudget
    prompt: int
    seed: int
    slot: int = -1
    table: BudgetTable | None = None
    budget: int = -1
    kept: Kept | None = None
    returned: bool = False


class Rows:
    """The requests with a budget in S slots.

    vLLM does not say when a request leaves its slot, nor why. It has left when another one takes the slot,
    and might return.

    Args:
        settings: of the server.
        states: of the slots.
        slots: S.

    Attributes:
        tables: [S] numpy int64, a number for the table of each slot's request; 0 without a budget.
    """

    def __init__(self, settings: Settings, states: SlotStates, slots: int, device: Any):
        self._settings, self._states = settings, states
        self._compiled = settings.tables(slots, device)
        self._in_slot: list[Row | None] = [None] * slots
        self.tables = np.zeros(slots, dtype=np.int64)

    def table(self, slot: int) -> BudgetTable:
        """The table of the request in a slot, which has a budget."""
        row = self._in_slot[slot]
        assert row is not None
        assert row.table is not None
        return row.table

    def take(self, slot: int, params: Any, prompt: int, resumed: bool) -> Row | None:
        """A request takes a slot.

        Args:
            slot: the slot.
            params: its sampling parameters.
            prompt: tokens of its prompt.
            resumed: whether it has emitted tokens.

        Returns:
            Its row, None if it has no budget.
        """
        self._leave(slot)
        request = self._settings.request(params)
        if request is None:
            return None
        row = self._known(params, prompt, resumed)
        if row is None:
            row = Row(request, prompt, self._settings.seed(params))
        # Samples of one prompt may share the object, which then tells none of them.
        setattr(params, _ROW, row if row.returned or not hasattr(params, _ROW) else None)
        if row.kept is not None:
            self._states.put(slot, row.kept)
            row.kept = None
        markers = self._settings.markers(request.end_markers)
        row.table, row.budget = self._compiled.acquire(request.budget, markers)
        row.slot, self._in_slot[slot], self.tables[slot] = slot, row, id(row.table)
        return row

    def _known(self, params: Any, prompt: int, resumed: bool) -> Row | None:
        """The row of a request that returns."""
        row: Row | None = getattr(params, _ROW, None)
        if row is None or not resumed or row.prompt != prompt:
            return None
        if row.slot >= 0:
            self._leave(row.slot)
        row.returned = True
        return row

    def _leave(self, slot: int) -> None:
        row, self._in_slot[slot], self.tables[slot] = self._in_slot[slot], None, 0
        if row is None:
            return
        assert row.table is not None
        row.table.release(row.budget)
        row.kept = self._states.kept(slot)
        row.slot, row.table = -1, None
