"""What the GRPO losses share: their arguments as the C++ ops take them, results, fake outputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elastic.ops._inputs import (
    checked,
    compute_dtype,
    flag,
    integer,
    number,
    one_of,
    refuse_unused,
    small_float,
    small_real,
    split_temperature,
)
from elastic.ops.advantage import KINDS, KINDS_WITH_EPS
from elastic.reference.loss import GrpoOutput

_CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo")
# Check of each option that may be None, and the value it has then.
_OPTIONAL: dict[str, tuple[Any, Any]] = {
    "softcap": (number, None),
    "advantage": (one_of(*KINDS), "group"),
    "advantage_eps": (number, 1e-4),
    "pass_k": (integer, 4),
    "clip_low": (number, 0.2),
    "clip_high": (number, 0.2),
    "delta": (number, None),
    "dual_clip": (number, None),
    "tau_positive": (number, 1.0),
    "tau_negative": (number, 1.05),
    "kl": (one_of("k1", "k2", "k3"), "k3"),
    "num_tokens": (integer, None),
    "num_rows": (integer, None),
    "max_length": (integer, None),
    "engine_mode": (one_of("truncate", "mask"), "truncate"),
    "engine_level": (one_of("token", "row"), "token"),
    "engine_low": (number, 0.0),
    "engine_high": (number, 2.0),
}
_REQUIRED: dict[str, Any] = {
    "loss": one_of(*_CLIPPED, "cispo", "sapo"),
    "kl_coef": number,
    "kl_weighted": flag,
    "entropy_coef": number,
    "skip_zero_advantage": flag,
}
# Options read only with some values of another, or only beside a tensor.
_READ_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "advantage_eps": ("advantage", KINDS_WITH_EPS),
    "pass_k": ("advantage", ("passk",)),
    "clip_low": ("loss", _CLIPPED),
    "clip_high": ("loss", (*_CLIPPED, "cispo")),
    "delta": ("loss", _CLIPPED),
    "dual_clip": ("loss", _CLIPPED),
    "tau_positive": ("loss", ("sapo",)),
    "tau_negative": ("loss", ("sapo",)),
    "max_length": ("loss", ("dr_grpo",)),
}
_READ_BESIDE: dict[str, tuple[str, ...]] = {
    "rewards": ("advantage", "advantage_eps", "pass_k"),
    "ref_logprobs": ("kl", "kl_weighted"),
    "engine_logprobs": ("engine_mode", "engine_level", "engine_low", "engine_high"),
}


def grpo_arguments(
    op: str,
    beside: Tensor,
    targets: Tensor,
    old_logprobs: Tensor,
    row_offsets: Tensor,
    advantages: Tensor | None,
    **given: Any,
) -> tuple[tuple[Tensor | None, ...], dict[str, Any]]:
    """The ops' positional tensors behind the logits, and their keyword options.

    Args:
        op: named in errors.
        beside: logits or hidden states: their device and dtype are what the small tensors are brought to.
        given: the other keywords of `grpo_loss`, all of them but `inplace`.
    """

    def optional(check: Any, name: str, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else check(op, name, tensor, beside)

    _check_advantages(op, advantages, given["rewards"], given["group_offsets"])
    targets = checked(op, "targets", targets, beside)
    row_offsets = checked(op, "row_offsets", row_offsets, beside)
    temperature = _one_a_token(given["temperature"], targets, row_offsets)
    scalar_temperature, temperatures = split_temperature(op, beside, temperature)
    tensors = (
        targets,
        small_float(op, "old_logprobs", old_logprobs, beside),
        row_offsets,
        optional(small_real, "advantages", advantages),
        optional(small_real, "rewards", given["rewards"]),
        optional(checked, "group_offsets", given["group_offsets"]),
        optional(checked, "mask", given["mask"]),
        optional(small_float, "ref_logprobs", given["ref_logprobs"]),
        optional(small_float, "engine_logprobs", given["engine_logprobs"]),
        temperatures,
    )
    return tensors, {"temperature": scalar_temperature, **_options(op, given)}


def _check_advantages(op: str, advantages: Any, rewards: Any, group_offsets: Any) -> None:
    named = {"advantages": advantages, "rewards": rewards, "group_offsets": group_offsets}
    got = [name for name, tensor in named.items() if tensor is not None]
    if got not in (["advantages"], ["rewards", "group_offsets"]):
        raise ValueError(
            f"{op}: advantages: expected exactly one of advantages and (rewards, group_offsets), got "
            f"{', '.join(got) or 'none'}"
        )


def _options(op: str, given: dict[str, Any]) -> dict[str, Any]:
    """Every option but the temperature, checked. Nothing is ignored: what would do nothing is an error."""
    options = {name: check(op, name, given[name]) for name, check in _REQUIRED.items()}
    for name, (check, default) in _OPTIONAL.items():
        options[name] = default if given[name] is None else check(op, name, given[name])
    for beside, names in _READ_BESIDE.items():
        for name in names:
            if given[beside] is None:
                refuse_unused(op, name, given[name], f"without {beside}")
    for name, (other, values) in _READ_WITH.items():
        if options[other] not in values:
            refuse_unused(op, name, given[name], f"with {other}={options[other]!r}")
    options["engine_rows"] = options.pop("engine_level") == "row"
    return options


def _one_a_token(temperature: float | Tensor, targets: Tensor, row_offsets: Tensor) -> float | Tensor:
    """A temperature [R] spread over the tokens; others, and offsets that no op accepts, as they are.

    The host waits for nothing, and offsets that do not fit (the op's to find) lead to no wrong read.
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
