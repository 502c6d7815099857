"""How far the updated policy is from the one that drew the tokens, measured on the tokens of the loss.

Everything stays on the device: sums and a histogram, which add up over micro-batches and processes.
"""

import warnings

import torch
from torch import Tensor

from elastic.train.collect.experience import Experience
from elastic.train.config import TrainConfig
from elastic.train.config.updates import LossConfig
from elastic.train.update.transfer import to_device

# Of |log ratio|: a hundred bins a decade, so a percentile is read at most 2.4 % too large. What is below the
# first edge reads as 0, what is above the last one as that.
_EDGES = 10 ** torch.linspace(-8, 2, 1001, dtype=torch.float64)
_UNCLIPPED_BELOW = ("cispo", "sapo")
# Of mismatch_p99. Float32 leaves 1e-6 to 1e-5. With 16-bit weights or activations dense models have 0.01 to
# 0.1, and mixtures of experts up to 0.6 where tokens are routed otherwise (docs/models.md).
_MOST_IN_FLOAT32, _MOST_IN_16_BITS = 0.01, 0.7


def mismatch_sums(logprobs: Tensor, part: Experience) -> dict[str, Tensor]:
    """Of log ratios d = log p - log q: p the policy before any update, q the one that the rollout drew from.

    Args:
        logprobs: [N] of the policy that drew `part`, computed by its update; N tokens of the rows of `part`.
        part: a micro-batch of a rollout's first update.

    Returns:
        Sums over the tokens that carry loss: of 1, d, |d| and exp(d) - 1 - d, an estimate of KL(q || p) that
        is never negative (http://joschu.net/blog/kl-approx.html); and a histogram of |d| for `quantile`.
    """
    device = logprobs.device
    mask = to_device(torch.cat(part.mask), device)
    rollout = to_device(torch.cat(part.rollout_logprobs), device)
    d = torch.where(mask, logprobs.double() - rollout, 0.0)
    places = torch.bucketize(d.abs(), _EDGES.to(device, non_blocking=True))
    histogram = torch.zeros(len(_EDGES) + 1, dtype=torch.float64, device=device)
    return {
        "mismatch_tokens": mask.double().sum(),
        "mismatch_mean": d.sum(),
        "mismatch_abs": d.abs().sum(),
        "mismatch_kl": (d.expm1() - d).sum(),
        "mismatch_histogram": histogram.index_add_(0, places, mask.double()),
    }


def mismatch_means(sums: dict[str, Tensor]) -> dict[str, float]:
    """What `mismatch_sums` found, as the step's metrics; `sums` over micro-batches and processes."""
    tokens = sums["mismatch_tokens"].clamp(min=1)
    means = {name: float(sums[name] / tokens) for name in ("mismatch_mean", "mismatch_abs", "mismatch_kl")}
    histogram = sums["mismatch_histogram"]
    return means | {"mismatch_p99": quantile(histogram, 0.99), "mismatch_max": quantile(histogram, 1.0)}


def quantile(histogram: Tensor, share: float) -> float:
    """The edge below which this share of the values lies."""
    counts = histogram.cumsum(0)
    place = int(torch.searchsorted(counts, share * counts[-1]))
    return 0.0 if place == 0 else float(_EDGES[min(place, len(_EDGES) - 1)])


def say_mismatch(p99: float, config: TrainConfig, narrow: bool) -> None:
    """Gives a warning where the first update's mismatch is larger than rounding explains.

    Args:
        p99: the metric of the run's first step.
        config: of the run.
        narrow: whether there are 16-bit weights.
    """
    # What vLLM computes in is its own choice.
    narrow |= config.train.mixed_precision != "no" or config.rollout.engine != "own"
    most = _MOST_IN_16_BITS if narrow else _MOST_IN_FLOAT32
    if p99 <= most:
        return
    causes = ["a reward or callback that changes the weights", "a layer that behaves differently in updates"]
    if config.rollout.engine != "own":
        causes.insert(0, f"rollout.engine = '{config.rollout.engine}' with weights or a precision of its own")
    if narrow:
        causes.insert(0, "16-bit rounding, above all of a router of experts or of very large logits")
    remedy = "loss.old_logprobs = 'recompute' takes it out of the ratio, loss.engine_correction weighs it"
    warnings.warn(
        f"mismatch_p99 of the first update is {p99:.2g}, more than the {most:g} that rounding explains: the "
        "policy that is updated gives a hundredth of the tokens another logprob than the one that drew them. "
        f"Likely causes: {'; '.join(causes)}. {remedy}",
        stacklevel=2,
    )


def ratio_sums(logprobs: Tensor, part: Experience, config: LossConfig) -> dict[str, Tensor]:
    """Of the loss's ratios rho = exp(d), d = log p - log old, over the tokens that carry loss.

    Args:
        logprobs: [N] of the policy that is updated.
        part: with its old logprobs.
        config: of the loss.

    Returns:
        Sums: of rho; of rho - 1 - d, an estimate of KL(old || p); and how many tokens are clipped below,
        where the advantage is negative, as the loss counts them (gspo: by their row's ratio).
    """
    device = logprobs.device
    mask = to_device(torch.cat(part.mask), device)
    old = to_device(torch.cat(part.old_logprobs), device)
    d = torch.where(mask, logprobs.double() - old, 0.0)
    advantages = to_device(part.advantages.repeat_interleave(torch.tensor(part.lengths)), device)
    bounded = _row_means(d, part, device) if config.loss == "gspo" else d
    low = mask & (bounded.exp() < 1 - config.clip_low) & (advantages < 0)
    return {
        "ratio": torch.where(mask, d.exp(), 0.0).sum(),
        "update_kl": (d.expm1() - d).sum(),
        "clipped_low": low.sum() * (config.loss not in _UNCLIPPED_BELOW),
    }


def _row_means(values: Tensor, part: Experience, device: torch.device) -> Tensor:
    """[N]: at every token the mean of its row's tokens with loss; the others are 0 in `values`."""
    counts = torch.tensor([max(int(mask.sum()), 1) for mask in part.mask])
    rows = to_device(torch.arange(len(part)).repeat_interleave(torch.tensor(part.lengths)), device)
    sums = torch.zeros(len(part), dtype=values.dtype, device=device).index_add_(0, rows, values)
    return (sums / to_device(counts, device))[rows]
