"""Budget ops: the state machine of SPEC section 2, one row a completion. B rows, V vocabulary, R rows, T
tokens.

The state is [B, 8] int32 and opaque; the readers below (`state_phase`, ...) take it apart with tensor
operations, so that no step reads device memory on the host (R16). Slicing, gathering and copying state rows
moves completions between slots; nothing else depends on a row's place in the batch (R15).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elastic import _extension as _extension  # registers torch.ops.elastic
from elastic.budget import Phase
from elastic.machine import Column, Machine

STATE_WIDTH = 8
# Columns of the state; STATUS packs phase, last phase, finish reason (4 bits each) and the cut bit.
BUDGET, STATUS, THINKING_USED, SOLUTION_USED, MATCH, EXTENSIONS, NOTICES, FORCED_AT = range(STATE_WIDTH)


def new_state(
    rows: int | Sequence[int] | Tensor,
    machine: Machine,
    *,
    starts_in_thinking: bool | Tensor = True,
    phase: Tensor | None = None,
) -> Tensor:
    """States of rows before their first token.

    Args:
        rows: how many rows, all under the machine's one budget; or [B] int64, each row's budget as an index
            into the machine's tables (`compile_budgets` returns it); any strides.
        machine: compiled budgets.
        starts_in_thinking: whether the prompt has opened the thinking block; else rows start in OPENING (R9).
            A bool, or [B] bool.
        phase: [B] int32 of `Phase` instead: OPENING, THINKING, SOLUTION, or DONE for an empty slot; any
            strides. `Markers.initial_phase` reads it from a prompt.

    Returns:
        [B, 8] int32 on the machine's device.

    Raises:
        ValueError: an index outside the tables, a phase no row starts in, or a number of rows for a machine
            with several budgets. Indices and phases that lie on a GPU are not read; an illegal one gives a
            row that is DONE and emits padding.
    """
    device = machine.tables.device
    if isinstance(rows, int):
        if len(machine.budgets) > 1:
            raise ValueError(
                f"new_state: rows: expected the budget index of each row, for {len(machine.budgets)} "
                f"budgets, got {rows}"
            )
        if rows < 0:
            raise ValueError(f"new_state: rows: expected at least 0, got {rows}")
        budgets = torch.zeros(rows, dtype=torch.int64, device=device)
    else:
        budgets = torch.as_tensor(rows, dtype=torch.int64)
    if phase is None:
        opened = torch.as_tensor(starts_in_thinking, device=budgets.device)
        if opened.dim() > 0 and opened.shape != budgets.shape:
            raise ValueError(
                f"new_state: starts_in_thinking: expected a bool or shape {list(budgets.shape)}, "
                f"got {list(opened.shape)}"
            )
        opened = opened.expand(budgets.shape)
        phase = torch.where(opened, int(Phase.THINKING), int(Phase.OPENING)).to(torch.int32)
    # What is still on the host is made there, where the op checks the values, and copied over: on one path
    # for machines on CPU and GPU, so that a CPU's tests run what a GPU gets.
    on_host = budgets.device.type == "cpu" and phase.device.type == "cpu"
    tables = machine.tables.cpu() if on_host else machine.tables
    state = torch.ops.elastic.new_state(
        budgets.to(tables.device).contiguous(), phase.to(tables.device).contiguous(), tables
    )
    return state.to(device)


def budget_step_(tokens: Tensor, state: Tensor, machine: Machine, *, active: Tensor | None = None) -> Tensor:
    """One step of every row: turns sampled tokens into emitted ones, in place.

    Deterministic; one kernel launch on CUDA whatever B is, safe inside a CUDA graph, no host synchronisation.

    Args:
        tokens: [B] int64, in: sampled, out: emitted. What a forced or finished row "sampled" is ignored.
        state: [B, 8] int32, updated in place.
        machine: compiled budgets, on the tokens' device.
        active: [1] int32 or None; set to the number of rows that go on. Copy it to the host asynchronously
            every few steps: rows that end meanwhile emit padding.

    Returns:
        [B] uint8 of `Source`.

    Raises:
        TypeError: a wrong dtype. ValueError: a wrong shape, device or layout.
    """
    return torch.ops.elastic.budget_step_(tokens, state, machine.tables, machine.token_flags, active)


def force_logits_(logits: Tensor, state: Tensor, machine: Machine) -> None:
    """Makes sampling give what the budget will emit anyway, in place.

    Rows that will be forced, and finished rows, get -inf everywhere but 0 at that id. Rows that may not
    reopen thinking (R8, "forbid") get -inf at the tokens that would complete the start marker. Other rows are
    not touched.

    Args:
        logits: [B, V] float32, bfloat16, float16 or float64; rows may be strided. Not differentiable.
        state: [B, 8] int32, unchanged; any strides.
        machine: compiled budgets, on the logits' device.

    Raises:
        TypeError: a wrong dtype. ValueError: a wrong shape, device or layout, or fewer columns than forced
            ids need.
    """
    if logits.dim() == 2 and logits.shape[1] < machine.smallest_vocab:
        raise ValueError(
            f"force_logits_: logits: expected at least {machine.smallest_vocab} columns for the ids of "
            f"markers and forced texts, got shape {list(logits.shape)}"
        )
    torch.ops.elastic.force_logits_(logits, state.contiguous(), machine.tables)


def replay(
    tokens: Tensor, lengths: Tensor, state: Tensor, machine: Machine, *, source: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reads token histories back: what each token was, and the state a live row would be in behind them
    (R10).

    Args:
        tokens: [R, T] int64, padded at the end. Any strides, as everything that is only read.
        lengths: [R] int64, tokens of each row, at most T.
        state: [R, 8] int32 from `new_state`, or any later state to go on from; unchanged.
        machine: compiled budgets, on the tokens' device.
        source: [R, T] uint8, the recorded sources, or None. Only they tell apart a token that replaced an EOS
            (R6) or an early end marker (R11) from the same token sampled; without them it reads as sampled.

    Returns:
        phase [R, T] uint8 and source [R, T] uint8 of every token, DONE and PAD behind the length; the state
        [R, 8] behind the last token read; [R] int64, the first position that no row under this budget can
        have emitted, -1 if there is none. Reading stops there.
    """
    return torch.ops.elastic.replay(
        tokens.contiguous(),
        lengths.contiguous(),
        state.contiguous(),
        machine.tables,
        machine.token_flags,
        None if source is None else source.contiguous(),
    )


def state_phase(state: Tensor) -> Tensor:
    """[B] int32, phase of the token emitted next (`Phase`)."""
    return state[:, STATUS] & 15


def last_phase(state: Tensor) -> Tensor:
    """[B] int32, phase of the token emitted last; before the first, the phase the row starts in."""
    return state[:, STATUS] >> 4 & 15


def finish_reason(state: Tensor) -> Tensor:
    """[B] int32 of `FinishReason`; RUNNING while the row goes on."""
    return state[:, STATUS] >> 8 & 15


def thinking_cut(state: Tensor) -> Tensor:
    """[B] bool, whether closing tokens were forced: by the budget (R1) or in place of an EOS (R6)."""
    return (state[:, STATUS] >> 12 & 1).bool()


def is_done(state: Tensor) -> Tensor:
    """[B] bool, whether the row emits only padding from here on."""
    return state_phase(state) == int(Phase.DONE)


def thinking_used(state: Tensor) -> Tensor:
    """[B] int32, thinking tokens sampled so far; those of an end marker count until it completes."""
    return state[:, THINKING_USED]


def solution_used(state: Tensor) -> Tensor:
    """[B] int32, solution tokens sampled, EOS included; in OPENING those of a start marker in progress."""
    return state[:, SOLUTION_USED]


def forced_next(state: Tensor, machine: Machine) -> Tensor:
    """[B] int32, the id that the row emits next whatever is sampled; -1: it is free, padding: it is done."""
    tables = machine.tables[state[:, BUDGET].long()]
    at = state[:, FORCED_AT].long()
    forced = tables.gather(1, at[:, None])[:, 0]
    free = torch.where(is_done(state), tables[:, Column.PAD_ID], -1)
    return torch.where(at > 0, forced, free)


@torch.library.register_fake("elastic::new_state")
def _(budgets: Tensor, phases: Tensor, tables: Tensor) -> Tensor:
    return tables.new_empty((budgets.shape[0], STATE_WIDTH))


@torch.library.register_fake("elastic::budget_step_")
def _(
    tokens: Tensor, state: Tensor, tables: Tensor, token_flags: Tensor, active: Tensor | None = None
) -> Tensor:
    return tokens.new_empty(tokens.shape, dtype=torch.uint8)


@torch.library.register_fake("elastic::force_logits_")
def _(logits: Tensor, state: Tensor, tables: Tensor) -> None:
    return None


@torch.library.register_fake("elastic::replay")
def _(
    tokens: Tensor,
    lengths: Tensor,
    state: Tensor,
    tables: Tensor,
    token_flags: Tensor,
    source: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    bytes_ = tokens.new_empty(tokens.shape, dtype=torch.uint8)
    return bytes_, torch.empty_like(bytes_), torch.empty_like(state), torch.empty_like(lengths)
