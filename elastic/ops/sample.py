"""Drawing the next token of every row: filters, logprobs and the budget step in one op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elastic.budget.machine import Machine
from elastic.ops import _extension as _extension  # registers torch.ops.elastic
from elastic.ops._arguments import check_machine, integers, per_row
from elastic.ops._inputs import check_tensor, integer, number
from elastic.sampling import SampleOutput


def sample(
    logits: Tensor,
    seeds: Tensor,
    positions: Tensor,
    temperature: float | Tensor = 1.0,
    top_k: int | Tensor = 0,
    top_p: float | Tensor = 1.0,
    min_p: float | Tensor = 0.0,
    state: Tensor | None = None,
    machine: Machine | None = None,
    *,
    most_kept: int = 0,
    active: Tensor | None = None,
    broken: Tensor | None = None,
) -> SampleOutput:
    """Draws one token per row and, with a state, takes its budget step: one decode step's work in one op.

    Order: temperature, top-k, top-p over the renormalised rest, min-p. Filters are exact, ties at a threshold
    are all kept, temperature 0 is argmax with the lowest id on ties (filters do nothing there). Token i has
    the integer weight floor(2^40 exp((x_i - max x) / temperature)); the token drawn is the first whose
    cumulated weight exceeds floor(u total), u one 53-bit Philox4x32-10 number keyed by the row's seed with
    the row's position as counter. Integer sums and an exp fixed to the bit give the same tokens and logprobs
    alone, in any batch or order, on any number of threads, instruction set or device. A token less likely
    than 2^-40 of the likeliest is never drawn. Logits are not modified.

    With a state, `budget_step_` runs in the same op: `state` is updated in place; rows that must emit a
    forced token, and finished rows, do not read their logits; tokens that would reopen thinking are masked
    where the budget says so (R8), which `full_logprobs` leave aside.

    A row that has to be drawn but whose logits hold a NaN or +inf, or nothing but -inf, is broken. Without
    `broken`, a call on the CPU raises before any state, `active` included, has changed. Otherwise a broken
    row takes no step: its state stays as it was and counts as going on, it emits padding (id 0 without a
    state) with source PAD and NaN logprobs, in the phase of its last token; the other rows go on.

    Nothing is read back to the host; on CUDA the call may be captured in a graph. Deterministic.

    Args:
        logits: [B, V] float32, bfloat16 or float16, CPU or CUDA, V up to 2^22. Rows may be strided or
            overlap, the last stride must be 1. May hold -inf.
        seeds: [B] int64, one per row; any stride, as for every argument with one value per row.
        positions: [B] int64, tokens that the row's completion holds so far.
        temperature: 0 or above; one for all rows, also as a 0-dim tensor, or [B] float or integer.
        top_k: keeps the k largest logits, 0 keeps all; one, or [B] integer.
        top_p: keeps the fewest most probable tokens whose mass reaches it; in (0, 1]; one, or [B] float.
        min_p: drops tokens less probable than this times the most probable one; in [0, 1]; one, or [B] float.
        state: [B, 8] int32 from `new_state`, updated in place. Needs `machine`.
        machine: compiled budgets, on the logits' device.
        most_kept: K, how many ids to report, per row, of what the filters left: those that could have been
            drawn (`token_logprobs` takes them as kept sets). 0 reports none; on CUDA more than 0 costs one
            more read of the rows that have filters.
        active: [1] int32, set to the number of rows that go on. Needs a state.
        broken: [1] int32. Where it is 0 it becomes 1 + the first broken row. Poll it: without it such a row
            raises on the CPU, and on CUDA shows in its logprobs only.

    Returns:
        SampleOutput. B = 0 gives empty tensors.

    Raises:
        TypeError: a wrong type or dtype.
        ValueError: a wrong shape, device or layout; a parameter out of range (those that lie on a GPU are not
            read: a row with one is treated as broken); fewer columns than forced ids need; a state without
            machine or the reverse; a state as `budget_step_` refuses it (a GPU's becomes DONE).
        RuntimeError: a broken row on the CPU, without `broken`; names the row.
    """
    op = "sample"
    check_tensor(op, "logits", logits, logits)
    if logits.dim() != 2:
        raise ValueError(f"{op}: logits: expected shape [B, V], got {list(logits.shape)}")
    logits = logits.detach() if logits.requires_grad else logits
    seeds = integers(op, "seeds", seeds, logits)
    positions = integers(op, "positions", positions, logits)
    options: dict[str, Any] = {"broken": broken, "most_kept": integer(op, "most_kept", most_kept)}
    for name, value, off, dtype in (
        ("temperature", temperature, 1.0, torch.float64),
        ("top_k", top_k, 0, torch.int64),
        ("top_p", top_p, 1.0, torch.float64),
        ("min_p", min_p, 0.0, torch.float64),
    ):
        many = isinstance(value, Tensor)
        one = number if dtype.is_floating_point else integer
        options[name] = off if many else one(op, name, value)
        options[name + "s"] = per_row(op, name, value, dtype, logits) if many else None
    if broken is not None:
        check_tensor(op, "broken", broken, logits)
    if (state is None) != (machine is None):
        raise ValueError(f"{op}: state: expected state and machine together, got one of them")
    if state is None or machine is None:
        if active is not None:
            raise ValueError(f"{op}: active: expected a state to count the rows of, got none")
        drawn = torch.ops.elastic.sample(logits, seeds, positions, **options)
        tokens, logprobs, full_logprobs, kept_ids, kept_counts = drawn
        out = SampleOutput(tokens, logprobs, full_logprobs, None, None)
        return out._replace(kept_ids=kept_ids, kept_counts=kept_counts) if most_kept else out
    check_tensor(op, "state", state, logits)
    check_machine(op, machine, logits)
    if active is not None:
        check_tensor(op, "active", active, logits)
    if logits.shape[1] < machine.smallest_vocab:
        raise ValueError(
            f"{op}: logits: expected at least {machine.smallest_vocab} columns for the ids of markers and "
            f"forced texts, got shape {list(logits.shape)}"
        )
    *drawn, kept_ids, kept_counts = torch.ops.elastic.sample_(
        logits, seeds, positions, state, machine.tables, machine.token_flags, **options, active=active
    )
    out = SampleOutput(*drawn)
    return out._replace(kept_ids=kept_ids, kept_counts=kept_counts) if most_kept else out


def _outputs(logits: Tensor, dtypes: Sequence[torch.dtype], most_kept: int) -> tuple[Tensor, ...]:
    rows = logits.shape[0]
    kept_ids = logits.new_empty((rows, most_kept), dtype=torch.int32)
    kept_counts = logits.new_empty(rows if most_kept else 0, dtype=torch.int32)
    return *(logits.new_empty(rows, dtype=dtype) for dtype in dtypes), kept_ids, kept_counts


_DRAWN = (torch.int64, torch.float32, torch.float32)


@torch.library.register_fake("elastic::sample")
def _(
    logits: Tensor, seeds: Tensor, positions: Tensor, *, most_kept: int = 0, **options: object
) -> tuple[Tensor, ...]:
    return _outputs(logits, _DRAWN, most_kept)


@torch.library.register_fake("elastic::sample_")
def _(logits: Tensor, *tensors: Tensor, most_kept: int = 0, **options: object) -> tuple[Tensor, ...]:
    return _outputs(logits, (*_DRAWN, torch.uint8, torch.uint8), most_kept)
