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
        code: its exit status; None where it was killed at its limit.
        lines: the last lines of its output.
    """

    code: int | None
    lines: list[str]
    seconds: float

    @property
    def last(self) -> str:
        return next((line for line in reversed(self.lines) if line.strip()), "no output")


def run(
    command: Sequence[str],
    limit_s: float,
    environment: Mapping[str, str] | None = None,
    show: bool = True,
    on_line: Callable[[str], object] | None = None,
) -> Done:
    """Runs a command in the repository's root; at the limit it is killed with everything it started.

    Args:
        on_line: gets each line as it is printed, on another thread.
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

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if show:
                print(f"  {line}", end="", flush=True)
            if on_line is not None:
                on_line(line.rstrip("\n"))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    code: int | None
    try:
        code = process.wait(timeout=limit_s)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        if process.poll() is None or code is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        RUNNING.discard(process)
    reader.join(timeout=10)
    return Done(code, list(lines), time.monotonic() - began)


def kill_all() -> None:
    """Kills every command that runs, with everything it started."""
    for process in list(RUNNING):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def tool(name: str) -> str | None:
    """Path of a CUDA tool, also where its folder is not on PATH."""
    places = [os.environ.get("PATH", os.defpath), *map(str, CUDA_FOLDERS)]
    return shutil.which(name, path=os.pathsep.join(places))
