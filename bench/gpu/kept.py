"""The file of a run of `make gpu`: at any time it holds what was measured so far."""

import threading
from pathlib import Path
from typing import Any

from bench.gpu.launches import Choice, best
from bench.output.results import write

Record = dict[str, Any]
LISTS = ("results", "tuning", "errors", "skipped")


class Kept:
    """A run and its file, which is replaced whenever a step begins, gets further or ends.

    Attributes:
        run: what the file holds.
    """

    def __init__(self, path: Path, facts: Record) -> None:
        self.path = path
        self._facts = facts
        self._records: dict[str, Record] = {}  # a step's last word
        self._lock = threading.RLock()  # steps run side by side
        self._collect()

    def put(self, step: str, record: Record, seconds: float) -> None:
        """Writes what a step has so far, in place of what it had."""
        with self._lock:
            self._records[step] = {**record, "seconds": seconds}
            self._collect()
            write(self.path, self.run)

    def _collect(self) -> None:
        records = self._records.items()
        lists = {key: [one for _, record in records for one in record.get(key, [])] for key in LISTS}
        steps = {
            step: {key: value for key, value in record.items() if key not in LISTS}
            for step, record in records
        }
        table = best([Choice(**entry) for entry in lists["tuning"]])
        self.run: Record = {**self._facts, **lists, "steps": steps, "launch_table": table}
