"""What CUDA graphs do, without a GPU: operations are recorded without being run, and replayed without Python.

As in a graph, a recorded operation has the host's numbers of its recording in it and reads outside tensors
where they lay then. At the replay, one that was freed or given other memory since then is an error.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map


class Outside:
    """A tensor that the recorded work did not make."""

    def __init__(self, tensor: Tensor):
        self._tensor, self._address = weakref.ref(tensor.untyped_storage()), tensor.data_ptr()
        self._make = tensor.dtype, tensor.device, tensor.shape, tensor.stride(), tensor.storage_offset()

    def get(self) -> Tensor:
        dtype, device, shape, strides, offset = self._make
        storage = self._tensor()
        assert storage is not None, "a replay reads memory that was freed"
        empty = torch.empty(0, dtype=dtype, device=device)
        tensor = empty.set_(storage, offset, shape, strides)
        assert tensor.data_ptr() == self._address, "a replay reads memory that moved"
        return tensor


class Inside(int):
    """A tensor that the recorded work made, by its number."""


class Recording(TorchDispatchMode):
    """The operations of one piece of work."""

    def __init__(self, fakes: FakeTensorMode) -> None:
        super().__init__()
        self._fakes = fakes
        self.operations: list[tuple[Any, Any, Any, list[int]]] = []
        self.outside: list[Outside] = []
        self._numbers: dict[int, Inside] = {}
        self._alive: list[Any] = []  # so that no id comes twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        keep_args, keep_kwargs = tree_map(self._reference, (args, kwargs))
        results = func(*tree_map(self._fake, args), **tree_map(self._fake, kwargs))
        made = [self._number(value) for value in tree_flatten(results)[0] if isinstance(value, Tensor)]
        self.operations.append((func, keep_args, keep_kwargs, made))
        return results

    def _fake(self, value: Any) -> Any:
        """Something in place of an outside tensor that takes what is done to it."""
        outside = isinstance(value, Tensor) and not isinstance(value, FakeTensor)
        return self._fakes.from_tensor(value) if outside else value

    def _number(self, value: Tensor) -> int:
        self._alive.append(value)
        return self._numbers.setdefault(id(value), Inside(len(self._numbers)))

    def _reference(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in self._numbers:
            return self._numbers[id(value)]
        assert not isinstance(value, FakeTensor)
        self.outside.append(Outside(value))
        return self.outside[-1]

    def finish(self) -> None:
        """Lets go of what only recording needed: it would keep outside tensors alive."""
        del self._fakes, self._alive, self._numbers

    def replay(self) -> None:
        made: dict[int, Tensor] = {}

        def real(value: Any) -> Any:
            if isinstance(value, Inside):
                return made[value]
            return value.get() if isinstance(value, Outside) else value

        with torch.no_grad():
            for func, args, kwargs, numbers in self.operations:
                args, kwargs = tree_map(real, (args, kwargs))
                values = [v for v in tree_flatten(func(*args, **kwargs))[0] if isinstance(v, Tensor)]
                made.update(zip(numbers, values, strict=True))


class Recorder:
    """Stands in for `CudaGraphs`.

    Attributes:
        warmed, captured, replayed: how often.
        pools: pools begun so far.
        live: recordings of this pool.
        memory_bytes: of the device.
        error: raised by the next capture, if set.
    """

    def __init__(self) -> None:
        self.warmed = self.captured = self.replayed = 0
        self.pools, self.memory_bytes = 1, 2**40
        self.live: list[weakref.ref[Recording]] = []
        self.error: Exception | None = None

    def warm(self, work: Callable[[], None]) -> None:
        self.warmed += 1
        work()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.captured += 1
        alive = [recording for recording in self.live if recording() is not None]
        assert alive or not self.live, "CUDA's allocator refuses a pool whose recordings are all gone"
        if self.error is not None:
            raise self.error
        fakes = FakeTensorMode()
        recording = Recording(fakes)
        with fakes, recording:
            work()
        recording.finish()
        self.live.append(weakref.ref(recording))

        def replay() -> None:
            self.replayed += 1
            recording.replay()

        return replay

    def forget(self) -> None:
        self.live = []
        self.pools += 1
