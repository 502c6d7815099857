"""What the processes of a run hold in memory."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def holds_more(first: int, limit: int) -> bool:
    """Whether a process and its descendants hold more than `limit` bytes of memory.

    Pages that processes share are counted once, which is slow: only where counting them for each is too much.
    """
    return sum(map(_resident, _processes(first))) > limit and sum(map(_share, _processes(first))) > limit


def _processes(first: int) -> Iterator[int]:
    """A process and its descendants. In a process namespace orphans become children of its first process."""
    yield first
    with contextlib.suppress(OSError):  # it ends while it is looked at
        for children in Path(f"/proc/{first}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from _processes(int(child))


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def _share(pid: int) -> int:
    """Bytes held, each page divided by the processes that hold it; undivided where that cannot be read."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return _resident(pid)
