"""How much memory a piece of code takes at most, seen through the tensors that it makes."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of tensors made within the block, real or fake, until they are freed.

    What an operator allocates and frees inside itself is not seen.

    Args:
        known: tensors that are there already and are not counted.
        elsewhere: how many of the bytes counted are not on the device, now.

    Attributes:
        peak: the most bytes at any time so far.
    """

    def __init__(self, known: Iterable[torch.Tensor] = (), elsewhere: Callable[[], int] = lambda: 0) -> None:
        super().__init__()
        self._elsewhere = elsewhere
        self.peak = 0
        self._sum = 0  # of what was alive when last looked at
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self._known = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage())
        if self._sum - self._elsewhere() > self.peak:
            self.peak = max(self.peak, self.now())
        return result

    def now(self) -> int:
        """Bytes of what is there at this moment."""
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self._sum = sum(size for _, size in self._alive.values())
        return self._sum - self._elsewhere()

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._alive or key in self._known:
            return
        # The reference keeps the address from being used again, not the memory.
        self._alive[key] = StorageWeakRef(storage), storage.nbytes()
        self._sum += storage.nbytes()
