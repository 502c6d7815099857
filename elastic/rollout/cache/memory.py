"""What the KV cache of a call takes of a device's memory, and what is said where that is not free.

R rows, S slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from elastic.models import probe
from elastic.rollout.cache.prefill import prefill
from elastic.rollout.schedule.needs import Needs
from elastic.rollout.schedule.pools import Pool, cells, length_classes, most_slots

# A further pool must save at least this much: a small cache is better read in one call.
WORTH_BYTES = 64 * 2**20


@dataclass(frozen=True)
class KVMemory:
    """What the KV caches of one model take of one device.

    Attributes:
        column_bytes: keys and values of one token in all layers.
        device: of the cache.
        several: whether the model decodes in several pools.
    """

    column_bytes: int
    device: torch.device
    several: bool = True

    def pools(self, needs: Needs, slots: int) -> list[Pool]:
        """The pools that the cache of S slots begins with, S at most R."""
        return self.classes(needs, slots) if self.several else [Pool(slots, max(needs.columns))]

    def classes(self, needs: Needs, slots: int) -> list[Pool]:
        """The pools that would save memory, whether or not the model decodes in several."""
        return length_classes(needs, slots, -(-WORTH_BYTES // self.column_bytes))

    def bytes(self, pools: Sequence[Pool]) -> int:
        """Bytes of keys and values in these slots."""
        return cells(pools) * self.column_bytes

    def check(self, needs: Needs, pools: Sequence[Pool], held_bytes: int = 0) -> None:
        """Checks that the pools fit into what is free and what the cache holds already.

        Raises:
            MemoryError: they do not; names rows, tokens, sizes, and the most rows that would fit.
        """
        free = free_bytes(self.device)
        if free is not None and self.bytes(pools) > free + held_bytes:
            raise self.error(needs, pools, free + held_bytes)

    def error(self, needs: Needs, pools: Sequence[Pool], free: int) -> MemoryError:
        """The error that says pools do not fit into `free` bytes, and what would."""
        slots = sum(pool.slots for pool in pools)
        fitting = most_slots(lambda n: self.bytes(self.pools(needs, n)) <= free, slots)
        rows = " and ".join(
            f"{pool.slots} row{'s' if pool.slots > 1 else ''} of {pool.columns} tokens" for pool in pools
        )
        hint = f"max_rows={fitting} would fit" if fitting else "not even max_rows=1 would fit"
        lower = "lower max_rows, the budgets" if fitting else "lower the budgets"
        return MemoryError(
            f"KV cache: {rows} need {_gib(self.bytes(pools))}, {_gib(free)} are free on {self.device}; "
            f"{hint}: {lower} or max_new_tokens"
        )


def column_bytes(model: Any, device: torch.device) -> int:
    """Bytes of one token's keys and values in all layers, as a forward over one token leaves them.

    Configurations tell less: layers may share their keys and values, or have other numbers of heads.
    """
    prefix = prefill(model, [probe.ordinary_tokens(model, 1)], device)[0]
    return sum(state.numel() * state.element_size() for state in (*prefix.keys, *prefix.values))


def free_bytes(device: torch.device) -> int | None:
    """Memory that an allocation may still take, or None where the system does not tell."""
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
    except FileNotFoundError:
        return None
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
