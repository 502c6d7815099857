"""The model that rollouts run on."""

import copy
from typing import Any

import torch


class RolloutModel:
    """The trained model itself, or a 16-bit copy of it where training is in mixed precision.

    Under autocast keys come out of the rotary embedding in float32 and values of their projection in 16 bits,
    which no KV cache stores, and flash-attn takes no float32 weights. So mixed precision keeps float32
    weights for the optimizer and gives the rollouts 16-bit ones, two bytes a parameter more.

    Args:
        model: the trained model.
        mixed_precision: ``no`` or ``bf16``.
    """

    def __init__(self, model: Any, mixed_precision: str) -> None:
        self._trained = model
        copies = mixed_precision != "no" and model.dtype == torch.float32
        self.module = copy.deepcopy(model).to(torch.bfloat16).requires_grad_(False) if copies else model

    @torch.no_grad()
    def sync(self) -> None:
        """Brings a copy up to date; called before every rollout and evaluation."""
        if self.module is self._trained:
            return
        pairs = zip(self.module.parameters(), self._trained.parameters(), strict=True)
        for own, trained in pairs:
            own.copy_(trained)
