"""Running one program within its limits."""

import signal
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import PurePosixPath

from elastic.rewards.sandbox.available import check_available
from elastic.rewards.sandbox.limits import Limits, Outcome, Status
from elastic.rewards.sandbox.reader import Reader
from elastic.rewards.sandbox.start import start_bare, start_sandboxed

_DEFAULT = Limits()


def run(
    argv: Sequence[str],
    *,
    files: Mapping[str, str | bytes] | None = None,
    stdin: bytes = b"",
    limits: Limits = _DEFAULT,
    sandbox: bool = True,
) -> Outcome:
    """Runs a program and everything that it starts until it ends or reaches a limit.

    It starts in a working folder of its own and finds the system and this Python's standard library, both
    read-only; no network, no other process, no home directory, no variables of this environment. When `run`
    returns or raises, nothing of it is left. Any number of threads may call it.

    Args:
        argv: the program and its arguments; `sandbox.PYTHON` is the interpreter.
        files: path in the working folder -> contents.
        stdin: standard input, a file that cannot be written.
        limits: what it may use.
        sandbox: False runs it with this process's rights: it can read and write what this process can, reach
            the network, and leave processes behind. Only time, output, and each process's memory are limited.

    Raises:
        SandboxMissing: `sandbox` is true and there is none here. Nothing has been run.
        RuntimeError: the sandbox could not be set up this time, in bubblewrap's words. Nothing has been run.
        ValueError: no program, or a path of a file that leaves the working folder.
    """
    if not argv:
        raise ValueError("argv must name a program, got an empty one")
    contents = {
        _inside(name): text.encode() if isinstance(text, str) else text
        for name, text in (files or {}).items()
    }
    if sandbox:
        check_available()
    else:
        _warn_once()
    begin = time.monotonic()
    with (start_sandboxed if sandbox else start_bare)(argv, contents, stdin, limits) as started:
        reader = Reader(started, limits)
        reached = reader.follow(begin + limits.wall_s)
        started.end()
        reached = reader.drain() or reached
        begun = started.begun()
    seconds = time.monotonic() - begin
    if not begun and reached is None:
        raise RuntimeError(
            f"bubblewrap could not set up the sandbox: {reader.stderr.decode(errors='replace').strip()}"
        )
    code = started.process.returncode
    code = 128 - code if code < 0 else code
    status = reached or _status(code, reader.stderr, seconds, limits)
    return Outcome(status, code, reader.stdout, reader.stderr, seconds)


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise ValueError(f"files must have paths inside the working folder, got {name!r}")
    return str(path)


@lru_cache(maxsize=1)
def _warn_once() -> None:
    warnings.warn("sandbox=False: programs run with all rights of this process", RuntimeWarning, stacklevel=3)


def _status(code: int, stderr: bytes, seconds: float, limits: Limits) -> Status:
    """What an end by itself was. The kernel's limit on processor time kills with SIGXCPU or SIGKILL."""
    if code == 0:
        return "ok"
    if code == 128 + signal.SIGXCPU or (code == 128 + signal.SIGKILL and seconds >= limits.cpu_s):
        return "timeout"
    if stderr.rstrip().rpartition(b"\n")[2].startswith(b"MemoryError"):
        return "memory"
    return "killed" if 128 < code <= 128 + signal.SIGRTMAX else "error"
