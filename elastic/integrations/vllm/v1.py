"""Budgets under vLLM's first model runner: rows of a batch that come, go and move.

S slots, one per request with a budget, which keeps it while vLLM moves the request's row; B rows of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from elastic import ops
from elastic.budget import Markers, Phase
from elastic.integrations.request_values import RequestBudget
from elastic.integrations.vllm.on_device import on_device
from elastic.integrations.vllm.table import BudgetTable, BudgetTables
from elastic.ops.state import BUDGET, STATE_WIDTH
from elastic.sampling import SampleOutput

# A request's own, on its SamplingParams: they live exactly as long as it does, also while it is preempted.
_ROW = "_elastic_row"


@dataclass(eq=False)
class Row:
    """A request with a budget.

    Attributes:
        request: what it asked for.
        phase: where it starts.
        seed: of its draws.
        output: vLLM's list of its tokens, which grows; -1 stands for a token still on its way.
        read: tokens that its state has read: those of `output`, and the one drawn since.
        kept: [2, 8] int32, the state and the one before the last draw, while it is in no slot.
        slot: its slot, or -1.
        table: where its budget is compiled, while it is in a slot.
        budget: row of that table.
    """

    request: RequestBudget
    phase: Phase
    seed: int
    output: list[int]
    read: int = 0
    kept: Tensor | None = None
    slot: int = -1
    table: BudgetTable | None = None
    budget: int = -1


@dataclass
class Group:
    """Rows that one call draws: those of one table.

    Attributes:
        rows: in the order of the batch.
        index: [B] int64, their rows in the batch.
        slots: [B] int64.
    """

    table: BudgetTable
    rows: list[Row]
    index: Tensor
    slots: Tensor


class Asked(Protocol):
    """What is asked of the server's `Settings`, or of whoever else knows the requests.

    Attributes:
        rows: most requests of a batch.
    """

    rows: int

    def request(self, params: Any) -> RequestBudget | None:
        """The budget of a request; None for none."""

    def seed(self, params: Any) -> int:
        """The seed of a request's draws."""

    def markers(self, ends: tuple[str, ...]) -> Markers:
        """Those of requests with these further ends."""

    def tables(self, rows: int, device: torch.device | str) -> BudgetTables:
        """Tables for so many different budgets at a time."""


class V1Budgets:
    """Draws the rows with a budget.

    vLLM throws away what a row draws while its prompt is prefilled in chunks, and may throw away more when it
    preempts a request. So the state before the last draw is kept, and each step first looks how many tokens
    the request has. Where even that does not fit, its tokens are read back (R10).

    Args:
        settings: of the server.
        device: of the logits.
    """

    def __init__(self, settings: Asked, device: torch.device | str) -> None:
        self._settings, self._device = settings, torch.device(device)
        slots = settings.rows
        self._tables = settings.tables(slots, device)
        self._states = torch.zeros(2, slots, STATE_WIDTH, dtype=torch.int32, device=device)  # now, and before
        self._seeds = torch.zeros(slots, dtype=torch.int64, device=device)
        self._top_k = torch.zeros(slots, dtype=torch.int64, device=device)
        self._floats = torch.zeros(3, slots, dtype=torch.float64, device=device)  # temperature, top_p, min_p
        self._most_kept = 0  # of `ops.sample`
        self._free = list(reversed(range(slots)))
        self._rows: dict[int, Row] = {}  # by row of the batch
        self._groups: list[Group] = []

    def update_state(self, update: Any) -> None:
        """Requests have left (`removed`), come (`added`) or moved, in this order."""
        if update is None:
            return
        # All leave first: when vLLM starts its requests anew, one may take the row of another in one step.
        for index in (*update.removed, *(added[0] for added in update.added)):
            self._leave(self._rows.pop(index, None))
        for index, params, prompt, output in update.added:
            self._enter(index, params, prompt, output)
        for source, target, direction in update.moved:
            moved, other = self._rows.pop(source, None), self._rows.pop(target, None)
            if moved is not None:
                self._rows[target] = moved
            if direction.name == "SWAP" and other is not None:
                self._rows[source] = other
            else:
                self._leave(other)
        self._groups = self._grouped()

    def apply(self, logits: Tensor) -> Tensor:
        """See `ElasticBudgets.apply`; logits [B', V], written in place."""
        for group in self._groups:
            positions = [len(row.output) for row in group.rows]
            for row, position in zip(group.rows, positions, strict=True):
                if position != row.read:
                    self._go_back(row, position)
            self._draw(group, logits, positions)
        return logits

    def _draw(self, group: Group, logits: Tensor, positions: list[int]) -> SampleOutput:
        slots = group.slots
        before = self._states[0, slots]
        state = before.clone()
        temperature, top_p, min_p = self._floats[:, slots]
        drawn = ops.sample(
            logits if len(group.rows) == len(logits) else logits[group.index],
            self._seeds[slots],
            on_device(positions, self._device),
            *(temperature, self._top_k[slots], top_p, min_p),
            state=state,
            machine=group.table.machine,
            broken=torch.zeros(1, dtype=torch.int32, device=self._device),  # such rows pad, which ends them
            most_kept=self._most_kept,
        )
        self._states[:, slots] = torch.stack([state, before])
        for row in group.rows:
            row.read += 1
        logits.index_fill_(0, group.index, -torch.inf)
        logits[group.index, drawn.tokens] = 0.0
        return drawn

    def _enter(self, index: int, params: Any, prompt: list[int] | None, output: list[int]) -> None:
        row: Row | None = getattr(params, _ROW, None)
        if row is None or row.slot >= 0:
            request = self._settings.request(params)
            if request is None:
                return
            markers = self._settings.markers(request.end_markers)
            row = Row(request, request.start(markers, prompt or ()), self._settings.seed(params), output)
            # Samples of one prompt may share the object, which then tells none of them.
            setattr(params, _ROW, None if hasattr(params, _ROW) else row)
        row.output = output
        row.table, row.budget = self._tables.acquire(
            row.request.budget, self._settings.markers(row.request.end_markers)
        )
        row.slot = slot = self._free.pop()
        self._rows[index] = row
        if row.kept is None:
            row.read = -1  # nothing to go back to
        else:
            row.kept[:, BUDGET] = row.budget
            self._states[:, slot] = row.kept
        greedy = params.temperature < 1e-5  # as vLLM has it
        floats = [0.0 if greedy else params.temperature, params.top_p, params.min_p]
        self._floats[:, slot] = on_device(floats, self._device, torch.float64)
        self._seeds[slot], self._top_k[slot] = row.seed, max(params.top_k, 0)
        if row.read != len(output):
            self._go_back(row, len(output))

    def _leave(self, row: Row | None) -> None:
        if row is None:
            return
        assert row.table is not None
        row.kept = self._states[:, row.slot].clone()
        row.table.release(row.budget)
        self._free.append(row.slot)
        row.table, row.slot = None, -1

    def _go_back(self, row: Row, tokens: int) -> None:
        """Makes a row's state that behind so many of its tokens."""
        if tokens == row.read - 1:
            self._states[0, row.slot] = self._states[1, row.slot]
        else:
            self._states[:, row.slot] = self._read_back(row, tokens)
        row.read = tokens

    def _read_back(self, row: Row, tokens: int) -> Tensor:
        """[1, 8], the state behind a history, or behind as much of it as the budget allows."""
        assert row.table is not None
        machine = row.table.machine
        used = [row.request.thinking_used]
        state = ops.new_state([row.budget], machine, phase=[int(row.phase)], thinking_used=used)
        history = on_device([row.output[:tokens]], self._device)
        return ops.replay(history, on_device([tokens], self._device), state, machine)[2]

    def _grouped(self) -> list[Group]:
        by_table: dict[int, list[int]] = {}
        for index in sorted(self._rows):
            by_table.setdefault(id(self._rows[index].table), []).append(index)
        groups = []
        for indices in by_table.values():
            rows = [self._rows[index] for index in indices]
            assert rows[0].table is not None
            slots = [row.slot for row in rows]
            tensors = [on_device(of, self._device) for of in (indices, slots)]
            groups.append(Group(rows[0].table, rows, *tensors))
        return groups
