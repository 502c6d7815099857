"""What is measured while the model is updated."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class UpdateStats:
    """Sums over one or more optimizer steps; `means` divides.

    Attributes:
        loss: sum of the steps' losses.
        updates: optimizer steps.
        tokens: loss tokens that were run through the model.
        entropy: sum over those tokens, in nats.
        clipped: how many of them were clipped.
        kl: sum of their KL estimates.
        grad_norm: sum of the steps' gradient norms, before clipping.
    """

    loss: float = 0.0
    updates: int = 0
    tokens: float = 0.0
    entropy: float = 0.0
    clipped: float = 0.0
    kl: float = 0.0
    grad_norm: float = 0.0

    def means(self, accelerator: Any, with_kl: bool) -> dict[str, float]:
        """The step's metrics over all processes, each of which must call it."""
        sums = torch.tensor([self.loss, self.tokens, self.entropy, self.clipped, self.kl])
        sums = accelerator.reduce(sums.to(accelerator.device), "sum").tolist()
        loss, tokens, entropy, clipped, kl = sums
        tokens = max(tokens, 1.0)
        means = {
            "loss": loss / self.updates,
            "grad_norm": self.grad_norm / self.updates,
            "clip_fraction": clipped / tokens,
            "entropy": entropy / tokens,
        }
        return means | {"kl": kl / tokens} if with_kl else means
