"""The record while it is being written. R rows, T columns, n slots."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elastic.budget import Phase, Source
from elastic.rollout.record.kept import KeptBuffer, KeptSets

_DTYPES = (torch.int64, torch.uint8, torch.uint8, torch.float32, torch.float32)
_FILLS = (int(Source.PAD), int(Phase.DONE), 0.0, 0.0)


class RecordBuffer:
    """Fields tokens, source, phase, logprobs, full_logprobs of R rows, and kept sets.

    Columns grow as rows do.

    There is one row and one column more than the record has: free slots and rows that overshoot write there.

    Args:
        columns: to begin with.
        most: columns that the longest row can need.
    """

    def __init__(self, rows: int, columns: int, most: int, pad_id: int, device: torch.device):
        self._most, self._fills = most, (pad_id, *_FILLS)
        self._kept: KeptBuffer | None = None
        self._fields = [
            torch.full((rows + 1, columns + 1), fill, dtype=dtype, device=device)
            for fill, dtype in zip(self._fills, _DTYPES, strict=True)
        ]

    def write(self, log: Sequence[Tensor], rows: Sequence[int], begins: Sequence[int], longest: int) -> None:
        """Copies some steps of the log.

        Args:
            log: the five fields, each [steps, n]; where kept sets are logged, their counts and ids.
            rows: row of each slot, -1 for none.
            begins: column of each slot's first token here.
            longest: tokens that any of the rows has now.
        """
        self._widen(longest)
        nobody, last = (size - 1 for size in self._fields[0].shape)
        device = self._fields[0].device
        row = torch.tensor([r if r >= 0 else nobody for r in rows], device=device)
        column = torch.tensor(begins, device=device) + torch.arange(len(log[0]), device=device)[:, None]
        index = (row * (last + 1) + column.clamp_(max=last)).view(-1)
        for field, values in zip(self._fields, log[: len(self._fields)], strict=True):
            field.view(-1).index_copy_(0, index, values.reshape(-1))
        if len(log) > len(self._fields):
            counts, ids = log[len(self._fields) :]
            self._kept = self._kept or KeptBuffer()
            self._kept.write(counts, ids, rows, begins)

    def _widen(self, longest: int) -> None:
        last = self._fields[0].shape[1] - 1
        if longest <= last:
            return
        wider = min(2 * longest, self._most) + 1
        for i, old in enumerate(self._fields):
            self._fields[i] = old.new_full((len(old), wider), self._fills[i])
            self._fields[i][:, :last] = old[:, :last]

    def first_nan(self) -> tuple[int, int]:
        """Row and column of the first logprob that is NaN: the log keeps those of broken rows."""
        row, column = self._fields[3][:-1].isnan().nonzero()[0].tolist()
        return row, column

    def cut(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Takes back what rows wrote behind these lengths."""
        width = self._fields[0].shape[1]
        row, length = torch.tensor([rows, lengths], device=self._fields[0].device)
        behind = torch.arange(width, device=row.device) >= length[:, None]
        for field, fill in zip(self._fields, self._fills, strict=True):
            field[row] = field[row].masked_fill(behind, fill)

    def fields(self, rows: Sequence[int] | None = None) -> list[Tensor]:
        """Each [R, T] or, of some rows, [k, T]; T of the longest of them."""
        kept = slice(None, -1) if rows is None else torch.tensor(rows, device=self._fields[0].device)
        fields = [field[kept] for field in self._fields]
        longest = int((fields[1] != Source.PAD).sum(dim=1).max())
        return [field[:, :longest] for field in fields]

    def kept(self, rows: Sequence[int], fields: Sequence[Tensor]) -> KeptSets | None:
        """Kept sets of the rows that `fields` are of; None where none were logged."""
        if self._kept is None:
            return None
        source = fields[1]
        lengths = (source != Source.PAD).sum(dim=1)
        return self._kept.sets(rows, lengths, source.shape[1]).to(source.device)
