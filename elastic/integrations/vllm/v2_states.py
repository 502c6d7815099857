"""States of the budget machine over vLLM's request slots.

S slots, k draft tokens at most, B requests of a call.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from elastic.ops.state import BUDGET, STATE_WIDTH


class Kept(NamedTuple):
    """States of a request without a slot, [k + 2, 8] int32; [] int64, how many tokens the first is behind."""

    behind: Tensor
    length: Tensor


class SlotStates:
    """The state behind a slot's committed tokens, and behind each row that was drawn for it since.

    A step draws up to k + 1 tokens of a request. How many of them vLLM takes over is known on the device
    only, by the slot's new length. So a step keeps the state behind each of its rows, and the next one goes
    on from that of the last token taken. Nothing is replayed, and no rejected token leaves a trace.

    Args:
        slots: S.
        drafts: k, 0 without speculative decoding.
        device: where vLLM's own buffers lie.
    """

    def __init__(self, slots: int, drafts: int, device: torch.device):
        # Column 0: behind the committed tokens; column 1 + i: behind the token drawn in the step's row i.
        self._behind = torch.zeros(slots, drafts + 2, STATE_WIDTH, dtype=torch.int32, device=device)
        self._length = torch.zeros(slots, dtype=torch.int64, device=device)

    def kept(self, slot: int) -> Kept:
        """A copy of what is known of a slot."""
        return Kept(self._behind[slot].clone(), self._length[slot].clone())

    def put(self, slot: int, kept: Kept) -> None:
        """Puts back what was known of another slot, or of this one."""
        self._behind[slot].copy_(kept.behind)
        self._length[slot].copy_(kept.length)

    def begin(self, slots: Tensor, lengths: Tensor, states: Tensor, resumed: Tensor) -> None:
        """Requests take slots.

        Args:
            slots: [B] int64.
            lengths: [B] int64, their tokens, prompt included.
            states: [B, 8] int32, behind these tokens.
            resumed: [B] bool, whether what the slot holds is the request's own from before it was preempted.
                It is more exact than `states`, and goes before them where it reaches to `lengths`.
        """
        ahead, within = self._ahead(slots, lengths)
        own = self._behind[slots, ahead]
        own[:, BUDGET] = states[:, BUDGET]  # its row in the table may be another now
        self._behind[slots, 0] = torch.where((resumed & within)[:, None], own, states)
        self._length[slots] = lengths

    def committed(self, slots: Tensor, lengths: Tensor) -> Tensor:
        """[B, 8] int32, the states behind the first `lengths` tokens, [B] int64. Later rows are forgotten."""
        states = self._behind[slots, self._ahead(slots, lengths)[0]]
        self._behind[slots, 0] = states
        self._length[slots] = lengths
        return states

    def keep(self, slots: Tensor, row: int, states: Tensor) -> None:
        """Keeps the states behind the tokens drawn in the step's row `row` of each request."""
        self._behind[slots, row + 1] = states

    def _ahead(self, slots: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens taken over since `committed`, in 0 .. k + 1, and whether that is what the lengths say."""
        ahead = lengths - self._length[slots]
        most = self._behind.shape[1] - 1
        return ahead.clamp(0, most), (ahead >= 0) & (ahead <= most)
