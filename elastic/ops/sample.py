"""Drawing the next token of every row: filters, logprobs and the budget step in one op."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from elastic import _extension as _extension  # registers torch.ops.elastic
from elastic.machine import Machine


class SampleOutput(NamedTuple):
    """One token a row.

    Attributes:
        tokens: [B] int64, emitted.
        logprobs: [B] float32, of the token under the distribution it was drawn from (after the filters; 0 at
            temperature 0).
        full_logprobs: [B] float32, of the token under softmax(logits / temperature) over the whole vocabulary
            (softmax(logits) at temperature 0).
        source: [B] uint8 of `Source`; None without a state.
        phase: [B] uint8 of `Phase`, of the token emitted; None without a state.

    Both logprobs are 0 for a token that was not drawn: forced, padding, or put in place of an EOS. They are
    NaN exactly for rows whose logits are unusable.
    """

    tokens: Tensor
    logprobs: Tensor
    full_logprobs: Tensor
    source: Tensor | None
    phase: Tensor | None


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
    active: Tensor | None = None,
    broken: Tensor | None = None,
) -> SampleOutput:
    """Draws a token a row and, with a state, takes the row's budget step: one decode step's work in one op.

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

    Nothing is read back to the host; on CUDA the call may be captured in a graph. Deterministic.

    Args:
        logits: [B, V] float32, bfloat16 or float16, CPU or CUDA, V up to 2^22. Rows may be strided or
            overlap, the last stride must be 1. May hold -inf.
        seeds: [B] int64, one a row; any stride, as everything of one value a row.
        positions: [B] int64, tokens that the row's completion holds so far.
        temperature: 0 or above; one, or [B] float.
        top_k: keeps the k largest logits, 0 keeps all; one, or [B] int64.
        top_p: keeps the fewest most probable tokens whose mass reaches it; in (0, 1]; one, or [B] float.
        min_p: drops tokens less probable than this times the most probable one; in [0, 1]; one, or [B] float.
        state: [B, 8] int32 from `new_state`, updated in place. Needs `machine`.
        machine: compiled budgets, on the logits' device.
        active: [1] int32, set to the number of rows that go on. Needs a state.
        broken: [1] int32. Where it is 0 it becomes 1 + the first row that had to be drawn from logits with a
            NaN or +inf, or nothing but -inf; such a row emits id 0 with NaN logprobs. Poll it: without it
            such a row raises on the CPU, and on CUDA shows in its logprobs only.

    Returns:
        SampleOutput. B = 0 gives empty tensors.

    Raises:
        TypeError: a wrong dtype.
        ValueError: a wrong shape, device or layout; a parameter out of range (those that lie on a GPU are not
            read: a row with one is treated as broken); fewer columns than forced ids need; a state without
            machine or the reverse.
        RuntimeError: unusable logits on the CPU, without `broken`; names the row.
    """
    scalars = {}
    per_row: dict[str, Tensor | None] = {}
    for name, value, dtype, off in (
        ("temperature", temperature, torch.float64, 1.0),
        ("top_k", top_k, torch.int64, 0),
        ("top_p", top_p, torch.float64, 1.0),
        ("min_p", min_p, torch.float64, 0.0),
    ):
        many = isinstance(value, Tensor)
        scalars[name] = off if many else value
        per_row[name + "s"] = _per_row(name, value, dtype) if isinstance(value, Tensor) else None
    if (state is None) != (machine is None):
        raise ValueError("sample: state: expected state and machine together, got one of them")
    if state is None or machine is None:
        if active is not None:
            raise ValueError("sample: active: expected a state to count the rows of, got none")
        tokens, logprobs, full_logprobs = torch.ops.elastic.sample(
            logits, seeds.contiguous(), positions.contiguous(), **scalars, **per_row, broken=broken
        )
        return SampleOutput(tokens, logprobs, full_logprobs, None, None)
    if logits.dim() == 2 and logits.shape[1] < machine.smallest_vocab:
        raise ValueError(
            f"sample: logits: expected at least {machine.smallest_vocab} columns for the ids of markers and "
            f"forced texts, got shape {list(logits.shape)}"
        )
    tokens, logprobs, full_logprobs, source, phase = torch.ops.elastic.sample_(
        logits,
        seeds.contiguous(),
        positions.contiguous(),
        state,
        machine.tables,
        machine.token_flags,
        **scalars,
        **per_row,
        active=active,
        broken=broken,
    )
    return SampleOutput(tokens, logprobs, full_logprobs, source, phase)


def _per_row(name: str, values: Tensor, dtype: torch.dtype) -> Tensor:
    """A parameter a row, in the kernels' dtype: floats go to float64, which is exact."""
    if values.is_floating_point() != dtype.is_floating_point or values.dtype == torch.bool:
        expected = "floating point" if dtype.is_floating_point else "integer"
        raise TypeError(f"sample: {name}: expected {expected} values, got {values.dtype}")
    return values.to(dtype).contiguous()


def _outputs(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    def make(dtype: torch.dtype) -> Tensor:
        return logits.new_empty(logits.shape[0], dtype=dtype)

    return make(torch.int64), make(torch.float32), make(torch.float32)


@torch.library.register_fake("elastic::sample")
def _(logits: Tensor, seeds: Tensor, positions: Tensor, **options: object) -> tuple[Tensor, ...]:
    return _outputs(logits)


@torch.library.register_fake("elastic::sample_")
def _(logits: Tensor, *tensors: Tensor, **options: object) -> tuple[Tensor, ...]:
    source = logits.new_empty(logits.shape[0], dtype=torch.uint8)
    return *_outputs(logits), source, torch.empty_like(source)
