"""The file of a run of `make gpu`: at any time it holds what was measured so far."""

import threading
from pathlib import Path
from typing import Any

from bench.gpu.launches import Choice, best
from bench.output.results import write

Record = dict[str, Any]
LISTS = ("results", "tuning", "errors")


class Kept:
    """A run and its file, which is replaced whenever a step begins, gets further or ends.

    Attributes:
        run: what the file holds.
    """

    def __init__(self, path: Path, facts: Record) -> None:
        self.path = path
        self.run: Record = {**facts, **{key: [] for key in LISTS}, "steps": {}}
        self._before = self.run  # without the step that runs
        self._lock = threading.RLock()  # the deadline's thread writes, too

    def put(self, step: str, record: Record, seconds: float, final: bool) -> None:
        """Writes what a step has so far; `final` closes it."""
        with self._lock:
            lists = {key: self._before[key] + record.get(key, []) for key in LISTS}
            rest = {key: value for key, value in record.items() if key not in LISTS}
            steps = {**self._before["steps"], step: {**rest, "seconds": seconds}}
            table = best([Choice(**entry) for entry in lists["tuning"]])
            self.run = {**self._before, **lists, "steps": steps, "launch_table": table}
            if final:
                self._before = self.run
            write(self.path, self.run)
