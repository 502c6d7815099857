"""The metrics of TRL's loss, under TRL's names, from what the fused loss returns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import nanmax, nanmin

from elastic.integrations.trl.packed import PackedTokens
from elastic.ops.loss import GrpoOutput


@torch.no_grad()
def log_loss_metrics(
    trainer: Any, mode: str, inputs: dict[str, Any], tokens: PackedTokens, output: GrpoOutput, old: Tensor
) -> None:
    """Adds kl, entropy and clip ratios to the trainer's metrics, as `GRPOTrainer._compute_loss` does.

    Args:
        trainer: an ElasticGRPOTrainer.
        mode: "train" or "eval".
        inputs: of the loss.
        tokens: the same, packed.
        output: of the loss.
        old: [N] logprobs that the ratio was taken against.
    """
    metrics, mask = trainer._metrics[mode], tokens.mask.float()
    ratio = _ratio(trainer, tokens.unpack(output.logprobs - old), mask)
    mean = _Means(trainer, mask)
    if trainer.beta != 0:
        kl = _k3(inputs["ref_per_token_logps"] - tokens.unpack(output.logprobs))
        metrics["kl"].append(mean(kl * ratio if trainer.args.use_bias_correction_kl else kl))
    metrics["entropy"].append(mean(tokens.unpack(output.entropy)))
    advantages = inputs["advantages"][:, None]
    if trainer.loss_type == "cispo":
        clipped = (ratio > trainer.epsilon_high) & (advantages > 0)
        metrics["cispo_clip_ratio"].append(mean(clipped.float()))
    if trainer.loss_type in ("cispo", "sapo"):
        return
    if trainer.args.delta is not None:
        ratio = ratio.clamp(max=trainer.args.delta)
    low = ((ratio < 1 - trainer.epsilon_low) & (advantages < 0)).float()
    high = ((ratio > 1 + trainer.epsilon_high) & (advantages > 0)).float()
    metrics["clip_ratio/low_mean"].append(mean(low))
    metrics["clip_ratio/high_mean"].append(mean(high))
    metrics["clip_ratio/region_mean"].append(mean(low + high))
    gather = trainer.accelerator.gather
    metrics["clip_ratio/low_min"].append(nanmin(gather(mean.of_rows(low))).item())
    metrics["clip_ratio/high_max"].append(nanmax(gather(mean.of_rows(high))).item())


def _ratio(trainer: Any, log_ratio: Tensor, mask: Tensor) -> Tensor:
    """[B, T], or [B, 1] where the ratio is a row's."""
    if trainer.importance_sampling_level == "sequence":
        log_ratio = ((log_ratio * mask).sum(-1) / mask.sum(-1).clamp(min=1))[:, None]
    return log_ratio.exp()


def _k3(difference: Tensor) -> Tensor:
    """Schulman's estimate of the KL from reference logprob minus logprob."""
    return difference.exp() - difference - 1


class _Means:
    """Means over unmasked tokens of all processes; of [B, 1] values, over rows."""

    def __init__(self, trainer: Any, mask: Tensor) -> None:
        self._trainer, self._mask = trainer, mask

    def __call__(self, values: Tensor) -> float:
        if values.shape[1] == 1:
            parts = torch.stack([values.sum(), values.new_tensor(float(len(values)))])
        else:
            parts = torch.stack([(values * self._mask).sum(), self._mask.sum()])
        total, count = self._trainer.accelerator.reduce(parts, reduction="sum").tolist()
        return float(total / max(count, 1.0))

    def of_rows(self, values: Tensor) -> Tensor:
        """[B]; NaN for a row without an unmasked token."""
        if values.shape[1] == 1:
            return values[:, 0]
        return (values * self._mask).sum(-1) / self._mask.sum(-1)
