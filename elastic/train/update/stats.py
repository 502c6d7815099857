"""What is measured while the model is updated."""

from typing import Any

import torch
from torch import Tensor

from elastic.train.update.ratios import mismatch_means


class UpdateStats:
    """Sums over one or more optimizer steps; `means` divides.

    The sums stay on the device until `means` reads them, all at once, so that no micro-batch makes the host
    wait for the device.

    Attributes:
        updates: optimizer steps.
        grad_norm: sum of their gradient norms, before clipping; the same in all processes.
    """

    def __init__(self) -> None:
        self.updates, self.grad_norm = 0, 0.0
        self._sums: dict[str, Tensor | float] = {}

    def add(self, **values: Tensor | float) -> None:
        """Adds to the sums of these names, which every process must name in the same order.

        Args:
            **values: numbers or tensors of any float dtype, summed in float64, of the same shape each time:

                loss: of a micro-batch, a part of its minibatch's.
                tokens: loss tokens that were run through the model.
                entropy: summed over those tokens, in nats.
                clipped: how many of them were clipped.
                kl: sum of their KL estimates.

                And what `elastic.train.update.ratios` measures.
        """
        for name, value in values.items():
            wide = value.detach().double() if isinstance(value, Tensor) else value
            self._sums[name] = self._sums.get(name, 0.0) + wide

    def read(self, accelerator: Any) -> dict[str, Tensor]:
        """The sums over all processes, on the CPU; each must call it. The one time that the host waits."""
        device = accelerator.device
        values = [torch.as_tensor(value, dtype=torch.float64, device=device) for value in self._sums.values()]
        sums = accelerator.reduce(torch.cat([value.flatten() for value in values]), "sum").cpu()
        parts = sums.split([value.numel() for value in values])
        return {
            name: part.view(value.shape) for name, part, value in zip(self._sums, parts, values, strict=True)
        }

    def means(self, accelerator: Any, with_kl: bool) -> dict[str, float]:
        """The step's metrics over all processes, each of which must call it."""
        sums = self.read(accelerator)
        tokens = sums["tokens"].clamp(min=1)
        low = sums["clipped_low"]
        shares = {
            "clip_fraction": sums["clipped"],
            "clip_low_fraction": low,
            "clip_high_fraction": sums["clipped"] - low,
            "ratio_mean": sums["ratio"],
            "update_kl": sums["update_kl"],
            "entropy": sums["entropy"],
        }
        means = {"loss": float(sums["loss"]) / self.updates, "grad_norm": self.grad_norm / self.updates}
        means |= {name: float(value / tokens) for name, value in shares.items()}
        if with_kl:
            means["kl"] = float(sums["kl"] / tokens)
        return means | mismatch_means(sums)
