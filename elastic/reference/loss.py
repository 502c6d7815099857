"""The GRPO losses in plain PyTorch: SPEC section 5 as code, differentiable by autograd, baseline of benches.

Dimensions: N tokens of a packed batch, R rows (completions), K groups, V vocabulary. Same arguments and
results as `elastic.ops`, but everything is computed in the dtype it comes in (16-bit logits in float32,
rewards in float64), and nothing is checked. Tests compare the fused ops with it; hand-written values test it.
"""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elastic.reference.logprobs import token_logprobs


class GrpoOutput(NamedTuple):
    """What `grpo_loss` returns. Floats are float32, or float64 for float64 logits.

    Attributes:
        loss: scalar; the only differentiable field.
        logprobs: [N] of the targets at the given temperature; 0 where masked.
        entropy: [N] in nats; 0 where masked.
        advantages: [R] as used.
        clip_fraction: scalar, share of unmasked tokens whose ratio lies outside the clip range on the side
            where the clip acts (low with A < 0, high with A > 0). 0 for sapo.
        kl: scalar, mean KL estimate over unmasked tokens, as the loss would count it; 0 without
            `ref_logprobs`.
    """

    loss: Tensor
    logprobs: Tensor
    entropy: Tensor
    advantages: Tensor
    clip_fraction: Tensor
    kl: Tensor


def group_advantage(
    rewards: Tensor, group_offsets: Tensor, kind: str = "group", eps: float = 1e-4, *, pass_k: int = 4
) -> Tensor:
    """[R] advantages; see `elastic.ops.group_advantage` for the table of kinds."""
    bounds = group_offsets.tolist()
    rewards = rewards if rewards.is_floating_point() else rewards.float()
    wide = rewards.double()
    parts = [_one_group(wide[a:b], wide, kind, eps, pass_k) for a, b in pairwise(bounds)]
    return torch.cat(parts).to(rewards) if parts else rewards.new_zeros(0)


def _one_group(group: Tensor, batch: Tensor, kind: str, eps: float, pass_k: int) -> Tensor:
    n = len(group)
    if n == 0 or bool((group == group[0]).all()):
        return torch.zeros_like(group)
    # In units of a power of two near the largest reward, sums and squares stay within a double's range.
    largest = (batch if kind == "batch" else group).abs().max()
    unit = 2.0 ** torch.frexp(largest).exponent.clamp(-1000, 1000).double()
    scaled = group / unit
    mean = scaled.mean()
    centred = scaled - mean
    if kind == "none":
        return centred * unit
    if kind == "group":
        return centred / (scaled.std() + eps / unit)
    if kind == "batch":
        return centred / ((batch / unit).std() + eps / unit)
    if kind == "rloo":
        return centred * (n / (n - 1) * unit)
    if kind == "maxrl":
        return centred / mean if mean > 0 else torch.zeros_like(group)
    if kind == "passk":
        right = group > 0.5
        wrong, k = int((~right).sum()), min(pass_k, n)
        passed = 1 - math.comb(wrong, k) / math.comb(n, k)
        deviation = (passed * (1 - passed)) ** 0.5
        if deviation == 0:
            return torch.zeros_like(group)
        all_others_wrong = math.comb(wrong - 1, k - 1) / math.comb(n - 1, k - 1)
        return (1 - passed - all_others_wrong * (~right).to(group)) / deviation
    raise ValueError(f"group_advantage: kind: unknown kind {kind!r}")


def grpo_loss(
    logits: Tensor,
    targets: Tensor,
    old_logprobs: Tensor,
    row_offsets: Tensor,
    advantages: Tensor | None = None,
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
    kept_ids: Tensor | None = None,
    kept_offsets: Tensor | None = None,
    num_tokens: int | None = None,
    num_rows: int | None = None,
    max_length: int | None = None,
    skip_zero_advantage: bool = False,
    inplace: bool = False,
) -> GrpoOutput:
    """See `elastic.ops.grpo_loss`; an option that is None there has the default written here.

    `inplace` changes nothing here: autograd owns the gradient.
    """
    if advantages is None:
        assert rewards is not None
        assert group_offsets is not None
        advantages = group_advantage(rewards, group_offsets, advantage, advantage_eps, pass_k=pass_k)
    if mask is None:
        mask = torch.ones_like(targets, dtype=torch.bool)
    rows = len(row_offsets) - 1
    row_of_token = torch.repeat_interleave(torch.arange(rows, device=targets.device), row_offsets.diff())
    unmasked = mask.sum().clamp(min=1)

    if isinstance(temperature, Tensor) and temperature.shape == (rows,) != targets.shape:
        temperature = temperature[row_of_token]

    def row_sum(x: Tensor) -> Tensor:
        return x.new_zeros(rows).index_add(0, row_of_token, x)

    read = mask
    if skip_zero_advantage and kl_coef == 0 and entropy_coef == 0:
        read = mask & (advantages[row_of_token] != 0)

    def masked(x: Tensor) -> Tensor:  # before any exp: inf * 0 must not appear
        return torch.where(read, x, 0.0)

    logprobs, entropy = token_logprobs(
        logits,
        torch.where(mask, targets, 0),
        temperature,
        softcap=softcap,
        kept_ids=kept_ids,
        kept_offsets=kept_offsets,
    )
    logprobs, entropy = masked(logprobs), masked(entropy)
    old = masked(old_logprobs.to(logprobs))
    tokens_in_row = row_sum(mask.to(logprobs)).clamp(min=1)
    a = advantages.to(logprobs)[row_of_token]

    log_ratio = logprobs - old
    if loss == "gspo":
        log_ratio = (row_sum(log_ratio) / tokens_in_row)[row_of_token]
    ratio = ratio_of(log_ratio)

    weight = torch.ones_like(old)
    if engine_logprobs is not None:
        log_weight = masked(old - masked(engine_logprobs.to(old)))
        if engine_level == "row":
            log_weight = row_sum(log_weight)[row_of_token]
        weight = log_weight.exp()
        outside = (weight < engine_low) | (weight > engine_high)
        truncated = weight.clamp(engine_low, engine_high)
        weight = truncated if engine_mode == "truncate" else torch.where(outside, 0.0, weight)

    if loss == "cispo":
        factor = ratio.clamp(max=clip_high).detach() * a
        term = -factor * torch.where(factor == 0, 0.0, logprobs)  # rho l -> 0 as l -> -inf
        clipped = (ratio > clip_high) & (a > 0)
    elif loss == "sapo":
        tau = torch.where(a > 0, torch.full_like(a, tau_positive), torch.full_like(a, tau_negative))
        term = -a * (4 / tau) * torch.sigmoid(tau * (ratio - 1))
        clipped = torch.zeros_like(mask)
    else:
        term = clipped_term(ratio, a, clip_low, clip_high, delta, dual_clip)
        clipped = ((ratio < 1 - clip_low) & (a < 0)) | ((ratio > 1 + clip_high) & (a > 0))
    # a term with factor 0 adds 0, however large its ratio; a NaN in the input stays NaN
    nothing = torch.where(log_ratio.isnan() | weight.isnan(), torch.nan, 0.0).to(term)
    term = torch.where((a == 0) | (weight == 0), nothing, weight * term)

    divergence = torch.zeros_like(logprobs)
    if ref_logprobs is not None:
        ref = masked(ref_logprobs.to(logprobs))
        x = logprobs - ref
        if not kl_weighted:
            divergence = kl_estimate(kl, x)
        elif loss == "gspo":
            divergence = weighted_kl(kl, x, ratio, torch.where(x == -torch.inf, torch.inf, log_ratio - x))
        else:
            divergence = weighted_kl(kl, x, ratio, ref - old)

    x = term
    if kl_coef != 0:  # a KL that is only reported may be infinite
        x = x + kl_coef * divergence
    x = masked(x - entropy_coef * entropy)
    row_count = max(rows if num_rows is None else num_rows, 1)
    if loss in ("grpo", "gspo", "sapo"):
        value = (row_sum(x) / tokens_in_row).sum() / row_count
    elif loss == "bnpo":
        value = x.sum() / unmasked
    elif loss == "dr_grpo":
        assert max_length is not None
        value = x.sum() / (row_count * max_length)
    elif loss in ("dapo", "cispo"):
        value = x.sum() / (unmasked if num_tokens is None else max(num_tokens, 1))
    else:
        raise ValueError(f"grpo_loss: loss: unknown loss {loss!r}")
    share = (masked(clipped.to(logprobs)).sum() / unmasked, masked(divergence).sum() / unmasked)
    detached = (
        logprobs.detach(),
        entropy.detach(),
        advantages.detach().clone(),
        share[0].detach(),
        share[1].detach(),
    )
    return GrpoOutput(value, *detached)


def linear_grpo_loss(
    hidden: Tensor,
    weight: Tensor,
    *arguments: Any,
    bias: Tensor | None = None,
    chunk_tokens: int | None = None,
    gather: bool = True,
    **options: Any,
) -> GrpoOutput:
    """See `elastic.ops.linear_grpo_loss`; `chunk_tokens` and `gather` change nothing here."""
    return grpo_loss(torch.nn.functional.linear(hidden, weight, bias), *arguments, **options)


def ratio_of(log_ratio: Tensor) -> Tensor:
    """exp(log_ratio). Where it overflows, autograd sees a constant, so that no gradient is 0 * inf."""
    over = log_ratio > math.log(torch.finfo(log_ratio.dtype).max)
    return torch.where(over, torch.inf, torch.where(over, 0.0, log_ratio).exp())


def clipped_term(
    ratio: Tensor, a: Tensor, clip_low: float, clip_high: float, delta: float | None, dual_clip: float | None
) -> Tensor:
    """-min(min(rho, delta) A, clip(rho) A), bounded by dual_clip |A| where A < 0; any shape."""
    plain = ratio if delta is None else ratio.clamp(max=delta)
    term = -torch.minimum(plain * a, ratio.clamp(1 - clip_low, 1 + clip_high) * a)
    if dual_clip is None:
        return term
    return torch.where(a < 0, torch.minimum(term, -dual_clip * a), term)


def kl_estimate(kind: str, x: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) from one sample; x = logprob - reference logprob, any shape."""
    estimators: dict[str, Any] = {
        "k1": lambda: x,
        "k2": lambda: x * x / 2,
        "k3": lambda: torch.exp(-x) + torch.where(x == -torch.inf, 0.0, x) - 1,
    }
    return estimators[kind]()


def weighted_kl(kind: str, x: Tensor, ratio: Tensor, log_ref_ratio: Tensor) -> Tensor:
    """rho KL, with log_ref_ratio = log(rho exp(-x)), which is ref - old where the ratio is the token's own.

    At a logprob of -inf it is the limit: 0 for k1 and k2, exp(ref - old) for k3. An infinite ratio times a KL
    of 0 is 0. Factors are replaced before they are multiplied, so that autograd meets no inf * 0.
    """
    far = (x < -1) & (ratio <= 1) if kind == "k3" else x == -torch.inf
    near = kl_estimate(kind, torch.where(far, 0.0, x))
    value = torch.where(ratio.isinf() & (near == 0), 1.0, ratio) * near
    if kind == "k3":  # exp(-x) may overflow where rho vanishes
        rest = torch.where(far, ratio, 0.0) * (torch.where(x == -torch.inf, 0.0, x) - 1)
        value = torch.where(far, torch.where(far, log_ref_ratio, 0.0).exp() + rest, value)
    return torch.where(x == torch.inf, x, value)
