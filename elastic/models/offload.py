"""Inputs of checkpointed layers kept in the host's memory between forward and backward.

Gradient checkpointing keeps one tensor of each layer, its input, and makes the others again. These inputs
are then what grows with the number of layers, so they alone are moved; to move everything that a layer saves
would be an order of magnitude more to copy, and slower than to compute it again. On a GPU copies run on a
stream of their own, in and out of pinned memory: the host waits for none, and each comes back while the layer
above runs. On the CPU the same copies are made, at once and to no use.
"""

import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class Offload:
    """Moves what checkpointed layers of a model keep.

    Attributes:
        kept: what is on the host now.
    """

    def __init__(self) -> None:
        self.kept: WeakSet[_Moved] = WeakSet()
        self._last: Callable[[], _Moved | None] = lambda: None
        self._streams: dict[torch.device, Any] = {}

    @property
    def host_bytes(self) -> int:
        """On the host now."""
        return sum(moved.bytes for moved in self.kept)

    def attach(self, model: nn.Module) -> None:
        """Lets every layer with gradient checkpointing keep its inputs on the host.

        Args:
            model: with gradient checkpointing on, of the kind that is not reentrant.
        """
        layers: Iterable[Any] = model.modules()
        for layer in layers:
            if hasattr(layer, "_gradient_checkpointing_func"):
                layer._gradient_checkpointing_func = self._around(layer._gradient_checkpointing_func)

    def _around(self, checkpoint: Any) -> Callable[..., Any]:
        def checkpointed(*arguments: Any, **options: Any) -> Any:
            # The checkpoint's own hooks stand inside, so these see only what it keeps itself.
            with saved_tensors_hooks(self._pack, self._unpack):
                return checkpoint(*arguments, **options)

        return checkpointed

    def _pack(self, tensor: Tensor) -> Any:
        if not tensor.is_floating_point() or isinstance(tensor, nn.Parameter):
            return tensor
        moved = _Moved(tensor, self._beside(tensor.device), self._last)
        self._last = weakref.ref(moved)
        self.kept.add(moved)
        return moved

    def _unpack(self, kept: Any) -> Tensor:
        return kept.back() if isinstance(kept, _Moved) else kept

    def _beside(self, device: torch.device) -> Any:
        """The stream of copies; None where there are no streams."""
        if device.type != "cuda":
            return None
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        return self._streams[device]


class _Moved:
    """A tensor on the host.

    Args:
        tensor: on the device.
        stream: of the copies; None to copy at once.
        before: gives what was moved before it, the next to be needed, while that is there.
    """

    def __init__(self, tensor: Tensor, stream: Any, before: "Callable[[], _Moved | None]") -> None:
        self.bytes = tensor.numel() * tensor.element_size()
        self._device, self._stream, self._before = tensor.device, stream, before
        self._back: Tensor | None = None
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=stream is not None)
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(self._device))
            tensor.record_stream(stream)
        with _on(stream):
            self._host.copy_(tensor, non_blocking=True)

    def fetch(self) -> None:
        """Lets the copy back to the device begin."""
        if self._back is None:
            with _on(self._stream):
                self._back = self._host.to(self._device, non_blocking=True)

    def back(self) -> Tensor:
        """The tensor on the device again; the one that was moved before it begins to come back."""
        self.fetch()
        found, self._back = self._back, None
        assert found is not None
        if self._stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            found.record_stream(current)
            if (before := self._before()) is not None:
                before.fetch()
        return found


def _on(stream: Any) -> AbstractContextManager[Any]:
    return nullcontext() if stream is None else torch.cuda.stream(stream)
