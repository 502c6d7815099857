"""Budget ops: the state machine of SPEC section 2, one row per completion.

B rows of a decode batch, V vocabulary; R rows of T tokens for `replay`. The state is [B, 8] int32 and opaque;
`state.py` has its readers. No step reads device memory on the host (R16). Slicing, gathering and copying
state rows moves completions between slots; nothing else depends on a row's place in the batch (R15).
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from elastic.budget import Phase
from elastic.budget.machine import Machine
from elastic.ops import _extension as _extension  # registers torch.ops.elastic
from elastic.ops._arguments import check_machine, integers, listed_integers
from elastic.ops._inputs import check_tensor, checked, got, integer
from elastic.ops.state import STATE_WIDTH


def new_state(
    rows: int | Sequence[int] | Tensor,
    machine: Machine,
    *,
    starts_in_thinking: bool | Sequence[bool] | Tensor | None = None,
    phase: Sequence[int] | Tensor | None = None,
    thinking_used: int | Sequence[int] | Tensor | None = None,
) -> Tensor:
    """States of rows before their first token.

    Args:
        rows: how many rows, all under the machine's one budget; or [B] integers, each row's budget as an
            index into the machine's tables (`compile_budgets` returns it), as a tensor or a list.
        machine: compiled budgets.
        starts_in_thinking: whether the prompt has opened the thinking block, the default; else rows start in
            OPENING (R9). A bool, or [B] bool.
        phase: [B] integers of `Phase` instead: OPENING, THINKING, SOLUTION, or DONE for an empty slot; a
            tensor of any strides, or a list. `Markers.initial_phase` reads it from a prompt.
        thinking_used: tokens already thought, one number or [B] integers (R19). They count as if the row had
            sampled them: a budget they have spent is closed at once, notices at a lower count are past, and
            `min_thinking` and the total see them. Without effect on DONE; not allowed in OPENING.

    Returns:
        [B, 8] int32 on the machine's device.

    Raises:
        TypeError: not integers, bools or a machine where they are expected.
        ValueError: an index outside the tables, a phase no row starts in, tokens thought below 0 or in
            OPENING, a wrong shape, a number of rows for a machine with several budgets, or both
            `starts_in_thinking` and `phase`. Values on a GPU are not read; an illegal one gives a row that is
            DONE and emits padding.
    """
    op = "new_state"
    check_machine(op, machine)
    device = machine.tables.device
    budgets = _budgets(op, rows, machine)
    phase = _phases(op, budgets, starts_in_thinking, phase)
    used = _used(op, budgets, thinking_used)
    # Where all values are still on the host, the op checks them and makes the states there, and the result is
    # copied to the machine's device: one path for CPU and GPU, so that tests on a CPU run it.
    given = [budgets, phase, *([] if used is None else [used])]
    on_host = all(tensor.device.type == "cpu" for tensor in given)
    tables = machine.tables.cpu() if on_host else machine.tables
    budgets, phase, *rest = (tensor.to(tables.device).contiguous() for tensor in given)
    state = torch.ops.elastic.new_state(budgets, phase, tables, *rest)
    return state.to(device)


def _budgets(op: str, rows: Any, machine: Machine) -> Tensor:
    if isinstance(rows, bool) or not isinstance(rows, Integral):
        return listed_integers(op, "rows", rows)
    count = integer(op, "rows", rows)
    if len(machine.budgets) > 1:
        raise ValueError(
            f"{op}: rows: expected the budget index of each row, for {len(machine.budgets)} budgets, "
            f"got {rows}"
        )
    if count < 0:
        raise ValueError(f"{op}: rows: expected at least 0, got {rows}")
    return torch.zeros(count, dtype=torch.int64, device=machine.tables.device)


def _phases(op: str, budgets: Tensor, opened: Any, phase: Any) -> Tensor:
    if phase is not None:
        if opened is not None:
            raise ValueError(f"{op}: starts_in_thinking: expected None beside phase, got {got(opened)}")
        return listed_integers(op, "phase", phase)
    if isinstance(opened, (list, tuple)) and all(isinstance(value, bool) for value in opened):
        opened = torch.tensor(opened, dtype=torch.bool, device=budgets.device)
    elif opened is None or isinstance(opened, bool):
        opened = torch.tensor(opened is not False, device=budgets.device)
    if not isinstance(opened, Tensor) or opened.dtype != torch.bool:
        raise TypeError(f"{op}: starts_in_thinking: expected a bool or [B] bool, got {got(opened)}")
    if opened.dim() > 0 and opened.shape != budgets.shape:
        raise ValueError(
            f"{op}: starts_in_thinking: expected a bool or shape {list(budgets.shape)}, "
            f"got {list(opened.shape)}"
        )
    return torch.where(opened.expand(budgets.shape), int(Phase.THINKING), int(Phase.OPENING))


def _used(op: str, budgets: Tensor, used: Any) -> Tensor | None:
    if used is None:
        return None
    if isinstance(used, Integral):
        return torch.full_like(budgets, integer(op, "thinking_used", used))
    return listed_integers(op, "thinking_used", used)


def end_thinking_(state: Tensor, rows: Sequence[int] | Sequence[bool] | Tensor) -> None:
    """Ends the thinking of rows from outside, in place (R22): the next step forces F exactly as R1 does.

    A row in NOTICE emits the notice first; one in OPENING closes as soon as thinking begins, unless it begins
    its solution; `whole_characters` (R21) waits as it does for the budget. Rows that no longer think stay as
    they are. Calling it twice is calling it once. Deterministic; one kernel launch on CUDA, safe inside a
    CUDA graph where state and rows lie on the GPU, no host synchronisation.

    Args:
        state: [B, 8] int32, updated in place.
        rows: [k] integers, the rows' indices, in any order; or [B] bool. A tensor, or a list.

    Raises:
        TypeError: a wrong type or dtype.
        ValueError: a wrong shape, device or layout; on the CPU an index outside 0 .. B - 1, before anything
            is written. Indices on a GPU are not read back: one out of range is left out.
    """
    op = "end_thinking_"
    check_tensor(op, "state", state, state)
    if isinstance(rows, (list, tuple)) and rows and all(isinstance(value, bool) for value in rows):
        rows = torch.tensor(rows)
    if not (isinstance(rows, Tensor) and rows.dtype == torch.bool):
        rows = listed_integers(op, "rows", rows)
    torch.ops.elastic.end_thinking_(state, rows.to(state.device, non_blocking=True).contiguous())


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
        TypeError: a wrong type or dtype.
        ValueError: a wrong shape, device or layout; on the CPU a state that no row under this machine can be
            in, naming row and field, before anything is written. States on a GPU are not read back: a row
            with such a state becomes DONE and emits padding, the first budget's if its own does not exist.
    """
    op = "budget_step_"
    check_tensor(op, "tokens", tokens, tokens)
    check_tensor(op, "state", state, tokens)
    check_machine(op, machine, tokens)
    if active is not None:
        check_tensor(op, "active", active, tokens)
    return torch.ops.elastic.budget_step_(tokens, state, machine.tables, machine.token_flags, active)


def force_logits_(logits: Tensor, state: Tensor, machine: Machine) -> None:
    """Changes logits in place so that sampling gives the token that the budget will emit.

    Rows whose next token is forced, and finished rows, get 0 at that token's id and -inf everywhere else.
    Rows that may not reopen thinking (R8, "forbid") get -inf at the tokens that would complete the start
    marker, rows that may not close it again (R20) at the tokens that would complete an end. Other rows are
    not touched.

    Not differentiable: logits that require grad, and views of a tensor that does, are refused unless
    gradients are off. A backward that saved the logits raises torch's own error.

    Args:
        logits: [B, V] float32, bfloat16, float16 or float64; rows may be strided.
        state: [B, 8] int32, unchanged; any strides.
        machine: compiled budgets, on the logits' device.

    Raises:
        TypeError: a wrong type or dtype.
        ValueError: a wrong shape, device or layout, fewer columns than forced ids need, logits that autograd
            follows, or a state as `budget_step_` refuses it (a GPU's is taken as DONE).
    """
    op = "force_logits_"
    check_tensor(op, "logits", logits, logits)
    state = checked(op, "state", state, logits)
    check_machine(op, machine, logits)
    if torch.is_grad_enabled() and logits.requires_grad:  # a view does where its base does
        raise ValueError(
            f"{op}: logits: expected a tensor outside autograd, which cannot follow writes in place, "
            "got one that requires grad; call it under torch.no_grad(), or with logits.detach()"
        )
    if logits.dim() == 2 and logits.shape[1] < machine.smallest_vocab:
        raise ValueError(
            f"{op}: logits: expected at least {machine.smallest_vocab} columns for the ids of markers and "
            f"forced texts, got shape {list(logits.shape)}"
        )
    torch.ops.elastic.force_logits_(logits, state, machine.tables)


def replay(
    tokens: Tensor,
    lengths: Tensor,
    state: Tensor,
    machine: Machine,
    *,
    source: Tensor | None = None,
    ended: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reads token histories back (R10): what each token was, and the state of a live row behind them.

    Args:
        tokens: [R, T] integers, padded at the end. Any strides, as for every argument that is only read.
        lengths: [R] integers, tokens of each row, at most T.
        state: [R, 8] int32 from `new_state`, or any later state to go on from; unchanged.
        machine: compiled budgets, on the tokens' device.
        source: [R, T] uint8, the recorded sources, or None. Only they tell apart a token that replaced an EOS
            (R6) or an early end marker (R11) from the same token sampled; without them it reads as sampled.
        ended: [R] integers, or None: the position of the token in front of which thinking was ended from
            outside (R22), the length for behind the last one, -1 for never.

    Returns:
        phase [R, T] uint8 and source [R, T] uint8 of every token, DONE and PAD behind the length; the state
        [R, 8] behind the last token read; [R] int64, the first position that no row under this budget can
        have emitted, -1 if there is none. Reading stops there. None of them shares memory with an argument.

    Raises:
        TypeError: a wrong type or dtype.
        ValueError: a wrong shape or device; on the CPU a length outside 0 .. T, a position outside -1 ..
            length, or a state as `budget_step_` refuses it.
    """
    op = "replay"
    tokens = integers(op, "tokens", tokens, tokens)
    lengths = integers(op, "lengths", lengths, tokens)
    state = checked(op, "state", state, tokens)
    check_machine(op, machine, tokens)
    if source is not None:
        source = checked(op, "source", source, tokens)
    if ended is not None:
        ended = integers(op, "ended", ended, tokens)
    return torch.ops.elastic.replay(
        tokens, lengths, state, machine.tables, machine.token_flags, source, ended
    )


def forced_next(state: Tensor, machine: Machine) -> Tensor:
    """[B] int32, the id that each row emits next whatever is sampled; -1: it is free, padding: it is done.

    Raises as `budget_step_` does; a state on a GPU that no row under this machine can be in reads as done.
    """
    op = "forced_next"
    state = checked(op, "state", state, state)
    check_machine(op, machine, state)
    return torch.ops.elastic.forced_next(state, machine.tables)


@torch.library.register_fake("elastic::new_state")
def _(rows: Tensor, phase: Tensor, tables: Tensor, thinking_used: Tensor | None = None) -> Tensor:
    return tables.new_empty((rows.shape[0], STATE_WIDTH))


@torch.library.register_fake("elastic::end_thinking_")
def _(state: Tensor, rows: Tensor) -> None:
    return None


@torch.library.register_fake("elastic::budget_step_")
def _(
    tokens: Tensor, state: Tensor, tables: Tensor, token_flags: Tensor, active: Tensor | None = None
) -> Tensor:
    return tokens.new_empty(tokens.shape, dtype=torch.uint8)


@torch.library.register_fake("elastic::force_logits_")
def _(logits: Tensor, state: Tensor, tables: Tensor) -> None:
    return None


@torch.library.register_fake("elastic::forced_next")
def _(state: Tensor, tables: Tensor) -> Tensor:
    return state.new_empty(state.shape[0])


@torch.library.register_fake("elastic::replay")
def _(
    tokens: Tensor,
    lengths: Tensor,
    state: Tensor,
    tables: Tensor,
    token_flags: Tensor,
    source: Tensor | None = None,
    ended: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    bytes_ = tokens.new_empty(tokens.shape, dtype=torch.uint8)
    return bytes_, torch.empty_like(bytes_), torch.empty_like(state), torch.empty_like(lengths)
