"""What the GRPO losses share: their arguments as the C++ ops take them, results, fake outputs."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from elastic.ops._inputs import (
    checked,
    compute_dtype,
    optional_float,
    small_float,
    split_temperature,
)
from elastic.reference.loss import GrpoOutput


def grpo_arguments(
    op: str,
    beside: Tensor,
    targets: Tensor,
    old_logprobs: Tensor,
    row_offsets: Tensor,
    advantages: Tensor | None,
    *,
    rewards: Tensor | None = None,
    group_offsets: Tensor | None = None,
    advantage: str = "group",
    advantage_eps: float = 1e-4,
    pass_k: int = 4,
    mask: Tensor | None = None,
    ref_logprobs: Tensor | None = None,
    engine_logprobs: Tensor | None = None,
    engine_mode: str = "truncate",
    engine_level: str = "token",
    engine_low: float = 0.0,
    engine_high: float = 2.0,
    loss: str = "grpo",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    delta: float | None = None,
    dual_clip: float | None = None,
    tau_positive: float = 1.0,
    tau_negative: float = 1.05,
    kl_coef: float = 0.0,
    kl: str = "k3",
    kl_weighted: bool = False,
    entropy_coef: float = 0.0,
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    num_tokens: int | None = None,
    num_rows: int | None = None,
    max_length: int | None = None,
    skip_zero_advantage: bool = False,
) -> tuple[tuple[Tensor | None, ...], dict[str, Any]]:
    """The ops' positional tensors behind the logits, and their keyword options; see `grpo_loss`.

    Args:
        op: named in errors.
        beside: logits or hidden states: their device and dtype are what the small tensors are brought to.
    """
    targets = checked(op, "targets", targets, beside)
    row_offsets = checked(op, "row_offsets", row_offsets, beside)
    if (advantages is None) == (rewards is None) or (rewards is None) != (group_offsets is None):
        raise ValueError(f"{op}: advantages: expected exactly one of advantages and (rewards, group_offsets)")
    if engine_level not in ("token", "row"):
        raise ValueError(f"{op}: engine_level: expected token or row, got {engine_level!r}")
    group_offsets = None if group_offsets is None else checked(op, "group_offsets", group_offsets, beside)
    mask = None if mask is None else checked(op, "mask", mask, beside)

    def floats(name: str, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else small_float(op, name, tensor, beside)

    scalar_temperature, temperatures = split_temperature(op, beside, temperature)
    tensors = (
        targets,
        small_float(op, "old_logprobs", old_logprobs, beside),
        row_offsets,
        floats("advantages", advantages),
        floats("rewards", rewards),
        group_offsets,
        mask,
        floats("ref_logprobs", ref_logprobs),
        floats("engine_logprobs", engine_logprobs),
        temperatures,
    )
    options = {
        "temperature": scalar_temperature,
        "softcap": optional_float(softcap),
        "advantage": advantage,
        "advantage_eps": float(advantage_eps),
        "pass_k": pass_k,
        "loss": loss,
        "clip_low": float(clip_low),
        "clip_high": float(clip_high),
        "delta": optional_float(delta),
        "dual_clip": optional_float(dual_clip),
        "kl_coef": float(kl_coef),
        "kl": kl,
        "kl_weighted": kl_weighted,
        "entropy_coef": float(entropy_coef),
        "tau_positive": float(tau_positive),
        "tau_negative": float(tau_negative),
        "num_tokens": num_tokens,
        "num_rows": num_rows,
        "max_length": max_length,
        "engine_mode": engine_mode,
        "engine_rows": engine_level == "row",
        "engine_low": float(engine_low),
        "engine_high": float(engine_high),
        "skip_zero_advantage": skip_zero_advantage,
    }
    return tensors, options


def grpo_output(outputs: Sequence[Tensor], tensors: tuple[Tensor | None, ...]) -> GrpoOutput:
    """The op's results with the advantages that were used; `tensors` as `grpo_arguments` gives them."""
    loss, logprobs, entropy, computed, clip_fraction, kl = outputs
    given = tensors[3]
    return GrpoOutput(loss, logprobs, entropy, computed if given is None else given, clip_fraction, kl)


def fake_grpo_outputs(beside: Tensor, tensors: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """loss, logprobs, entropy, advantages, clip_fraction, kl; `tensors` as `grpo_arguments` gives them."""
    targets, rewards = tensors[0], tensors[4]
    assert targets is not None
    rows = 0 if rewards is None else rewards.shape[0]
    shapes: tuple[tuple[int, ...], ...] = ((), targets.shape, targets.shape, (rows,), (), ())
    return tuple(beside.new_empty(shape, dtype=compute_dtype(beside)) for shape in shapes)
