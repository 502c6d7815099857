"""In which pools of slots a model decodes the rows of a call, and the memory they are in.

R rows, S slots.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from elastic.rollout.cache.memory import KVMemory, column_bytes
from elastic.rollout.schedule.needs import Needs
from elastic.rollout.schedule.pools import Pool


class Pooling:
    """Chooses the pools of an engine's calls.

    What a token's keys and values take is found out when a call first asks.

    Args:
        model: within `serving` whenever a method is called.
        several: whether the model's attention takes several pools.
    """

    def __init__(self, model: Any, device: torch.device, several: bool):
        self._model, self._device, self._several = model, device, several
        self._column_bytes: dict[torch.dtype, int] = {}
        self._said = False

    def plan(self, needs: Needs, slots: int) -> tuple[KVMemory, list[Pool]]:
        """The pools that S slots begin with, and the memory they are in, which they may not fit."""
        dtype = self._model.dtype
        if dtype not in self._column_bytes:
            self._column_bytes[dtype] = column_bytes(self._model, self._device)
        memory = KVMemory(self._column_bytes[dtype], self._device, self._several)
        return memory, memory.pools(needs, slots)

    def fitting(self, needs: Needs, slots: int, held_bytes: int = 0) -> tuple[KVMemory, list[Pool]]:
        """The same, which fit into what is free and what is held for them already.

        Raises:
            MemoryError: they do not.
        """
        memory, pools = self.plan(needs, slots)
        memory.check(needs, pools, held_bytes)
        if not (self._several or self._said) and len(memory.classes(needs, slots)) > 1:
            self._said = True
            warnings.warn(
                "model: rows of different budgets all take the KV memory of the longest: slots of different "
                "lengths need an attention that goes through transformers' attention interface",
                stacklevel=4,
            )
        return memory, pools
