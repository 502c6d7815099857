"""The processes of a run and what they hold in memory."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_IN_MEMORY = ("tmp", "dev/shm")  # file systems that a sandboxed program can write
_INODE = 2048  # bytes, rounded up, of an empty file


def holds_more(first: int, limit: int, sandboxed: bool) -> bool:
    """Whether a process, its descendants and the files of their sandbox hold more than `limit` bytes.

    Pages that processes share are counted once, which is slow: only where counting them for each is too much.
    """
    room = limit - (_files(first) if sandboxed else 0)
    return sum(map(_resident, processes(first))) > room and sum(map(_share, processes(first))) > room


def processes(first: int) -> Iterator[int]:
    """A process and its descendants. In a process namespace orphans become children of its first process."""
    yield first
    with contextlib.suppress(OSError):  # it ends while it is looked at
        for children in Path(f"/proc/{first}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from processes(int(child))


def _files(first: int) -> int:
    """Bytes of the files in a sandbox; 0 where its first process keeps others from looking."""
    held = 0
    with contextlib.suppress(OSError):
        for place in _IN_MEMORY:
            use = os.statvfs(f"/proc/{first}/root/{place}")
            held += (use.f_blocks - use.f_bfree) * use.f_frsize + (use.f_files - use.f_ffree) * _INODE
    return held


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
