"""Budgets under vLLM's V2 runner, speculative decoding included.

vLLM calls `add_request` for every request that takes a slot, `apply_staged_writes` once a step, and `apply`
on the step's logits, before temperature and filters. Under speculative decoding a request has a row for its
last token and one for each draft token behind it.

`apply` draws every row itself and leaves vLLM one token to choose. So a draft token is accepted exactly where
it is the token drawn in front of it, and the tokens are those of plain decoding, at any temperature.

S slots, k draft tokens at most, N rows and R requests of a step, B of them under one table, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from elastic import ops
from elastic.budget import Machine
from elastic.integrations.vllm.on_device import on_device
from elastic.integrations.vllm.settings import Settings
from elastic.integrations.vllm.v2_prompt import PROMPT_TAIL, prompt_phase
from elastic.integrations.vllm.v2_rows import Row, Rows
from elastic.integrations.vllm.v2_states import SlotStates

if TYPE_CHECKING:
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState

_READ_PHASE = -1  # of a row that starts where its prompt says
_PROMPT = 2  # row of `V2Budgets._integers`


class V2Budgets:
    """Draws the rows with a budget.

    No step reads the device, nor loops over requests in Python. A request that takes a slot costs a few
    copies to the device.

    Args:
        settings: of the server.
        req_states: vLLM's buffers; only read.
    """

    def __init__(self, settings: Settings, req_states: LogitsProcRequestState) -> None:
        slots, self._device = req_states.max_num_reqs, req_states.device
        self._vllm, self._drafts = req_states, settings.drafts
        self._states = SlotStates(slots, settings.drafts, self._device)
        self._rows = Rows(settings, self._states, slots, self._device)
        self._new: dict[int, tuple[Row, Any]] = {}  # by slot: since the last step, with their parameters
        # Of each slot: seed, top_k and prompt length; temperature, top_p and min_p.
        self._integers = torch.zeros(3, slots, dtype=torch.int64, device=self._device)
        self._reals = torch.ones(3, slots, dtype=torch.float64, device=self._device)
        # A row whose logits are broken takes no step and emits padding, which ends it; nothing reads which.
        self._broken = torch.zeros(1, dtype=torch.int32, device=self._device)

    def add_request(self, slot: int, params: Any) -> bool:
        """A request takes a slot, new or back from preemption; whether it has a budget."""
        prompt, length = int(self._vllm.prompt_len.np[slot]), int(self._vllm.prefill_len.np[slot])
        self._new.pop(slot, None)
        row = self._rows.take(slot, params, prompt, length > prompt)
        if row is not None:
            self._new[slot] = row, params
        return row is not None

    def apply_staged_writes(self) -> None:
        """Gives the requests that took slots their states; vLLM has written their tokens by now."""
        arrived, self._new = list(self._new.values()), {}
        if not arrived:
            return
        rows = [row for row, _ in arrived]
        slots = on_device([row.slot for row in rows], self._device)
        integers = [[row.seed, max(params.top_k, 0), row.prompt] for row, params in arrived]
        self._integers[:, slots] = on_device(integers, self._device).T
        reals = [[params.temperature, params.top_p, params.min_p] for _, params in arrived]
        self._reals[:, slots] = on_device(reals, self._device, torch.float64).T
        for table in {id(row.table): row.table for row in rows}.values():
            assert table is not None  # these rows have slots
            self._begin([row for row in rows if row.table is table], table.machine)

    def apply(self, logits: Tensor, ctx: LogitsContext) -> Tensor:
        """Draws the token of every row with a budget, and leaves vLLM nothing else to choose there.

        Args:
            logits: [N, V] float32, changed in place; rows of requests without a budget stay as they are.
            ctx: the step's layout.
        """
        tables = self._rows.tables[ctx.idx_mapping_np]
        with_budget = [int(number) for number in np.unique(tables) if number]
        if not with_budget:
            return logits
        # One more than there are rows: what is drawn behind a request's last row is written there.
        drawn = torch.full((len(logits) + 1,), -1, dtype=torch.int64, device=logits.device)
        for number in with_budget:
            batch = np.flatnonzero(tables == number)
            slots = ctx.idx_mapping.long()
            if len(batch) < len(slots):
                slots = slots[on_device(batch.tolist(), self._device)]
            self._draw(logits, ctx, slots, self._rows.table(ctx.idx_mapping_np[batch[0]]).machine, drawn)
        _leave_only(logits, drawn[:-1])
        return logits

    def _draw(
        self, logits: Tensor, ctx: LogitsContext, slots: Tensor, machine: Machine, drawn: Tensor
    ) -> None:
        """Draws the rows of some requests, [B] slots, into `drawn`."""
        lengths = self._vllm.total_len.gpu[slots].long()
        state = self._states.committed(slots, lengths)
        seeds, top_k, prompts = self._integers[:, slots]
        temperature, top_p, min_p = self._reals[:, slots]
        first, behind = self._first_rows(ctx)[slots], len(logits)
        # Every request has a row, so as many rows as requests means one each, in their order.
        most = 1 if behind == len(ctx.idx_mapping) else self._drafts + 1
        for step in range(most):
            rows = (first + step).clamp(max=behind - 1)
            mine = ctx.expanded_local_pos[rows] == step  # else the request has fewer rows
            out = ops.sample(
                logits if len(slots) == behind else logits[rows],
                *(seeds, lengths - prompts + step, temperature, top_k, top_p, min_p),
                state=state,
                machine=machine,
                broken=self._broken,
            )
            self._states.keep(slots, step, state)
            drawn.scatter_(0, torch.where(mine, rows, behind), out.tokens)

    def _first_rows(self, ctx: LogitsContext) -> Tensor:
        """[S + 1] int64, the first row of each slot in the step."""
        slots = self._integers.shape[1]
        rows = torch.arange(len(ctx.expanded_idx_mapping), device=self._device)
        owner = torch.where(ctx.expanded_local_pos == 0, ctx.expanded_idx_mapping.long(), slots)
        return rows.new_zeros(slots + 1).scatter_(0, owner, rows)

    def _begin(self, rows: Sequence[Row], machine: Machine) -> None:
        """The states of rows under one table: new ones, and those that return read back from their tokens."""
        of_rows = [(row.slot, row.budget, row.request.thinking_used) for row in rows]
        slots, budgets, used = on_device(of_rows, self._device).unbind(1)
        prompts = self._integers[_PROMPT, slots]
        given = [row.request.phase for row in rows]
        phase = on_device([_READ_PHASE if one is None else int(one) for one in given], self._device)
        if None in given:
            columns = prompts[:, None] + torch.arange(-PROMPT_TAIL, 0, device=self._device)
            tail = self._tokens(slots, columns)
            read = prompt_phase(tail, columns >= 0, machine.token_flags, machine.markers)
            phase = torch.where(phase == _READ_PHASE, read, phase)
        state = ops.new_state(budgets, machine, phase=phase, thinking_used=used)
        lengths = [int(self._vllm.prefill_len.np[row.slot]) for row in rows]
        emitted = [length - row.prompt for length, row in zip(lengths, rows, strict=True)]
        if any(emitted):
            columns = prompts[:, None] + torch.arange(max(emitted), device=self._device)
            tokens = self._tokens(slots, columns)
            state = ops.replay(tokens, on_device(emitted, self._device), state, machine)[2]
        returned = on_device([row.returned for row in rows], self._device, torch.bool)
        self._states.begin(slots, on_device(lengths, self._device), state, returned)

    def _tokens(self, slots: Tensor, columns: Tensor) -> Tensor:
        """[B, W] int64, what vLLM holds in these columns of these slots; anything where it has none."""
        tokens = self._vllm.all_token_ids.gpu
        return tokens[slots[:, None], columns.clamp(0, tokens.shape[1] - 1)].long()


def _leave_only(logits: Tensor, drawn: Tensor) -> None:
    """Leaves the rows that drew a token, [N] int64, no other to choose; -1 leaves a row as it is."""
    free = (drawn < 0)[:, None]
    token = drawn.clamp(min=0)[:, None]
    value = torch.where(free, logits.gather(1, token), 0.0)
    logits.masked_fill_(~free, -torch.inf).scatter_(1, token, value)
