"""Starting a program, in a sandbox or without one, and ending all of it."""

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from elastic.rewards.sandbox.command import ENVIRONMENT, limited, sandboxed
from elastic.rewards.sandbox.filter import program
from elastic.rewards.sandbox.limits import Limits
from elastic.rewards.sandbox.memory import processes

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_END_SECONDS = 5.0  # that bubblewrap gets to see the end of its child


@dataclass
class Started:
    """A program that runs.

    Attributes:
        process: what this process started and waits for, the leader of a process group.
        first: number of the program's first process; in a sandbox a child of `process`.
        ended_fd: a descriptor that is readable once `process` has ended.
        first_fd: in a sandbox a descriptor of the first process, with which all others die; else None.
        go_fd: in a sandbox a descriptor that is readable until the program begins; else None.
    """

    process: subprocess.Popen[bytes]
    first: int
    ended_fd: int = -1
    first_fd: int | None = None
    go_fd: int | None = None

    def begun(self) -> bool:
        """Whether the program itself has run, not only the preparations for it."""
        return self.go_fd is None or not _readable([self.go_fd], 0)

    def end(self) -> None:
        """Kills every process of the sandbox, or of the process group, and waits; again it does nothing."""
        if self.process.returncode is not None:
            return
        if self.first_fd is None:
            # also what has left the group; or a sandbox whose making was interrupted
            for pid in list(processes(self.process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        else:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.first_fd, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=_END_SECONDS)
                return
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Ends it and closes its descriptors."""
        self.end()
        for fd in (self.ended_fd, self.first_fd):
            if fd is not None and fd >= 0:
                os.close(fd)


@contextlib.contextmanager
def start_sandboxed(
    argv: Sequence[str], files: Mapping[str, bytes], stdin: bytes, limits: Limits
) -> Iterator[Started]:
    """A program in a sandbox; all of it has ended when the context does."""
    with contextlib.ExitStack() as held:
        names = {name: _memory_file(held, data) for name, data in files.items()}
        told, tells = _pipe(held)
        waits, go = _pipe(held)
        options, passed = ["--info-fd", str(tells), "--block-fd", str(waits)], [*names.values(), tells, waits]
        if program():
            passed.append(_memory_file(held, program()))
            options += ["--seccomp", str(passed[-1])]
        started = _started(held, sandboxed(argv, names, limits, options), stdin, pass_fds=passed)
        started.go_fd = waits
        if (first := _first_process(told, started.ended_fd)) is not None:
            with contextlib.suppress(ProcessLookupError):  # it could not make the sandbox and has ended
                started.first_fd = os.pidfd_open(first)
                started.first = first
        os.write(go, b"!")  # closing it would not do: a fork in another thread may hold the other end
        yield started


@contextlib.contextmanager
def start_bare(
    argv: Sequence[str], files: Mapping[str, bytes], stdin: bytes, limits: Limits
) -> Iterator[Started]:
    """A program with this process's rights, in a temporary folder and a process group of its own."""
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(TemporaryDirectory(prefix="elastic-", ignore_cleanup_errors=True)))
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        yield _started(held, limited(argv, limits, processes=False), stdin, cwd=folder)


def _started(held: contextlib.ExitStack, command: list[str], stdin: bytes, **options: Any) -> Started:
    process = held.enter_context(
        subprocess.Popen(
            command,
            stdin=_memory_file(held, stdin),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            start_new_session=True,
            **options,
        )
    )
    started = Started(process, process.pid)
    held.callback(started.close)
    started.ended_fd = os.pidfd_open(process.pid)
    return started


def _first_process(told: int, ended: int) -> int | None:
    """Number of the sandbox's first process as bubblewrap writes it; None if it ended before."""
    text = b""
    while not text.rstrip().endswith(b"}"):
        if told not in _readable([told, ended], None):
            return None
        text += os.read(told, 4096)
    return int(json.loads(text)["child-pid"])


def _readable(fds: Sequence[int], seconds: float | None) -> list[int]:
    """The descriptors that can be read, or are at their end; select() knows none above 1,023."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if seconds is None else seconds * 1e3)]


def _memory_file(held: contextlib.ExitStack, data: bytes) -> int:
    """A descriptor to read `data` from, which can be neither changed nor grown."""
    fd = os.memfd_create("elastic", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    held.callback(os.close, fd)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def _pipe(held: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for fd in ends:
        held.callback(os.close, fd)
    return ends
