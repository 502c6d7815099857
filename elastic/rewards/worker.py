"""math-verify behind limits of time and memory that hold in any thread: in a process of its own.

math-verify's own limit is a signal handler, which works in the main thread only, and never while one huge
power is computed. The process is started when the first pair needs it, answers one pair after the other, and
is replaced when a pair goes beyond the limits and ends it.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path

from elastic.rewards.verify import BEYOND_LIMITS

SECONDS = 2.0  # of processor time per pair
MEMORY_BYTES = 1 << 30
_START_SECONDS = 120.0  # of a busy machine
_STARTS = 5  # of a process that is killed before it is ready
_WALL_SECONDS = 60.0  # a pair on a busy machine

_CODE = """
import sys
sys.path[:] = sys.argv[3:]
from elastic.rewards.verify import serve
serve(float(sys.argv[1]), int(sys.argv[2]))
"""


class Worker:
    """A process that judges pairs; started and restarted when needed. Any number of threads may ask."""

    def __init__(self, seconds: float = SECONDS, memory_bytes: int = MEMORY_BYTES) -> None:
        self._limits = [str(seconds), str(memory_bytes)]
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def same(self, stated: str, answer: str) -> bool:
        """Whether math-verify takes the two as equal; False for a pair beyond the limits.

        Raises:
            RuntimeError: the process cannot be started.
        """
        with self._lock:
            line = self._ask(stated, answer)
            if line is None:  # something else had ended the process
                line = self._ask(stated, answer)
            return line == b"true\n"

    def close(self) -> None:
        """Ends the process; the next pair starts another."""
        with self._lock:
            self.kill()  # sooner than what it does at its own end
            self._stop()

    def kill(self) -> None:
        """Ends the process at once, whoever waits for it."""
        if (process := self._process) is not None:
            process.kill()

    def _ask(self, stated: str, answer: str) -> bytes | None:
        """The process's answer; b"" if the pair went beyond the limits, None if it ended otherwise."""
        line = b""
        try:
            process = self._process or self._start()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps([stated, answer]).encode() + b"\n")
                process.stdin.flush()
                line = self._line(process, _WALL_SECONDS)
        finally:
            if not line:  # ended or interrupted: this pair's answer must not be read as the next one's
                self._stop()
        return line if line or process.returncode in BEYOND_LIMITS else None

    def _start(self) -> subprocess.Popen[bytes]:
        for _ in range(_STARTS):
            process, said = self._begun()
            if said == b"ready\n":
                return process
            self._stop()
            if process.returncode >= 0 or said:  # it was no signal from elsewhere that ended it
                break
        reason = said.decode(errors="replace").strip() or f"{sys.executable} said nothing"
        raise RuntimeError(f"math_reward: the process that runs math-verify did not start: {reason}")

    def _begun(self) -> tuple[subprocess.Popen[bytes], bytes]:
        """A new process and the first that it says."""
        # Not multiprocessing: it would run the user's script once more, or fork this process's threads.
        paths = [*map(os.path.abspath, sys.path), str(Path(__file__).parents[2])]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, *self._limits, *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return self._process, self._line(self._process, _START_SECONDS)

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes:
        """One answer; empty if the process ended."""
        assert process.stdout is not None
        answer = select.poll()  # select.select knows 1024 open files
        answer.register(process.stdout, select.POLLIN)
        if answer.poll(1000 * seconds):
            return process.stdout.readline()
        process.kill()
        self._stop()
        return b"no answer in time\n"

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # what was never read
                pipe.close()
        try:
            process.wait(timeout=1)  # most have ended by themselves, and the return code says why
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
