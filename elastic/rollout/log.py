"""Moves what steps log into the record, and shows it to a watch on the way.

W steps of a log window, n slots in use.
"""

from __future__ import annotations

from torch import Tensor

from elastic.rollout.record.buffer import RecordBuffer
from elastic.rollout.schedule.schedule import Schedule
from elastic.rollout.step.step import WINDOW, Slots
from elastic.rollout.watch import Watch


class Log:
    """Reads the window of the last steps before it is written over.

    Args:
        slots: whose steps are logged.
        schedule: says which rows have the slots, and how many steps were taken.
        record: takes everything.
        watch: sees everything, too; None for nobody.
    """

    def __init__(self, slots: Slots, schedule: Schedule, record: RecordBuffer, watch: Watch | None):
        self._slots, self._schedule, self._record, self._watch = slots, schedule, record, watch
        self._flushed = self._shown = 0  # steps that are in the record, and that the watch has seen

    def flush(self) -> None:
        """Moves the steps since the last flush into the record; before slots change hands, and every W."""
        self.show()
        first, self._flushed = self._flushed, self._schedule.step
        if first < self._flushed:
            self._record.write(*self._since(first), self._schedule.longest())

    def show(self) -> None:
        """Shows the watch the steps that it has not seen."""
        first, self._shown = self._shown, self._schedule.step
        if self._watch is not None and first < self._shown:
            self._watch.post(*self._since(first))

    def _since(self, first: int) -> tuple[list[Tensor], list[int], list[int]]:
        """The steps from one on, [steps, n]; each slot's row, and the column of its first token there."""
        schedule = self._schedule
        entries = slice(first % WINDOW, (schedule.step - 1) % WINDOW + 1)
        log = [part[entries, : schedule.used] for part in self._slots.log]
        begins = [first - start for start in schedule.start[: schedule.used]]
        return log, schedule.row[: schedule.used], begins
