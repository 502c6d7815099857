"""The tokens that carry loss of TRL's padded completions, packed as the fused losses take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedTokens:
    """N loss tokens of B padded rows of T columns: what the model chose, no forced or tool token.

    Attributes:
        mask: [B, T] bool, True at loss tokens.
        targets: [N] int64.
        row_offsets: [B + 1] int64, where each row's tokens start; a row may have none.
    """

    mask: Tensor
    targets: Tensor
    row_offsets: Tensor

    @classmethod
    def of(cls, inputs: dict[str, Any]) -> PackedTokens:
        """Those of what TRL's `_compute_loss` is given."""
        mask = inputs["completion_mask"].bool()
        if "tool_mask" in inputs:  # what TRL makes of env_mask
            mask = mask & inputs["tool_mask"].bool()
        offsets = mask.new_zeros(len(mask) + 1, dtype=torch.int64)
        torch.cumsum(mask.sum(1), 0, out=offsets[1:])
        return cls(mask, inputs["completion_ids"][mask], offsets)

    def __len__(self) -> int:
        return self.targets.numel()

    def pack(self, padded: Tensor) -> Tensor:
        """[B, T] or [B, 1] to [N]."""
        return padded.expand_as(self.mask)[self.mask]

    def unpack(self, packed: Tensor) -> Tensor:
        """[N] to [B, T], 0 at other tokens."""
        padded = packed.new_zeros(self.mask.shape)
        padded[self.mask] = packed
        return padded
