"""Whether, and in which pools of slots, a model decodes the rows of a call.

R rows, S slots.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from elastic.rollout.memory import KVMemory, column_bytes
from elastic.rollout.needs import Needs
from elastic.rollout.pooled_attention import POOLED_ATTENTION
from elastic.rollout.pools import Pool
from elastic.rollout.proof import prove_decoding
from elastic.rollout.serving import attention_set


class Pooling:
    """Of one engine. What it says of its model, it finds out when a call first asks.

    Args:
        model: in the state it decodes in whenever a method is called (`serving`).
        context: most tokens of a row, or None.
    """

    def __init__(self, model: Any, device: torch.device, context: int | None):
        self._model, self._device, self._context = model, device, context
        self._column_bytes: dict[torch.dtype, int] = {}
        self._several: bool | None = None

    def plan(self, needs: Needs, slots: int) -> tuple[KVMemory, list[Pool]]:
        """The pools that S slots begin with, and the memory they are in, which they may not fit."""
        dtype = self._model.dtype
        if dtype not in self._column_bytes:
            self._column_bytes[dtype] = column_bytes(self._model, self._device)
        memory = KVMemory(self._column_bytes[dtype], self._device, several=self._several is not False)
        pools = memory.pools(needs, slots)
        if len(pools) > 1 and self._several is None:
            self._several = self._proven()
            return self.plan(needs, slots)
        return memory, pools

    @contextmanager
    def decoding(self, needs: Needs, slots: int) -> Iterator[tuple[KVMemory, list[Pool]]]:
        """The same, where they fit, while the model attends to as many pools as they are.

        Raises:
            MemoryError: they do not fit.
        """
        memory, pools = self.plan(needs, slots)
        memory.check(needs, pools)
        with attention_set(self._model, POOLED_ATTENTION) if len(pools) > 1 else nullcontext():
            yield memory, pools

    def _proven(self) -> bool:
        config = self._model.config.get_text_config(decoder=True)
        own, reason = config._attn_implementation, None
        if own != "sdpa":
            reason = f"its attention is {own!r}, not 'sdpa'"
        else:
            try:
                with attention_set(self._model, POOLED_ATTENTION):
                    prove_decoding(self._model, self._context)
            except ValueError as error:
                reason = str(error)
        if reason is not None:
            warnings.warn(
                "model: rows of different budgets all take the KV memory of the longest, as slots of "
                f"different lengths do not work: {reason}",
                stacklevel=6,
            )
        return reason is None
