"""Runs the parts of a long command, two at a time where there are two cores."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

_POLL_SECONDS = 0.1


def run_parts(parts: Sequence[str], module: str, out: Path, settings: str, processes: int) -> None:
    """Runs the parts, one after another in this process or several at a time in processes of their own.

    Every process computes with one thread, so the results do not depend on the number of processes. They end
    when this process ends, however it ends.

    Args:
        parts: names, started in this order.
        module: where `run_part(part, out, settings)` is.
        out: the command's directory.
        settings: of the command, as JSON.
        processes: how many run at a time, at least 1; 1 means in this process.

    Raises:
        RuntimeError: a process failed; the others are ended. Its error is on stderr.
    """
    if processes == 1:
        for part in parts:
            import_module(module).run_part(part, out, settings)
        return
    waiting, running = list(parts), dict[str, subprocess.Popen[bytes]]()
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                part = waiting.pop(0)
                running[part] = _start(part, module, out, settings)
            for part, process in list(running.items()):
                status = process.poll()
                if status:
                    raise RuntimeError(f"the process of {part} ended with status {status}")
                if status == 0:
                    del running[part]
            time.sleep(_POLL_SECONDS)
    finally:
        for process in running.values():
            process.terminate()
            process.wait()


def _start(part: str, module: str, out: Path, settings: str) -> "subprocess.Popen[bytes]":
    # Not multiprocessing: its children import the caller's main script again.
    command = [sys.executable, "-m", "elastic.commands.parts.worker", part, module, str(out), settings]
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
