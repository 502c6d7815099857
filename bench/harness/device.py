"""Where a bench runs and which clock counts: events of a CUDA device, or the host's clocks for the CPU."""

import gc
import time
from collections.abc import Callable

import torch
from torch import Tensor

from bench.harness import memory
from bench.harness.compare import host_clock

# About a millisecond: the host issues a whole call meanwhile, so that what is timed is the device's
# work and not the gaps between launches.
HEAD_START_CYCLES = 2_000_000
DEFAULT_L2_BYTES = 64 << 20


class Device:
    """A device and its clock.

    Args:
        name: "cuda" or "cpu".
    """

    def __init__(self, name: str) -> None:
        self.torch = torch.device(name)
        self.is_cuda = self.torch.type == "cuda"
        self._scratch: Tensor | None = None

    def clock(self, call: Callable[[], object]) -> tuple[float, float]:
        """Milliseconds of the device (of the host on the CPU) and CPU milliseconds of one call."""
        if not self.is_cuda:
            return host_clock(call)
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(HEAD_START_CYCLES)
        begin.record()
        cpu = time.process_time()
        result = call()
        cpu = time.process_time() - cpu
        end.record()
        end.synchronize()
        del result
        return begin.elapsed_time(end), cpu * 1e3

    @property
    def counts(self) -> str:
        """What figures are made of: `device` (events), or of the host's clocks `cpu` or `wall`.

        One thread's CPU time is its wall time on an idle machine and stays near it on a busy one. CPU time of
        several threads is their sum, which says nothing about speed.
        """
        if self.is_cuda:
            return "device"
        return "cpu" if torch.get_num_threads() == 1 else "wall"

    def synchronize(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize()

    def lost(self) -> bool:
        """Whether an error, such as an illegal address, has made the device useless to this process."""
        try:
            self.synchronize()
        except RuntimeError:
            return True
        return False

    def peak_bytes(self, call: Callable[[], object]) -> int | None:
        """Memory that a call takes at most on top of what is in use; None where the system cannot tell."""
        if not self.is_cuda:
            return memory.peak_bytes(call)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def flush_cache(self) -> None:
        """Leaves nothing of a bench's tensors in the L2 cache."""
        if not self.is_cuda:
            return
        if self._scratch is None:
            l2 = getattr(torch.cuda.get_device_properties(self.torch), "L2_cache_size", DEFAULT_L2_BYTES)
            self._scratch = torch.ones(2 * l2, dtype=torch.uint8, device=self.torch)
        self._scratch.add_(1)

    def poison(self, like: Tensor) -> None:
        """Leaves NaN in the memory that the next tensor of this size gets: what a kernel forgets shows."""
        if self.is_cuda:
            torch.full_like(like, float("nan"))

    def release(self) -> None:
        """Gives freed GPU memory back, so that one op's leftovers are not the next one's lack."""
        if self.is_cuda:
            gc.collect()
            torch.cuda.empty_cache()


def default_device() -> str:
    """`cuda` where CUDA ops are built and a GPU is there to run them."""
    from elastic.ops import _extension

    built = _extension.load_extension().build_info()["cuda"]
    return "cuda" if built and torch.cuda.is_available() else "cpu"
