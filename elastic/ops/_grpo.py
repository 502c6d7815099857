"""Shared by the GRPO losses: their arguments as the C++ ops take them, results, fake outputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elastic.ops._inputs import (
    checked,
    compute_dtype,
    kept_sets,
    small_float,
    small_real,
    split_temperature,
)
from elastic.ops.grpo_options import GrpoOptions, checked_options, refuse_unknown
from elastic.reference.loss import GrpoOutput


def grpo_arguments(
    op: str,
    beside: Tensor,
    targets: Tensor,
    old_logprobs: Tensor,
    row_offsets: Tensor,
    advantages: Tensor | None,
    given: GrpoOptions,
) -> tuple[tuple[Tensor | None, ...], dict[str, Any]]:
    """The ops' positional tensors behind the logits, and their keyword options.

    Args:
        op: named in errors.
        beside: logits or hidden states, whose device the small tensors must be on; their dtype follows its.
        given: the caller's arguments by name.
    """

    def optional(check: Any, name: str, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else check(op, name, tensor, beside)

    refuse_unknown(op, given)
    rewards, group_offsets = given.get("rewards"), given.get("group_offsets")
    _check_advantages(op, advantages, rewards, group_offsets)
    targets = checked(op, "targets", targets, beside)
    row_offsets = checked(op, "row_offsets", row_offsets, beside)
    temperature = _one_a_token(given.get("temperature", 1.0), targets, row_offsets)
    scalar_temperature, temperatures = split_temperature(op, beside, temperature)
    tensors = (
        targets,
        small_float(op, "old_logprobs", old_logprobs, beside),
        row_offsets,
        optional(small_real, "advantages", advantages),
        optional(small_real, "rewards", rewards),
        optional(checked, "group_offsets", group_offsets),
        optional(checked, "mask", given.get("mask")),
        optional(small_float, "ref_logprobs", given.get("ref_logprobs")),
        optional(small_float, "engine_logprobs", given.get("engine_logprobs")),
        temperatures,
        *kept_sets(op, given.get("kept_ids"), given.get("kept_offsets"), beside),
    )
    return tensors, {"temperature": scalar_temperature, **checked_options(op, given)}


def _check_advantages(op: str, advantages: Any, rewards: Any, group_offsets: Any) -> None:
    named = {"advantages": advantages, "rewards": rewards, "group_offsets": group_offsets}
    got = [name for name, tensor in named.items() if tensor is not None]
    if got not in (["advantages"], ["rewards", "group_offsets"]):
        raise ValueError(
            f"{op}: advantages: expected exactly one of advantages and (rewards, group_offsets), got "
            f"{', '.join(got) or 'none'}"
        )


def _one_a_token(temperature: float | Tensor, targets: Tensor, row_offsets: Tensor) -> float | Tensor:
    """A temperature per row [R] as one per token [N]; other temperatures unchanged.

    The host waits for nothing. Offsets that do not fit lead to no wrong read; the op itself reports them.
    """
    if not isinstance(temperature, Tensor) or temperature.dim() != 1 or row_offsets.dim() != 1:
        return temperature
    tokens, rows = targets.shape[0] if targets.dim() else 0, row_offsets.shape[0] - 1
    if temperature.shape[0] != rows or rows in (0, tokens) or row_offsets.dtype != torch.int64:
        return temperature
    token = torch.arange(tokens, device=targets.device)
    row = torch.searchsorted(row_offsets, token, right=True) - 1
    return temperature.detach()[row.clamp(0, rows - 1)]


def grpo_output(outputs: Sequence[Tensor], tensors: tuple[Tensor | None, ...]) -> GrpoOutput:
    """The op's results with the advantages that were used; `tensors` as `grpo_arguments` gives them."""
    loss, logprobs, entropy, computed, clip_fraction, kl = outputs
    given = tensors[3]
    return GrpoOutput(
        loss, logprobs, entropy, computed if given is None else given.clone(), clip_fraction, kl
    )


def fake_grpo_outputs(beside: Tensor, tensors: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """loss, logprobs, entropy, advantages, clip_fraction, kl; `tensors` as `grpo_arguments` gives them."""
    targets, rewards = tensors[0], tensors[4]
    assert targets is not None
    rows = 0 if rewards is None else rewards.shape[0]
    shapes: tuple[tuple[int, ...], ...] = ((), targets.shape, targets.shape, (rows,), (), ())
    return tuple(beside.new_empty(shape, dtype=compute_dtype(beside)) for shape in shapes)
