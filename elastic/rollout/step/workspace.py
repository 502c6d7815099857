"""The buffers of decode steps, kept from call to call, so that what was recorded over them stays right.

S slots, L cache columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from elastic.budget.machine import Machine
from elastic.rollout.cache.slot_cache import Prefix, SlotCache
from elastic.rollout.schedule.pools import Pool
from elastic.rollout.step.step import Slots, done_state, new_slots

_COLUMNS_STEP = 256  # calls of about the same length find the cache of the last one


class Workspace:
    """Slots, KV cache and machine tables at addresses that calls of the same sizes share.

    They only grow: a call that needs less takes a part.
    """

    def __init__(self) -> None:
        self._slots: Slots | None = None
        self._cache: SlotCache | None = None
        self._machines: dict[tuple, tuple[Tensor, ...]] = {}

    def release(self) -> None:
        """Frees everything."""
        self.__init__()  # type: ignore[misc]

    @property
    def tensors(self) -> list[Tensor]:
        """All that a step reads and writes besides the model and the machine."""
        slots = [] if self._slots is None else list(vars(self._slots).values())
        return slots + ([] if self._cache is None else self._cache.tensors)

    @property
    def bytes(self) -> int:
        """Bytes of all that it holds."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def cache_bytes(self) -> int:
        """Bytes of its KV cache."""
        return 0 if self._cache is None else self._cache.bytes

    def machine(self, machine: Machine, device: torch.device) -> Machine:
        """The machine with its tensors on the device, where another of the same sizes lay before."""
        sizes = (machine.tables.shape, machine.token_flags.shape, device)
        own = (machine.tables, machine.token_flags)
        if sizes not in self._machines:
            self._machines[sizes] = tuple(tensor.to(device, copy=True) for tensor in own)
        tables, flags = (kept.copy_(new) for kept, new in zip(self._machines[sizes], own, strict=True))
        return replace(machine, tables=tables, token_flags=flags)

    def slots(
        self, slots: int, vocab: int, machine: Machine, device: torch.device, most_kept: int = 0
    ) -> Slots:
        """At least as many free slots."""
        kept = self._slots
        sizes = (vocab, most_kept)
        if kept is None or (kept.logits.shape[1], kept.most_kept) != sizes or len(kept.tokens) < slots:
            self._slots = self._cache = None
            self._slots = new_slots(slots, vocab, machine, device, most_kept)
            return self._slots
        for tensor in (kept.signal, kept.entry, kept.positions):
            tensor.zero_()
        kept.state.copy_(done_state(len(kept.state), machine, device))
        return kept

    def cache(self, prefix: Prefix, pools: Sequence[Pool]) -> SlotCache:
        """A cache for slots in these pools, at least as long. What it holds is finite; nothing reads it."""
        if self._cache is None or not self._cache.serves(prefix, pools):
            self._cache = None  # freed before the next one is taken
            self._cache = SlotCache(prefix, [Pool(p.slots, _rounded(p.columns)) for p in pools])
        self._cache.cursor.reopen()
        return self._cache


def _rounded(columns: int) -> int:
    return -(-columns // _COLUMNS_STEP) * _COLUMNS_STEP
