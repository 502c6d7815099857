"""What rows emit, read on the host while they run.

W steps of a log window, n slots in use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from elastic.budget import Source


class Emitted(NamedTuple):
    """A token that a row has emitted.

    Attributes:
        row: index of the row.
        column: its place in the completion.
        token: its id.
        source, phase: `Source` and `Phase` of it.
    """

    row: int
    column: int
    token: int
    source: int
    phase: int


class _Part(NamedTuple):
    values: Tensor | list[list[list[int]]]  # tokens, sources, phases; each [steps, n]
    arrived: torch.cuda.Event | None
    rows: list[int]
    begins: list[int]


class Tail:
    """Takes the log, part by part, and hands out its tokens.

    On the CPU a read gives all that was posted. On a GPU parts are copied asynchronously, and a read gives
    those that were posted before the last one, when the copy has long arrived (SPEC R16).

    Args:
        lagged: whether reads lag behind like this.
    """

    def __init__(self, lagged: bool):
        self._lagged = lagged
        self._due: list[_Part] = []
        self._fresh: list[_Part] = []

    def post(self, log: Sequence[Tensor], rows: Sequence[int], begins: Sequence[int]) -> None:
        """Takes some steps of the log.

        Args:
            log: tokens, source and phase, each [steps, n].
            rows: row of each slot, -1 for none.
            begins: column of each slot's first token here.
        """
        values: Tensor | list[list[list[int]]]
        arrived = None
        if log[0].is_cuda:
            together = torch.stack([field.long() for field in log])
            values = torch.empty_like(together, device="cpu", pin_memory=True)
            values.copy_(together, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record(torch.cuda.current_stream(together.device))  # the current device may be another
        else:
            values = [field.tolist() for field in log]
        self._fresh.append(_Part(values, arrived, list(rows), list(begins)))

    def read(self, *, rest: bool = False) -> Iterator[Emitted]:
        """Tokens step by step, those of a step by slot; padding is left out.

        Args:
            rest: everything posted, which may wait for the device.
        """
        due, self._due, self._fresh = self._due, self._fresh, []
        if rest or not self._lagged:
            due, self._due = due + self._due, []
        for part in due:
            yield from _tokens(part)


def _tokens(part: _Part) -> Iterator[Emitted]:
    if part.arrived is not None:
        part.arrived.synchronize()
    values = part.values.tolist() if isinstance(part.values, Tensor) else part.values
    for step, (tokens, sources, phases) in enumerate(zip(*values, strict=True)):
        for row, begin, token, source, phase in zip(
            part.rows, part.begins, tokens, sources, phases, strict=True
        ):
            if row >= 0 and source != Source.PAD:
                yield Emitted(row, begin + step, token, source, phase)
