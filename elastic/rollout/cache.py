"""KV cache with one slot a row, under unmodified Hugging Face models.

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
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, StaticLayer

from elastic.rollout.pools import Pool


@dataclass
class Prefix:
    """Keys and values of one prompt, and the logits of the token behind it.

    Attributes:
        keys, values: one [H, P, D] a layer.
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

    def __init__(self, max_cache_len: int, cursor: "Cursor"):
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
        heads, index = key_states.shape[1], self.cursor.index(key_states.shape[1])
        views = []
        for store, states in zip(self.stores, (key_states, value_states), strict=True):
            store.index_copy_(0, index, states.reshape(-1, store.shape[1]))
            views.append(self.cursor.read(store, heads))
        return tuple(views)


Geometry = tuple[tuple[int, ...], tuple[int, ...], int]  # size, strides and begin of a view


class Cursor:
    """Where the slots lie, and where the current step writes.

    Args:
        pools: of the slots.

    Attributes:
        counts: n_p, slots in use of each pool.
        columns: that are read, of pools that have as many; above every live row's write column.
    """

    def __init__(self, pools: Sequence[Pool]) -> None:
        self.pools = list(pools)
        self.resize(pools[-1].columns)
        self.counts = [pool.slots for pool in pools]
        self.columns = 0
        self._write = torch.empty(0, dtype=torch.int64)
        # Of this step, the same for most layers:
        self._index: dict[int, Tensor] = {}  # by heads
        self._views: dict[tuple[int, int], list[Geometry]] = {}  # by heads and D

    def resize(self, columns: int) -> None:
        """The last pool's slots have so many columns from here on."""
        self.pools[-1] = Pool(self.pools[-1].slots, columns)
        # Of each pool, the cells of one head in front of it; and of all.
        self.offsets = list(accumulate((pool.slots * pool.columns for pool in self.pools), initial=0))
        self._begins: dict[tuple[int, tuple[int, ...]], Tensor] = {}  # by heads and counts

    def move(self, write: Tensor, columns: int) -> None:
        """Goes to the next step.

        Args:
            write: [n] int64 column of each row's new token. Rows that are done may stand beyond what is read
                or what their slot has: they are held back, in place, at the last column.
        """
        parts: Sequence[Tensor] = (write,)
        if len(self.pools) == 1:
            self.counts = [write.shape[0]]
        else:
            parts = write.split(self.counts)
        for part, pool in zip(parts, self.pools, strict=True):
            part.clamp_(max=min(columns, pool.columns) - 1)
        self._write, self.columns = write, columns
        self._index.clear()
        self._views.clear()

    def begins(self, heads: int, device: torch.device) -> Tensor:
        """[n, heads] int64: the cell of column 0 of each slot in use."""
        key = (heads, tuple(self.counts))
        if key not in self._begins:
            self._begins[key] = torch.cat(
                [
                    torch.arange(count * heads, device=device).view(-1, heads) * pool.columns + offset * heads
                    for count, pool, offset in zip(self.counts, self.pools, self.offsets, strict=False)
                ]
            )
        return self._begins[key]

    def index(self, heads: int) -> Tensor:
        """[n * heads] int64 cells that this step writes; the same for most layers."""
        if heads not in self._index:
            begins = self.begins(heads, self._write.device)
            self._index[heads] = (begins + self._write[:, None]).view(-1)
        return self._index[heads]

    def slots(self, store: Tensor, heads: int, pool: int, count: int, columns: int) -> Tensor:
        """[count, heads, columns, D] view of a pool's first slots and columns."""
        return store.as_strided(*self._geometry(heads, store.shape[1], pool, count, columns))

    def read(self, store: Tensor, heads: int) -> Tensor | list[Tensor]:
        """What this step reads: [n_p, heads, columns, D] views of pools with rows in them."""
        width = store.shape[1]
        if (heads, width) not in self._views:
            self._views[heads, width] = [
                self._geometry(heads, width, p, count, min(self.columns, pool.columns))
                for p, (count, pool) in enumerate(zip(self.counts, self.pools, strict=True))
                if count
            ]
        views = [store.as_strided(*geometry) for geometry in self._views[heads, width]]
        return views[0] if len(views) == 1 else views

    def _geometry(self, heads: int, width: int, pool: int, count: int, columns: int) -> Geometry:
        """Size, strides and begin. A view by them is one call, where slices and shapes would be three."""
        length = self.pools[pool].columns * width
        strides = (heads * length, length, width, 1)
        return (count, heads, columns, width), strides, self.offsets[pool] * heads * width


class SlotCache(Cache):
    """A cache of slots in pools, shaped after the first prompt's keys and values.

    Args:
        pools: shortest first.

    Raises:
        NoRoom: the device's memory has been given out before the slots were.
    """

    def __init__(self, like: Prefix, pools: Sequence[Pool]):
        self.cursor = Cursor(pools)
        self.slot_layers = [SlotLayer(pools[-1].columns, self.cursor) for _ in like.keys]
        super().__init__(layers=list(self.slot_layers))
        # Of no token, so that the prompt's memory is not kept: only shapes, dtype and device count.
        self._like = [
            (k[:, :0].clone(), v[:, :0].clone()) for k, v in zip(like.keys, like.values, strict=True)
        ]
        self._allocate(pools[-1].columns)

    @property
    def slots(self) -> int:
        """S."""
        return sum(pool.slots for pool in self.cursor.pools)

    @property
    def capacity(self) -> int:
        """Columns a slot of the last pool has."""
        return self.cursor.pools[-1].columns

    @property
    def dtype(self) -> torch.dtype:
        """Of the keys, which is that of the queries."""
        return self.slot_layers[0].stores[0].dtype

    @property
    def bytes(self) -> int:
        """Of the keys and values that it has memory for."""
        stores = [store for layer in self.slot_layers for store in layer.stores]
        return sum(store.nbytes for store in stores if store is not None)

    def _allocate(self, columns: int) -> None:
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
        """Puts one prompt into several slots. Args: slots: [k] int64."""
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
    """The pool of a slot, and its row there. Args: counts: slots in use of each pool, which number it."""
    pool = 0
    while slot >= counts[pool]:
        slot -= counts[pool]
        pool += 1
    return pool, slot


def prefill(model: Any, prompts: Sequence[Sequence[int]], device: torch.device) -> list[Prefix]:
    """One forward over prompts of any lengths.

    Padded on the right without a mask: causal attention keeps the padding out of everything that is read.

    Args:
        prompts: at least one, none empty.

    Returns:
        A prefix for each, as views of the batch's tensors.
    """
    lengths = [len(prompt) for prompt in prompts]
    ids = torch.zeros(len(prompts), max(lengths), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    ids = ids.to(device)
    cache = DynamicCache()  # of no configuration: layers with a sliding window keep all columns, too
    last = torch.tensor(lengths, device=device)[:, None] - 1
    positions = torch.arange(max(lengths), device=device)[None]
    out = model(ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=last)
    logits = out.logits[:, 0].float()
    layers = [(cast(Any, layer).keys, cast(Any, layer).values) for layer in cache.layers]
    return [
        Prefix([k[row, :, :length] for k, _ in layers], [v[row, :, :length] for _, v in layers], logits[row])
        for row, length in enumerate(lengths)
    ]
