"""Which pairs of expressions math-verify takes as equal, asked of as many processes as there are cores.

A process is started when a pair finds those that run busy, so one thread never starts more than one.
"""

import atexit
import logging
import os
import threading
from functools import lru_cache
from importlib.util import find_spec
from queue import LifoQueue

from elastic.rewards.cores import default_workers
from elastic.rewards.worker import Worker

_log = logging.getLogger(__name__)

_MAX_CHARACTERS = 300


class Workers:
    """Worker processes that any number of threads may ask; more threads than processes wait.

    Args:
        most: processes at one time.
    """

    def __init__(self, most: int) -> None:
        self.all = [Worker() for _ in range(most)]
        self._idle: LifoQueue[Worker] = LifoQueue()  # first comes who came last, so that few are started
        for worker in self.all:
            self._idle.put(worker)

    def same(self, stated: str, answer: str) -> bool:
        """See `Worker.same`."""
        worker = self._idle.get()
        try:
            return worker.same(stated, answer)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Ends the processes; the next pair starts another."""
        for worker in self.all:
            worker.close()

    def kill(self) -> None:
        """Ends the processes without waiting for what they judge."""
        for worker in self.all:
            worker.kill()


class _Pair:
    """Two expressions, judged for the first who asks; others wait for the answer."""

    def __init__(self, stated: str, answer: str) -> None:
        self._texts = stated, answer
        self._lock = threading.Lock()
        self._same: bool | None = None

    def same(self) -> bool:
        with self._lock:
            if self._same is None:
                self._same = _workers.same(*self._texts)
            return self._same


_pair = lru_cache(maxsize=65536)(_Pair)
_workers = Workers(default_workers())
atexit.register(lambda: _workers.kill())


def _in_a_forked_process() -> None:
    """The parent keeps its workers, and locks that its other threads may hold."""
    global _workers
    _workers = Workers(default_workers())
    _pair.cache_clear()


os.register_at_fork(after_in_child=_in_a_forked_process)


@lru_cache(maxsize=1)
def _math_verify_installed() -> bool:
    if find_spec("math_verify") is not None:
        return True
    _log.warning(
        "math-verify is not installed (pip install 'elastic[train]'): answers are compared as text and as "
        "numbers only, so equal expressions written differently count as wrong"
    )
    return False


def same_to_math_verify(stated: str, answer: str) -> bool:
    """Whether math-verify takes two LaTeX expressions as equal within a `Worker`'s limits."""
    if max(len(stated), len(answer)) > _MAX_CHARACTERS:
        return False
    return _math_verify_installed() and _pair(stated, answer).same()
