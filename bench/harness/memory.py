"""Peak memory of a call on the CPU: resident pages at its high-water mark over those before it (Linux)."""

import ctypes
from collections.abc import Callable
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def peak_bytes(call: Callable[[], object]) -> int | None:
    """Bytes that became resident at most while the call ran, its result included.

    Pages count when they are touched, whoever allocated them, so this sees scratch memory of C++ code too.
    Freed heap is handed back to the system before, as it would not count a second time. None where the system
    keeps no high-water mark that can be reset; the call runs there, too.
    """
    if not _reset():
        call()
        return None
    before = _kilobytes("VmRSS")
    result = call()
    peak = _kilobytes("VmHWM")
    del result
    return max(peak - before, 0) * 1024


def _reset() -> bool:
    if not _CLEAR.exists():
        return False
    ctypes.CDLL(None).malloc_trim(0)
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:  # not allowed in this container
        return False
    return True


def _kilobytes(key: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise ValueError(f"{_STATUS}: expected a line {key}")
