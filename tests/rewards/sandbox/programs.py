"""Running pieces of Python in the sandbox, and looking for what they left."""

import os
from pathlib import Path

import pytest

from elastic.rewards.sandbox import PYTHON, Limits, Outcome, SandboxMissing, check_available, run

try:
    check_available()
    MISSING = ""
except SandboxMissing as missing:
    MISSING = str(missing)
needs_sandbox = pytest.mark.skipif(bool(MISSING), reason=MISSING)

FEW = Limits(wall_s=20, cpu_s=10, memory_mb=256, processes=16, output_bytes=1 << 16, file_mb=8)


def python(code: str, *arguments: str, limits: Limits = FEW, sandbox: bool = True) -> Outcome:
    """Runs a piece of Python with arguments."""
    return run([PYTHON, "-c", code, *arguments], limits=limits, sandbox=sandbox)


def living(token: str) -> list[int]:
    """Numbers of this machine's processes that have `token` in their command line, but for this one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and token.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has ended
            continue
    return [pid for pid in found if pid != os.getpid()]
