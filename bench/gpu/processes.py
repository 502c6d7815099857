"""Commands with a time limit, whose output is both shown and kept."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.output.results import ROOT

KEPT_LINES = 400
RUNNING: set[subprocess.Popen[str]] = set()
CUDA_FOLDERS = (Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin", Path("/usr/local/cuda/bin"))


@dataclass
class Done:
    """How a command ended.

    Attributes:
        code: its exit status; None where it was killed at its limit, or because it was silent.
        lines: the last lines of its output.
    """

    code: int | None
    lines: list[str]
    seconds: float
    silent: bool = False

    @property
    def last(self) -> str:
        return next((line for line in reversed(self.lines) if line.strip()), "no output")


def run(
    command: Sequence[str],
    limit_s: float,
    environment: Mapping[str, str] | None = None,
    show: bool = True,
    on_line: Callable[[str], object] | None = None,
    silence_s: float | None = None,
) -> Done:
    """Runs a command in the repository's root; at the limit it is killed with everything it started.

    Args:
        on_line: gets each line as it is printed, on another thread.
        silence_s: so long without a line, and it is killed, too.
    """
    began, lines = time.monotonic(), deque[str](maxlen=KEPT_LINES)
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )

    RUNNING.add(process)
    heard = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            heard.set()
            lines.append(line.rstrip("\n"))
            if show:
                print(f"  {line}", end="", flush=True)
            if on_line is not None:
                on_line(line.rstrip("\n"))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    code: int | None
    silent = False
    try:
        if silence_s is not None:
            silent = _was_silent(process, heard, silence_s, limit_s)
        code = None if silent else process.wait(timeout=max(limit_s - (time.monotonic() - began), 0))
    except subprocess.TimeoutExpired:
        code = None
    finally:
        if process.poll() is None or code is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        RUNNING.discard(process)
    reader.join(timeout=10)
    return Done(code, list(lines), time.monotonic() - began, silent)


def _was_silent(
    process: subprocess.Popen[str], heard: threading.Event, silence_s: float, limit_s: float
) -> bool:
    """Waits for the process to end, at most `limit_s`; whether it printed nothing for `silence_s` before."""
    end = last = time.monotonic()
    end += limit_s
    while process.poll() is None and time.monotonic() < end:
        if heard.wait(timeout=0.1):
            heard.clear()
            last = time.monotonic()
        elif time.monotonic() - last > silence_s:
            return True
        time.sleep(0.05)
    return False


def kill_all() -> None:
    """Kills every command that runs, with everything it started."""
    for process in list(RUNNING):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def tool(name: str) -> str | None:
    """Path of a CUDA tool, also where its folder is not on PATH."""
    places = [os.environ.get("PATH", os.defpath), *map(str, CUDA_FOLDERS)]
    return shutil.which(name, path=os.pathsep.join(places))
