"""Random calls of the logprob and GRPO ops, from logits and from a head: what is legal and has an effect."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from elastic import reference
from tests.stress.advantages import KINDS
from tests.stress.answers import check_head_logprobs, check_logprobs, check_loss
from tests.stress.call import Call
from tests.stress.compare import compute_dtype
from tests.stress.draw import Draw, laid_out, offsets
from tests.stress.moved import as_float, exact_logits
from tests.stress.values import (
    NEAR,
    largest_of,
    logits_of,
    logprobs_beside,
    softcap_of,
    targets_of,
    temperature_beside,
    temperature_of,
)

LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo")
# The gate's slope is sigmoid (1 - sigmoid): beyond, float64 has no digits of the second factor.
SAPO_ABOVE = 1.9
CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo")

# Logits of a head are rounded to its dtype, and their difference is a logprob.
COARSE = {torch.float64: 1e5, torch.float32: 1e5, torch.float16: 400.0, torch.bfloat16: 50.0}


def dtype_of(draw: Draw) -> torch.dtype:
    """float64 has no CUDA kernels."""
    narrow = draw.pick(torch.float32, torch.float32, torch.bfloat16, torch.float16)
    return torch.float64 if not draw.small and draw.chance(0.15) else narrow


def token_logprobs(draw: Draw) -> None:
    rows, vocab, dtype = draw.randint(0, 5), draw.vocab(), dtype_of(draw)
    logits = logits_of(draw, rows, vocab, dtype)
    arguments = {"logits": logits, "targets": laid_out(draw, targets_of(draw, logits))}
    arguments |= {"temperature": temperature_of(draw, rows), "softcap": softcap_of(draw, largest_of(logits))}
    incoming = tuple(draw.normal(rows).to(compute_dtype(dtype)) for _ in range(2))
    check_logprobs(draw, Call("token_logprobs", arguments, ("logits",), incoming))


def grpo_loss(draw: Draw) -> None:
    dtype, vocab, lengths = dtype_of(draw), draw.vocab(), lengths_of(draw)
    logits = logits_of(draw, sum(lengths), vocab, dtype)
    given, temperature = temperature_beside(draw, lengths)
    softcap = softcap_of(draw, largest_of(logits))
    arguments = {"logits": logits, "temperature": given, "softcap": softcap}
    arguments |= batch_of(draw, logits, lengths, {"temperature": temperature, "softcap": softcap})
    if logits.stride(0) >= vocab:  # no row overlaps the next
        if "mask" in arguments and draw.chance(0.5):
            logits[~arguments["mask"]] = torch.nan
        if draw.chance(0.3):
            arguments["inplace"] = True
    check_loss(draw, Call("grpo_loss", arguments, ("logits",), incoming_of(draw, dtype)), temperature)


def linear_token_logprobs(draw: Draw) -> None:
    dtype, tokens, softcap = dtype_of(draw), draw.randint(0, 9), softcap_of(draw, 1.0)
    operands = head_of(draw, tokens, dtype, softcap)
    temperature = temperature_of(draw, tokens)
    arguments = {**operands, "targets": laid_out(draw, targets_of(draw, linear(*operands.values())))}
    arguments |= {"temperature": temperature, "softcap": softcap}
    arguments["chunk_tokens"] = draw.pick(1, 2, 3, 5, None)
    leaves = tuple(name for name in operands if draw.chance(0.8)) or ("hidden",)
    incoming = tuple(draw.normal(tokens).to(compute_dtype(dtype)) for _ in range(2))
    check_head_logprobs(draw, Call("linear_token_logprobs", arguments, leaves, incoming), temperature)


def head_of(draw: Draw, tokens: int, dtype: torch.dtype, softcap: float | None) -> dict[str, Tensor]:
    """hidden, weight and, half of the time, bias."""
    vocab, width = draw.vocab(), draw.randint(1, 9)
    scale = draw.pick(0.3, 3.0, 10.0) / width**0.5
    operands = {
        "hidden": laid_out(draw, draw.normal(tokens, width).to(dtype), strided_rows=False),
        "weight": laid_out(draw, (draw.normal(vocab, width) * scale).to(dtype), strided_rows=False),
    }
    if draw.chance(0.5):
        bias = draw.normal(vocab)
        if softcap is None and draw.chance(0.2):
            bias[1:] = torch.where(bias[1:] > 0, bias[1:], -torch.inf)
        operands["bias"] = laid_out(draw, bias.to(dtype))
    return operands


def linear_grpo_loss(draw: Draw) -> None:
    dtype, lengths = dtype_of(draw), lengths_of(draw)
    given, temperature = temperature_beside(draw, lengths)
    options = {"temperature": temperature, "softcap": softcap_of(draw, 1.0)}
    operands = head_of(draw, sum(lengths), dtype, options["softcap"])
    arguments = {**operands, "temperature": given, "softcap": options["softcap"]}
    arguments |= batch_of(draw, linear(*operands.values()), lengths, options, COARSE[dtype])
    arguments |= {"chunk_tokens": draw.pick(1, 2, 3, 5, None), "gather": draw.chance(0.6)}
    if "mask" in arguments and arguments["gather"] and draw.chance(0.5):
        operands["hidden"][~arguments["mask"]] = torch.nan
    leaves = tuple(name for name in operands if draw.chance(0.8)) or ("hidden",)
    check_loss(draw, Call("linear_grpo_loss", arguments, leaves, incoming_of(draw, dtype)), temperature)


def lengths_of(draw: Draw) -> list[int]:
    """Tokens of each row; some have none."""
    return [0 if draw.chance(0.15) else draw.randint(1, 4) for _ in range(draw.randint(0, 5))]


def incoming_of(draw: Draw, dtype: torch.dtype) -> tuple[Tensor]:
    """Gradient of the loss; below 1 it would make numbers of what overflowed in float16."""
    scale = draw.pick(1.0, 1.0, -3.0) if dtype == torch.float16 else draw.pick(1.0, 1.0, 0.5, -3.0, 0.0)
    return (torch.tensor(scale, dtype=compute_dtype(dtype)),)


def batch_of(
    draw: Draw, logits: Tensor, lengths: list[int], options: dict[str, Any], coarse: float = 1e5
) -> dict[str, Any]:
    """Everything but the logits; what the mask hides may be anything."""
    tokens, small, loss = len(logits), compute_dtype(logits.dtype), draw.choice(LOSSES)
    row_of_token = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths).long())
    targets = targets_of(draw, logits)
    exact = exact_logits(logits, torch.zeros(tokens, dtype=torch.bool), **options).detach()
    temperature = as_float(options["temperature"])
    logprobs, _ = reference.token_logprobs(exact, targets, temperature, softcap=options["softcap"])
    above = SAPO_ABOVE if loss == "sapo" else NEAR
    old = logprobs_beside(draw, logprobs, row_of_token, coarse, loss == "gspo", above)
    tensors = {"targets": targets, "old_logprobs": old}
    numbers: dict[str, Any] = {"loss": loss, **loss_options(draw, loss, lengths)}
    if draw.chance(0.3):
        tensors["engine_logprobs"] = logprobs_beside(draw, old, row_of_token, coarse)
        numbers |= {"engine_mode": draw.pick("truncate", "mask"), "engine_level": draw.pick("token", "row")}
        numbers["engine_low"] = low = draw.pick(0.0, 0.5)
        numbers["engine_high"] = draw.pick(low + 0.3, 2.0, 100.0)
    if draw.chance(0.4):
        tensors["ref_logprobs"] = logprobs_beside(draw, logprobs, row_of_token, coarse)
        numbers |= {"kl": draw.pick("k1", "k2", "k3"), "kl_weighted": draw.chance(0.4)}
        numbers["kl_coef"] = draw.pick(0.0, 0.04, 1.0)
    if draw.chance(0.7):
        tensors["mask"] = mask = draw.uniform_tensor(tokens) < draw.pick(0.7, 0.9, 0.0)
        for name in ("old_logprobs", "ref_logprobs", "engine_logprobs"):
            if name in tensors:
                tensors[name] = torch.where(mask, tensors[name], draw.pick(torch.nan, torch.inf, 0.0))
        tensors["targets"] = torch.where(mask, targets, draw.pick(-1, 10**9, 0))
    tensors |= {"row_offsets": offsets(lengths)}
    given, chosen = advantages_of(draw, len(lengths))
    tensors |= given
    return {
        **{k: laid_out(draw, x.to(small) if x.is_floating_point() else x) for k, x in tensors.items()},
        **numbers,
        **chosen,
    }


def advantages_of(draw: Draw, rows: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Advantages, or rewards of groups and what turns them into advantages."""
    if draw.chance(0.5):
        values = draw.normal(rows) * draw.pick(1.0, 1.0, 1e-3, 1e3)
        return {"advantages": torch.where(draw.uniform_tensor(rows) < 0.2, 0.0, values)}, {}
    groups: list[int] = []
    while sum(groups) < rows:
        groups.append(draw.randint(0, rows - sum(groups)))
    right = draw.integers(2, rows)
    rewards = draw.pick(right, right.bool(), right.double(), right.double(), draw.normal(rows))
    kind = draw.choice(KINDS)
    chosen: dict[str, Any] = {"advantage": kind}
    if kind in ("group", "batch"):
        chosen["advantage_eps"] = draw.pick(1e-4, 1e-6)
    if kind == "passk":
        chosen["pass_k"] = draw.randint(1, 4)
    return {"rewards": rewards, "group_offsets": offsets(groups)}, chosen


def loss_options(draw: Draw, loss: str, lengths: list[int]) -> dict[str, Any]:
    """Numbers that this loss uses."""
    options: dict[str, Any] = {}
    if draw.chance(0.25):
        options["entropy_coef"] = draw.pick(0.01, 1.0)
    if draw.chance(0.25):
        options["skip_zero_advantage"] = True
    if loss in CLIPPED:
        if draw.chance(0.5):
            options |= {"clip_low": draw.pick(0.1, 0.9), "clip_high": draw.pick(0.28, 3.0)}
        options |= {"delta": draw.pick(1.5, 10.0)} if draw.chance(0.2) else {}
        options |= {"dual_clip": draw.pick(1.5, 3.0)} if draw.chance(0.2) else {}
    elif loss == "cispo":
        options |= {"clip_high": draw.pick(0.5, 5.0)} if draw.chance(0.7) else {}
    else:
        options |= {"tau_positive": draw.pick(0.1, 3.0), "tau_negative": draw.pick(0.3, 2.0)}
    if loss == "dr_grpo":
        options["max_length"] = max([*lengths, 1]) + draw.randint(0, 9)
    if loss in ("dapo", "cispo") and draw.chance(0.3):
        options["num_tokens"] = sum(lengths) + draw.randint(1, 9)
    if loss in ("grpo", "gspo", "sapo", "dr_grpo") and draw.chance(0.3):
        options["num_rows"] = len(lengths) + draw.randint(1, 3)
    return options
