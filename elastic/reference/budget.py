"""The budget ops in plain Python, row by row: the readable specification of SPEC section 2.

Same arguments and results as `elastic.ops`. Slow: it reads the state back to the host at every step. The
rules themselves stand in `budget_rules.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from elastic.budget import Phase, Source
from elastic.budget.machine import Machine
from elastic.reference.budget_rules import rules_of
from elastic.reference.budget_state import Row, end_thinking, load_rows


def new_state(
    rows: int | Tensor,
    machine: Machine,
    *,
    starts_in_thinking: bool | Tensor = True,
    phase: Tensor | None = None,
    thinking_used: int | Tensor | None = None,
) -> Tensor:
    """See `elastic.ops.new_state`."""
    budgets = [0] * rows if isinstance(rows, int) else rows.tolist()
    opened = torch.as_tensor(starts_in_thinking).expand(len(budgets))
    if phase is None:
        phase = torch.where(opened, int(Phase.THINKING), int(Phase.OPENING))
    rules = rules_of(machine)
    used = torch.as_tensor(0 if thinking_used is None else thinking_used).expand(len(budgets)).tolist()
    starts = zip(budgets, phase.tolist(), used, strict=True)
    states = [rules[b].initial(b, p, u).store() for b, p, u in starts]
    return torch.tensor(states, dtype=torch.int32, device=machine.tables.device).reshape(-1, 8)


def end_thinking_(state: Tensor, rows: Tensor) -> None:
    """See `elastic.ops.end_thinking_`."""
    for r in (rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows).tolist():
        row = Row.load(state[r].tolist())
        end_thinking(row)
        state[r] = torch.tensor(row.store(), dtype=torch.int32)


def budget_step_(tokens: Tensor, state: Tensor, machine: Machine, *, active: Tensor | None = None) -> Tensor:
    """See `elastic.ops.budget_step_`."""
    rules = rules_of(machine)
    rows = load_rows(state, machine)
    emitted = [rules[row.budget].step(row, token) for row, token in zip(rows, tokens.tolist(), strict=True)]
    if rows:
        tokens.copy_(torch.tensor([token for token, _ in emitted]))
        state.copy_(torch.tensor([row.store() for row in rows], dtype=torch.int32))
    if active is not None:
        active.fill_(sum(row.phase != Phase.DONE for row in rows))
    return torch.tensor([int(source) for _, source in emitted], dtype=torch.uint8, device=tokens.device)


def force_logits_(logits: Tensor, state: Tensor, machine: Machine) -> None:
    """See `elastic.ops.force_logits_`."""
    rules = rules_of(machine)
    for i, row in enumerate(load_rows(state, machine)):
        rule = rules[row.budget]
        rule.settle(row)
        forced = rule.next_forced(row)
        if forced is not None:
            logits[i] = -torch.inf
            logits[i, forced] = 0
        else:
            logits[i, [token for token in rule.masked(row) if token < logits.shape[1]]] = -torch.inf


def forced_next(state: Tensor, machine: Machine) -> Tensor:
    """See `elastic.ops.forced_next`."""
    rules = rules_of(machine)
    rows = load_rows(state, machine)
    for row in rows:
        rules[row.budget].settle(row)
    forced = [rules[row.budget].next_forced(row) for row in rows]
    ids = [-1 if token is None else token for token in forced]
    return torch.tensor(ids, dtype=torch.int32, device=state.device)


def replay(
    tokens: Tensor,
    lengths: Tensor,
    state: Tensor,
    machine: Machine,
    *,
    source: Tensor | None = None,
    ended: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `elastic.ops.replay`."""
    rules = rules_of(machine)
    phase = torch.full(tokens.shape, int(Phase.DONE), dtype=torch.uint8, device=tokens.device)
    read = torch.full(tokens.shape, int(Source.PAD), dtype=torch.uint8, device=tokens.device)
    after, mismatch = state.clone(), torch.full_like(lengths, -1)
    rows = load_rows(state, machine)
    ends = [-1] * len(rows) if ended is None else ended.tolist()
    for r, (row, history, length) in enumerate(zip(rows, tokens.tolist(), lengths.tolist(), strict=True)):
        for i, token in enumerate(history[:length]):
            if i == ends[r]:
                end_thinking(row)
            hint = None if source is None else int(source[r, i])
            result = rules[row.budget].replay(row, token, hint)
            if result is None:
                mismatch[r] = i
                break
            row, read[r, i] = result
            phase[r, i] = row.last_phase
        if ends[r] == length and mismatch[r] < 0:
            end_thinking(row)
        after[r] = torch.tensor(row.store(), dtype=torch.int32)
    return phase, read, after, mismatch
