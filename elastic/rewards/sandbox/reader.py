"""Reading what a program writes while it runs, and noticing the limits that it reaches."""

import os
import selectors
import time

from elastic.rewards.sandbox.limits import Limits, Status
from elastic.rewards.sandbox.memory import holds_more
from elastic.rewards.sandbox.start import Started

_CHUNK = 1 << 16
_LOOK_SECONDS = 0.02  # between two looks at the memory


class Reader:
    """Collects standard output and standard error of a program. Nothing that it does can wait for ever.

    Attributes:
        stdout: what has been read.
        stderr: likewise.
    """

    def __init__(self, started: Started, limits: Limits) -> None:
        process = started.process
        assert process.stdout is not None
        assert process.stderr is not None
        self._started, self._limits = started, limits
        self._room = limits.output_bytes
        self._stdout, self._stderr = process.stdout.fileno(), process.stderr.fileno()
        self._kept = {self._stdout: bytearray(), self._stderr: bytearray()}
        for fd in self._kept:
            os.set_blocking(fd, False)

    @property
    def stdout(self) -> bytes:
        return bytes(self._kept[self._stdout])

    @property
    def stderr(self) -> bytes:
        return bytes(self._kept[self._stderr])

    def follow(self, deadline: float) -> Status | None:
        """Reads until the program ends: None; or reaches a limit: its name.

        Args:
            deadline: by time.monotonic().
        """
        with selectors.DefaultSelector() as selector:
            for fd in [self._started.ended_fd, *self._kept]:
                selector.register(fd, selectors.EVENT_READ)
            look = time.monotonic() + _LOOK_SECONDS
            while True:
                ready = {key.fd for key, _ in selector.select(min(look, deadline) - time.monotonic())}
                for fd in ready & self._kept.keys():
                    if not self._read(fd):
                        selector.unregister(fd)
                if self._room < 0:
                    return "output"
                if self._started.ended_fd in ready:
                    return None
                if (now := time.monotonic()) >= deadline:
                    return "timeout"
                if now >= look:
                    if self._holds_more():
                        return "memory"
                    look = time.monotonic() + _LOOK_SECONDS

    def drain(self) -> Status | None:
        """Reads what is left after the end, without waiting for a process that holds a stream open."""
        for fd in self._kept:
            while self._room >= 0 and self._read(fd):
                pass
        return "output" if self._room < 0 else None

    def _holds_more(self) -> bool:
        sandboxed = self._started.first_fd is not None
        # before, the first process still sees this machine's file systems
        begun = self._started.begun()
        return begun and holds_more(self._started.first, self._limits.memory_mb << 20, sandboxed)

    def _read(self, fd: int) -> int:
        """Reads once what is there and keeps what there is room for; 0 at the end or if nothing is there."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return 0
        self._kept[fd] += data[: max(self._room, 0)]
        self._room -= len(data)
        return len(data)
