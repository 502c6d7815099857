"""Where slots lie in the memory of a layer, and where a step writes and reads.

S slots, n of them in use, in pools of S_p slots of L_p columns; H key/value heads, D head dimension. A
layer's keys are [cells, D]: pool behind pool, slot behind slot, in each slot its heads, each of L_p columns.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from elastic.rollout.schedule.pools import Pool

Geometry = tuple[tuple[int, ...], tuple[int, ...], int]  # size, strides and offset of a view


class Cursor:
    """Where the slots lie, and where the current step writes.

    Args:
        pools: of the slots.

    Attributes:
        counts: n_p, slots in use of each pool.
        columns: that a step reads, or all of a pool that has fewer; beyond every live row's write column.
    """

    def __init__(self, pools: Sequence[Pool]) -> None:
        self.pools = list(pools)
        self.resize(pools[-1].columns)
        self.reopen()
        self.columns = 0
        self._write = torch.empty(0, dtype=torch.int64)
        # Of this step, the same for most layers:
        self._index: dict[int, Tensor] = {}  # by heads
        self._views: dict[tuple[int, int], list[Geometry]] = {}  # by heads and D

    def reopen(self) -> None:
        """All slots are in use, as when a call begins."""
        self.counts = [pool.slots for pool in self.pools]

    def resize(self, columns: int) -> None:
        """The last pool's slots have so many columns from here on."""
        self.pools[-1] = Pool(self.pools[-1].slots, columns)
        # Of each pool, the cells of one head in front of it; and of all.
        self.offsets = list(accumulate((pool.slots * pool.columns for pool in self.pools), initial=0))

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
        # Not cleared: a compiled step would be compiled again for what was in them.
        self._index, self._views = {}, {}

    def begins(self, heads: int, device: torch.device) -> Tensor:
        """[n, heads] int64: the cell of column 0 of each slot in use."""
        parts = [
            torch.arange(count * heads, device=device).view(-1, heads) * pool.columns + offset * heads
            for count, pool, offset in zip(self.counts, self.pools, self.offsets, strict=False)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

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
        """Size, strides and offset: a view by them is one call, where slices and shapes would be three."""
        length = self.pools[pool].columns * width
        strides = (heads * length, length, width, 1)
        return (count, heads, columns, width), strides, self.offsets[pool] * heads * width
