"""Commands with a time limit, whose output is both shown and kept."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.results import ROOT

KEPT_LINES = 400
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
    command: Sequence[str], limit_s: float, environment: Mapping[str, str] | None = None, show: bool = True
) -> Done:
    """Runs a command in the repository's root; at the limit it is killed with everything it started."""
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

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if show:
                print(f"  {line}", end="", flush=True)

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
    reader.join(timeout=10)
    return Done(code, list(lines), time.monotonic() - began)


def tool(name: str) -> str | None:
    """Path of a CUDA tool, also where its folder is not on PATH."""
    places = [os.environ.get("PATH", os.defpath), *map(str, CUDA_FOLDERS)]
    return shutil.which(name, path=os.pathsep.join(places))
