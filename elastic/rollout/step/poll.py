"""How the host learns that rows are done, without stopping the device (SPEC R16).

S slots.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from elastic import ops
from elastic.rollout.step.step import Slots


@dataclass(frozen=True)
class Report:
    """What a look saw.

    Attributes:
        done: slots whose row is DONE.
        broken: whether any draw met broken logits.
        row: the row of each slot at the time; slots may have changed hands since.
    """

    done: list[int]
    broken: bool
    row: list[int]


class Poll:
    """Looks at the counter of running rows every few steps.

    On the CPU a look costs nothing and reads the present. On a GPU the counters and flags are copied
    asynchronously and read at the next look, when the copy has long arrived: rows that ended in between
    emit PAD for a few steps.

    Args:
        every: steps between looks, at least 1.
        lagged: whether a look reads what the look before it requested.
    """

    def __init__(self, every: int, lagged: bool):
        self.every, self.lagged = every, lagged
        self._pinned: Tensor | None = None  # what the device writes; read before it is written again
        self._posted: tuple[Tensor, torch.cuda.Event | None, list[int]] | None = None

    def look(self, slots: Slots, used: int, step: int, alive: int, row: list[int]) -> Report | None:
        """Looks, where it is time to.

        Args:
            used: slots in use.
            step: steps taken.
            alive: rows that the host believes to run.
            row: of each slot, its row.

        Returns:
            None where it is not time, or nothing changed.
        """
        if step % self.every:
            return None
        if not self.lagged:
            running, broken = slots.signal.tolist()
            if running == alive and not broken:
                return None
            return _report(torch.cat([slots.signal[1:], ops.is_done(slots.state[:used])]), row)
        report = None
        if self._posted is not None:
            values, arrived, then = self._posted
            if arrived is not None:
                arrived.synchronize()
            report = _report(values, then)
        values = torch.cat([slots.signal[1:], ops.is_done(slots.state[:used])])
        arrived = None
        if values.is_cuda:
            stream = torch.cuda.current_stream(values.device)  # the current device may be another
            if self._pinned is None or len(self._pinned) < len(values):
                self._pinned = torch.empty_like(values, device="cpu", pin_memory=True)
            values = self._pinned[: len(values)].copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record(stream)
        self._posted = (values, arrived, list(row))
        return report

    def broken(self, slots: Slots) -> bool:
        """Whether any draw so far met broken logits; waits for the device."""
        return bool(slots.signal[1].item())


def _report(values: Tensor, row: list[int]) -> Report:
    broken, *done = values.tolist()
    return Report([slot for slot, flag in enumerate(done) if flag], bool(broken), list(row))
