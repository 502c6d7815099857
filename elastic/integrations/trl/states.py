"""What the fused ops start from: hidden states and the head, or logits where there is no plain head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elastic import ops
from elastic.models.head import LinearHead
from elastic.ops.loss import GrpoOutput


class TokenStatistics(NamedTuple):
    """Of N tokens under the current weights, without gradient: float32 [N] each."""

    logprobs: Tensor
    entropy: Tensor


@dataclass(frozen=True)
class States:
    """One forward pass at the places that predict N tokens.

    Attributes:
        values: [N, H] hidden states, or [N, V] logits without a head.
        head: the model's, where it is a plain linear layer.
        temperature: of the softmax.
    """

    values: Tensor
    head: LinearHead | None
    temperature: float

    @torch.no_grad()
    def logprobs(self, targets: Tensor) -> TokenStatistics:
        """Those of the targets [N]."""
        if self.head is None:
            return TokenStatistics(*ops.token_logprobs(self.values, targets, self.temperature))
        operands = (self.values, self.head.linear.weight, targets, self.temperature)
        return TokenStatistics(*ops.linear_token_logprobs(*operands, **self._head_options(self.head)))

    def loss(
        self, targets: Tensor, old: Tensor, row_offsets: Tensor, advantages: Tensor, **options: Any
    ) -> GrpoOutput:
        """The GRPO loss; without a head the logits are overwritten by their gradient."""
        tensors = (targets, old, row_offsets, advantages)
        options["temperature"] = self.temperature
        if self.head is None:
            return ops.grpo_loss(self.values, *tensors, inplace=True, **options)
        options |= self._head_options(self.head)
        return ops.linear_grpo_loss(self.values, self.head.linear.weight, *tensors, **options)

    @staticmethod
    def _head_options(head: LinearHead) -> dict[str, Any]:
        return {"bias": head.linear.bias, "softcap": head.softcap}
