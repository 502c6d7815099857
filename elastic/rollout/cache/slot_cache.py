"""KV cache with one slot per row, under unmodified Hugging Face models.

S slots, n of them in use, in pools of S_p slots of L_p columns; H key/value heads, D head dimension, P prompt
length.

A prompt starts at column 0, so a token's column is its position: nothing is padded on the left, nothing
is moved when rows come and go. Every slot has its own write column. A free slot still computes something
in a step; it attends to its own finite leftovers and nobody reads the result.

Slots are numbered as in `schedule.py`: those in use, pool by pool. All pools of a layer lie in one tensor, so
that a step writes a layer's keys at once; only attention runs pool by pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import transformers
from torch import Tensor
from transformers.cache_utils import Cache, StaticLayer

from elastic.rollout.cache.cursor import Cursor
from elastic.rollout.schedule.pools import Pool

# Of the models' forward; transformers 5.24 renamed it in all of them.
_VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
CACHE_ARGUMENT = "cache" if _VERSION >= (5, 24) else "past_key_values"


@dataclass
class Prefix:
    """Keys and values of one prompt, and the logits of the token behind it.

    Attributes:
        keys, values: one [H, P, D] per layer.
        logits: [V] float32.
    """

    keys: list[Tensor]
    values: list[Tensor]
    logits: Tensor

    def clone(self) -> "Prefix":
        """A copy that shares no memory, so that the batch it was cut from can go."""
        keys, values = [k.clone() for k in self.keys], [v.clone() for v in self.values]
        return Prefix(keys, values, self.logits.clone())


class NoRoom(RuntimeError):
    """An allocation failed.

    Attributes:
        given: bytes that the cache had by then.
    """

    def __init__(self, given: int):
        super().__init__(f"out of memory after {given} bytes of keys and values")
        self.given = given


class SlotLayer(StaticLayer):
    """One layer's keys and values, each [cells, D]: slot behind slot, H heads of L_p columns in each.

    Args:
        cursor: shared by all layers of a cache; says where this step writes and how much it reads.
    """

    def __init__(self, max_cache_len: int, cursor: Cursor):
        super().__init__(max_cache_len=max_cache_len)
        self.cursor = cursor

    @property
    def stores(self) -> tuple[Tensor, Tensor]:
        """Keys and values, as the base class names them."""
        return cast(Tensor, self.keys), cast(Tensor, self.values)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Writes one token of the rows in use, and returns what they may attend to.

        Args:
            key_states, value_states: [n, H, 1, D].

        Returns:
            Views [n, H, columns, D] of keys and values. Where rows are in several pools, a list of such
            for each, of a pool's rows and columns.
        """
        views = []
        for store, states in zip(self.stores, (key_states, value_states), strict=True):
            heads, width = states.shape[1], states.shape[3]
            store.index_copy_(0, self.cursor.index(heads), states.reshape(-1, width))
            views.append(self.cursor.read(store, heads))
        return tuple(views)


class SlotCache(Cache):
    """A cache of slots in pools, shaped after the first prompt's keys and values.

    Args:
        pools: shortest first.

    Raises:
        NoRoom: the device's memory has been given out before the slots were.
    """

    def __init__(self, like: Prefix, pools: Sequence[Pool]):
        self.cursor = Cursor(pools)
        self.allocations = 0  # each may have moved the tensors
        self.slot_layers = [SlotLayer(pools[-1].columns, self.cursor) for _ in like.keys]
        super().__init__(layers=list(self.slot_layers))
        # Of no token, so that the prompt's memory is not kept: only shapes, dtype and device count.
        self._like = [
            (k[:, :0].clone(), v[:, :0].clone()) for k, v in zip(like.keys, like.values, strict=True)
        ]
        self._allocate(pools[-1].columns)

    @property
    def slots(self) -> int:
        """S, of all pools together."""
        return sum(pool.slots for pool in self.cursor.pools)

    @property
    def capacity(self) -> int:
        """Columns that each slot of the last pool has."""
        return self.cursor.pools[-1].columns

    @property
    def dtype(self) -> torch.dtype:
        """Type of the keys, which is that of the queries."""
        return self.slot_layers[0].stores[0].dtype

    @property
    def tensors(self) -> list[Tensor]:
        """All that is stored, by which steps find their addresses."""
        stores = [store for layer in self.slot_layers for store in layer.stores]
        return [store for store in stores if store is not None]

    @property
    def bytes(self) -> int:
        """Bytes of the keys and values that it has memory for."""
        return sum(store.nbytes for store in self.tensors)

    def serves(self, prefix: Prefix, pools: Sequence[Pool]) -> bool:
        """Whether it can be used again as it is: rows of such prompts fit, and slots in these pools do."""
        have = [(k.shape[::2], k.dtype, k.device, v.shape[::2], v.dtype) for k, v in self._like]
        pairs = zip(prefix.keys, prefix.values, strict=True)
        wanted = [(k.shape[::2], k.dtype, k.device, v.shape[::2], v.dtype) for k, v in pairs]
        own = self.cursor.pools
        # Slots of one pool need not all be used; those of several are numbered by how many each has.
        larger = len(own) == len(pools) == 1 and own[0].slots >= pools[0].slots
        same = [pool.slots for pool in own] == [pool.slots for pool in pools]
        long = all(one.columns >= other.columns for one, other in zip(own, pools, strict=False))
        return have == wanted and (larger or same) and long

    def _allocate(self, columns: int) -> None:
        self.allocations += 1
        old, new = self.cursor, Cursor(self.cursor.pools)
        new.resize(columns)
        kept = old.offsets[-2]  # in front of the last pool: it stays as it is
        for layer, (key, value) in zip(self.slot_layers, self._like, strict=True):
            for name, states in (("keys", key), ("values", value)):
                heads, _, width = states.shape
                # Zeroed: a masked column weighs 0, and 0 times a stray NaN would still be NaN.
                try:
                    fresh = states.new_zeros(new.offsets[-1] * heads, width)
                except torch.OutOfMemoryError:
                    raise NoRoom(self._released()) from None
                store = getattr(layer, name)
                if store is not None:
                    fresh[: kept * heads] = store[: kept * heads]
                    last = (heads, len(old.pools) - 1, old.pools[-1].slots, old.pools[-1].columns)
                    new.slots(fresh, *last).copy_(old.slots(store, *last))
                setattr(layer, name, fresh)
            layer.max_cache_len, layer.is_initialized = columns, True
            layer.dtype, layer.device = key.dtype, key.device
        self.cursor.resize(columns)

    def _released(self) -> int:
        """Gives all memory back: whoever handles the error may hold its traceback, and the cache with it."""
        had = self.bytes
        for layer in self.slot_layers:
            layer.keys = layer.values = None
        return had

    def grow(self, capacity: int) -> None:
        """Gives every slot of the last pool at least `capacity` columns, keeping what is there.

        Only for rows without a budget: those with one get all their columns at the start (SPEC R5).

        Raises:
            NoRoom: as the cache; it cannot be used any more.
        """
        if capacity > self.capacity:
            self._allocate(capacity)

    def insert(self, slots: Tensor, prefix: Prefix) -> None:
        """Puts one prompt into several slots.

        Args:
            slots: [k] int64.
        """
        index: dict[int, Tensor] = {}  # by heads: [k, heads, P] cells
        for layer, key, value in zip(self.slot_layers, prefix.keys, prefix.values, strict=True):
            for store, states in zip(layer.stores, (key, value), strict=True):
                heads, length, _ = states.shape
                if heads not in index:
                    begins = self.cursor.begins(heads, states.device)[slots]
                    index[heads] = begins[:, :, None] + torch.arange(length, device=states.device)
                store[index[heads]] = states

    def move(self, sources: Sequence[int], targets: Sequence[int], counts: Sequence[int]) -> None:
        """Follows a compaction.

        Args:
            sources, targets: numbers of slots that changed, before and after.
            counts: slots in use of each pool, after.
        """
        before, self.cursor.counts = self.cursor.counts, list(counts)
        moved: dict[int, list[tuple[int, int]]] = {}
        for source, target in zip(sources, targets, strict=True):
            pool, old = _place(source, before)
            _, new = _place(target, counts)
            if old != new:
                moved.setdefault(pool, []).append((old, new))
        for pool, pairs in moved.items():
            slots = self.cursor.pools[pool].slots
            columns = min(self.cursor.columns, self.cursor.pools[pool].columns)
            old_rows, new_rows = torch.tensor(pairs, device=self.slot_layers[0].device).unbind(1)
            for layer, states in zip(self.slot_layers, self._like, strict=True):
                for store, like in zip(layer.stores, states, strict=True):
                    view = self.cursor.slots(store, like.shape[0], pool, slots, columns)
                    view[new_rows] = view[old_rows]


def _place(slot: int, counts: Sequence[int]) -> tuple[int, int]:
    """The pool of a slot, and its place there.

    Args:
        counts: slots in use of each pool, by which slots are numbered.
    """
    pool = 0
    while slot >= counts[pool]:
        slot -= counts[pool]
        pool += 1
    return pool, slot
