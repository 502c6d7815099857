"""Readers of the budget machine's state. B rows.

They need no machine. They are tensor operations, so no step reads device memory on the host (R16). They
return new tensors, which later steps do not change, and raise TypeError or ValueError unless the state is [B,
8] int32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from elastic.budget import Phase
from elastic.ops._inputs import check_tensor, dtype_name

STATE_WIDTH = 8
# Columns of the state; STATUS packs phase, last phase, finish reason (4 bits each) and more, EXTENSIONS the
# notices too: `csrc/core/budget_state.h`.
BUDGET, STATUS, THINKING_USED, SOLUTION_USED, MATCH, EXTENSIONS, RECLOSE, FORCED_AT = range(STATE_WIDTH)
# A row whose thinking was ended from outside and whose closing waits for no character (R22): in STATUS the
# phase, the bit, and no token waited.
ENDED_MASK, ENDED_THINKING = 3 << 22 | 1 << 13 | 15, 1 << 13 | int(Phase.THINKING)


def state_phase(state: Tensor) -> Tensor:
    """[B] int32 of `Phase`, of the token emitted next.

    CLOSING once thinking was ended from outside, unless a notice or a whole character comes first (R21, R22).
    """
    status = _column("state_phase", state, STATUS)
    return torch.where((status & ENDED_MASK) == ENDED_THINKING, int(Phase.CLOSING), status & 15)


def last_phase(state: Tensor) -> Tensor:
    """[B] int32, phase of the token emitted last; before the first, the phase the row starts in."""
    return _column("last_phase", state, STATUS) >> 4 & 15


def finish_reason(state: Tensor) -> Tensor:
    """[B] int32 of `FinishReason`; RUNNING while the row goes on."""
    return _column("finish_reason", state, STATUS) >> 8 & 15


def thinking_cut(state: Tensor) -> Tensor:
    """[B] bool, whether closing tokens were forced: at a limit (R1), for an EOS (R6), or by a call (R22)."""
    return (_column("thinking_cut", state, STATUS) >> 12 & 1).bool()


def is_done(state: Tensor) -> Tensor:
    """[B] bool, whether the row emits only padding from here on."""
    return (_column("is_done", state, STATUS) & 15) == int(Phase.DONE)


def thinking_used(state: Tensor) -> Tensor:
    """[B] int32, thinking tokens sampled so far, and those given to `new_state`.

    Tokens of a natural end count until it completes.
    """
    return _column("thinking_used", state, THINKING_USED).clone()


def solution_used(state: Tensor) -> Tensor:
    """[B] int32, solution tokens sampled, EOS and an end that opens something (R18) included.

    In OPENING it counts the tokens of a start marker in progress.
    """
    return _column("solution_used", state, SOLUTION_USED).clone()


def _column(op: str, state: Tensor, column: int) -> Tensor:
    check_tensor(op, "state", state, state)
    if state.dtype != torch.int32:
        raise TypeError(f"{op}: state: expected int32, got {dtype_name(state)}")
    if state.dim() != 2 or state.shape[1] != STATE_WIDTH:
        raise ValueError(f"{op}: state: expected shape [B, {STATE_WIDTH}], got {list(state.shape)}")
    return state[:, column]
