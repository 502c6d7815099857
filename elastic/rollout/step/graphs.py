"""Recording device work once and replaying it: the seam between decoding and CUDA graphs.

Whoever records hands over a function that works on tensors that stay where they are. A replay repeats the
device work of the recording, and nothing of its Python: numbers that the host computed are what they were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

Work = Callable[[], None]


class Graphs(Protocol):
    """What records. All recordings share one pool of memory, so only one may run at a time.

    Attributes:
        memory_bytes: of the device.
    """

    memory_bytes: int

    def warm(self, work: Work) -> None:
        """Runs the work as it is, where libraries can set themselves up for a recording of it."""

    def capture(self, work: Work) -> Work:
        """Records the work without running it, and returns what replays it.

        Raises:
            RuntimeError: the work cannot be recorded, say because it reads device memory on the host.
        """

    def forget(self) -> None:
        """All recordings have been dropped: the next one begins another pool."""


class CudaGraphs:
    """CUDA graphs on one device."""

    def __init__(self, device: torch.device):
        # Recorded on one stream: memory of a pool is reused by recordings on the same stream only.
        self._stream = torch.cuda.Stream(device)
        self.memory_bytes = torch.cuda.get_device_properties(device).total_memory
        self.forget()

    def warm(self, work: Work) -> None:
        """Runs the work on the stream of the captures."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()
        current.wait_stream(self._stream)

    def capture(self, work: Work) -> Work:
        """Captures the work in a graph, and returns its replay."""
        graph = torch.cuda.CUDAGraph()
        # The outer context: `torch.cuda.graph` stays on its stream when ending a failed recording raises.
        with (
            torch.cuda.stream(torch.cuda.current_stream(self._stream.device)),
            # Other threads may allocate and copy meanwhile.
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            work()
        return graph.replay

    def forget(self) -> None:
        """Begins another pool: one whose recordings are all gone refuses further ones."""
        self._pool = torch.cuda.graph_pool_handle()


def graphs_for(device: torch.device) -> Graphs | None:
    """What records on the device; None where nothing does."""
    return CudaGraphs(device) if device.type == "cuda" else None
