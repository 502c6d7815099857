"""KV cache with one slot a row, under unmodified Hugging Face models.

S slots, L columns, H key/value heads, D head dimension, P prompt length.

A prompt starts at column 0, so a token's column is its position: nothing is padded on the left, nothing
is moved when rows come and go. Every slot has its own write column. A free slot still computes something
in a step; it attends to its own finite leftovers and nobody reads the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, StaticLayer, get_layer_types_and_kwargs


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


class SlotLayer(StaticLayer):
    """One layer: [S, H, L, D] for keys and for values, written at one column a row.

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

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes one token of the rows in front, and returns what they may attend to.

        Args:
            key_states, value_states: [n, H, 1, D], n <= S.

        Returns:
            Views [n, H, columns, D] of keys and values.
        """
        rows, columns = key_states.shape[0], self.cursor.columns
        keys, values = self.stores
        for store, states in ((keys, key_states), (values, value_states)):
            index = self.cursor.flat(store.shape[1], store.shape[2])
            store.view(-1, store.shape[3]).index_copy_(0, index, states.reshape(-1, store.shape[3]))
        return keys[:rows, :, :columns], values[:rows, :, :columns]


class Cursor:
    """Where the current step writes.

    Attributes:
        columns: columns that are read; above every live row's write column.
    """

    def __init__(self) -> None:
        self.columns = 0
        self._write = torch.empty(0, dtype=torch.int64)
        self._flat: dict[tuple[int, int], Tensor] = {}

    def move(self, write: Tensor, columns: int) -> None:
        """Args: write: [n] int64 column of each row's new token, below `columns`."""
        self._write, self.columns = write, columns
        self._flat = {}  # not cleared: a compiled step would be compiled again for what was in it

    def flat(self, heads: int, capacity: int) -> Tensor:
        """[n * heads] int64 indices into a store seen as [S * H * L, D]; the same for most layers."""
        key = (heads, capacity)
        if key not in self._flat:
            pairs = torch.arange(self._write.shape[0] * heads, device=self._write.device).view(-1, heads)
            self._flat[key] = (pairs * capacity + self._write[:, None]).view(-1)
        return self._flat[key]


class SlotCache(Cache):
    """A cache of `slots` rows, shaped after the first prompt's keys and values.

    Raises:
        MemoryError: it does not fit into the memory that is free; the message names the sizes.
    """

    def __init__(self, like: Prefix, slots: int, capacity: int):
        self.cursor = Cursor()
        self.slots = slots
        self.allocations = 0  # each may have moved the tensors
        self.slot_layers = [SlotLayer(capacity, self.cursor) for _ in like.keys]
        super().__init__(layers=list(self.slot_layers))
        # Of no token, so that the prompt's memory is not kept: only shapes, dtype and device count.
        self._like = [
            (k[:, :0].clone(), v[:, :0].clone()) for k, v in zip(like.keys, like.values, strict=True)
        ]
        self._allocate(capacity)

    @property
    def capacity(self) -> int:
        """Columns a slot has."""
        return self.slot_layers[0].max_cache_len

    @property
    def dtype(self) -> torch.dtype:
        """Of the keys, which is that of the queries."""
        return self.slot_layers[0].stores[0].dtype

    @property
    def tensors(self) -> list[Tensor]:
        """All that is stored, by which steps find their addresses."""
        return [store for layer in self.slot_layers for store in layer.stores]

    def serves(self, prefix: Prefix, slots: int, capacity: int) -> bool:
        """Whether as many rows as long of such prompts fit, so that the cache can be used again as it is."""
        have = [(k.shape[::2], k.dtype, k.device, v.shape[::2], v.dtype) for k, v in self._like]
        pairs = zip(prefix.keys, prefix.values, strict=True)
        wanted = [(k.shape[::2], k.dtype, k.device, v.shape[::2], v.dtype) for k, v in pairs]
        return have == wanted and slots <= self.slots and capacity <= self.capacity

    def _allocate(self, capacity: int) -> None:
        self.allocations += 1
        _check_memory(self._like, self.slots, capacity)
        for layer, (key, value) in zip(self.slot_layers, self._like, strict=True):
            for name, states in (("keys", key), ("values", value)):
                heads, _, width = states.shape
                # Zeroed: a masked column weighs 0, and 0 times a stray NaN would still be NaN.
                fresh = states.new_zeros(self.slots, heads, capacity, width)
                old = getattr(layer, name)
                if old is not None:
                    fresh[:, :, : old.shape[2]] = old
                setattr(layer, name, fresh)
            layer.max_cache_len, layer.is_initialized = capacity, True
            layer.dtype, layer.device = key.dtype, key.device

    def grow(self, capacity: int) -> None:
        """Gives every slot at least `capacity` columns, keeping what is there.

        Only for rows without a budget: those with one get all their columns at the start (SPEC R5).
        """
        if capacity > self.capacity:
            self._allocate(capacity)

    def insert(self, slots: Tensor, prefix: Prefix) -> None:
        """Puts one prompt into several slots. Args: slots: [k] int64."""
        for layer, key, value in zip(self.slot_layers, prefix.keys, prefix.values, strict=True):
            keys, values = layer.stores
            keys[slots, :, : key.shape[1]] = key
            values[slots, :, : value.shape[1]] = value

    def move(self, source: Tensor, target: Tensor) -> None:
        """Copies slots `source` over slots `target`, disjoint [k] int64."""
        columns = self.cursor.columns
        for layer in self.slot_layers:
            for store in layer.stores:
                store[target, :, :columns] = store[source, :, :columns]


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
    cache = DynamicCache(config=model.config)
    last = torch.tensor(lengths, device=device)[:, None] - 1
    positions = torch.arange(max(lengths), device=device)[None]
    out = model(ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=last)
    logits = out.logits[:, 0].float()
    layers = [(cast(Any, layer).keys, cast(Any, layer).values) for layer in cache.layers]
    return [
        Prefix([k[row, :, :length] for k, _ in layers], [v[row, :, :length] for _, v in layers], logits[row])
        for row, length in enumerate(lengths)
    ]


def check_servable(model: Any) -> None:
    """Refuses models whose state is not one key and one value a token and layer.

    Raises:
        ValueError: naming what the slot cache cannot hold.
    """
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"model: {config.model_type} is an encoder-decoder model; rollouts need a causal one"
        )
    if getattr(model, "_is_stateful", False):
        raise ValueError(
            f"model: {config.model_type} keeps a recurrent state; the slot cache holds keys and values"
        )
    kinds, _ = get_layer_types_and_kwargs(config)
    other = sorted(set(kinds) - {"full_attention"})
    if other:
        raise ValueError(
            f"model: {config.model_type} has {', '.join(other)} layers; "
            "the slot cache serves full_attention layers only"
        )


def _check_memory(like: Sequence[tuple[Tensor, Tensor]], slots: int, capacity: int) -> None:
    states = [state for pair in like for state in pair]
    needed = sum(slots * capacity * s.shape[0] * s.shape[2] * s.element_size() for s in states)
    free = _free_bytes(states[0].device)
    if free is not None and needed > free:
        raise MemoryError(
            f"KV cache: {slots} rows of {capacity} tokens need {needed / 2**30:.2f} GiB, "
            f"{free / 2**30:.2f} GiB are free on {states[0].device}; "
            "lower max_rows, the budgets or max_new_tokens"
        )


def _free_bytes(device: torch.device) -> int | None:
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
