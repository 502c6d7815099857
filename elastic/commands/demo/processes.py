"""Runs the parts of a demo, two at a time where there are two cores."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from elastic.commands.demo.config import DemoConfig, to_json
from elastic.commands.demo.part import run_part

_POLL_SECONDS = 0.1


def run_parts(methods: Sequence[str], config: DemoConfig, out: Path, processes: int) -> None:
    """Runs the methods, one after another in this process or several at a time in processes of their own.

    Every process computes with one thread, so the results do not depend on the number of processes. They end
    when this process ends, however it ends.

    Args:
        methods: started in this order.
        config: the settings.
        out: the demo's directory.
        processes: how many run at a time, at least 1; 1 means in this process.

    Raises:
        RuntimeError: a process failed; the others are ended. Its error is on stderr.
    """
    if processes == 1:
        for method in methods:
            run_part(method, config, out)
        return
    waiting, running = list(methods), dict[str, subprocess.Popen[bytes]]()
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                method = waiting.pop(0)
                running[method] = _start(method, config, out)
            for method, process in list(running.items()):
                status = process.poll()
                if status:
                    raise RuntimeError(f"demo: the process of {method} ended with status {status}")
                if status == 0:
                    del running[method]
            time.sleep(_POLL_SECONDS)
    finally:
        for process in running.values():
            process.terminate()
            process.wait()


def _start(method: str, config: DemoConfig, out: Path) -> "subprocess.Popen[bytes]":
    # Not multiprocessing: its children import the caller's main script again.
    command = [sys.executable, "-m", "elastic.commands.demo.worker", method, str(out), to_json(config)]
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
