"""The ids that filters left when tokens were drawn, as a record keeps them (docs/kept-set.md).

R rows, T columns, M ids in all, K the most that are kept of one token, n slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True, eq=False)
class KeptSets:
    """Kept sets of a record's tokens, end to end.

    Attributes:
        counts: [R, T] int32, the ids of each token. 0: it has no set, as no filter acted or it was not
            sampled. Below 0: there were -count ids, more than the record keeps, and none of them is here.
        ids: [M] int32, ascending within a token, tokens row by row.
    """

    counts: Tensor
    ids: Tensor

    @property
    def sizes(self) -> Tensor:
        """[R, T] int64: how many of `ids` each token has."""
        return self.counts.clamp(min=0).long()

    def to(self, device: torch.device | str) -> KeptSets:
        """A copy on `device`."""
        return KeptSets(self.counts.to(device), self.ids.to(device))

    def rows(self, rows: Tensor, columns: int) -> KeptSets:
        """Those of some rows [k] int64, up to a column behind which no row has a token."""
        return KeptSets(self.counts[rows][:, :columns], _in_order(self.ids, self.sizes.sum(1), rows))

    def of_rows(self) -> list[Tensor]:
        """The ids of each row."""
        return list(self.ids.split(self.sizes.sum(1).tolist()))

    @staticmethod
    def cat(
        parts: Sequence[KeptSets | None], shapes: Sequence[Sequence[int]], columns: int
    ) -> KeptSets | None:
        """Rows of several records, [R, T] each, one after the other; one without sets has counts of 0."""
        given = [part for part in parts if part is not None]
        if not given:
            return None
        counts = [
            pad(
                given[0].counts.new_zeros(tuple(shape)) if part is None else part.counts,
                (0, columns - shape[1]),
            )
            for part, shape in zip(parts, shapes, strict=True)
        ]
        return KeptSets(torch.cat(counts), torch.cat([part.ids for part in given]))


class KeptBuffer:
    """Kept sets while rows are being written, on the host: pieces in the order in which they came."""

    def __init__(self) -> None:
        self._pieces: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # row, column, count, and the ids

    def write(self, counts: Tensor, ids: Tensor, rows: Sequence[int], begins: Sequence[int]) -> None:
        """Takes some steps of the log; the host waits for them.

        Args:
            counts, ids: [steps, n] and [steps, n, K] int32, as `ops.sample` reports them.
            rows: row of each slot, -1 for none.
            begins: column of each slot's first token here.
        """
        row = torch.tensor(rows, device=counts.device).expand_as(counts)
        column = torch.arange(len(counts), device=counts.device)[:, None]
        column = column + torch.tensor(begins, device=counts.device)
        has = row >= 0  # also without a set: a token may take the place of one that had one
        row, column, counts, ids = row[has], column[has], counts[has], ids[has]
        most = ids.shape[1]
        listed = torch.where(counts > most, 0, counts)
        ids = ids[torch.arange(most, device=ids.device) < listed[:, None]]
        counts = torch.where(counts > most, -counts, counts)
        if len(counts):
            self._pieces.append((row.cpu(), column.cpu(), counts.cpu(), ids.cpu()))

    def sets(self, rows: Sequence[int], lengths: Tensor, columns: int) -> KeptSets:
        """Those of some rows, in their order.

        Args:
            lengths: [k] int64, tokens of each; what it wrote behind them does not count.
            columns: T.
        """
        counts = torch.zeros(len(rows), columns, dtype=torch.int32)
        if not self._pieces:
            return KeptSets(counts, torch.zeros(0, dtype=torch.int32))
        row, column, count, ids = (torch.cat(parts) for parts in zip(*self._pieces, strict=True))
        place = torch.full((max(int(row.max()), *rows) + 1,), -1)
        place[list(rows)] = torch.arange(len(rows))
        ends = torch.cat(
            [lengths.cpu(), torch.zeros(1, dtype=torch.int64)]
        )  # the last one for rows not asked for
        chosen = (column < ends[place[row]]).nonzero()[:, 0]
        cell = place[row] * columns + column
        order = chosen[cell[chosen].argsort(stable=True)]
        order = order[cell[order].diff(append=torch.tensor([-1])) != 0]  # what came last of each
        counts.view(-1)[cell[order]] = count[order]
        return KeptSets(counts, _in_order(ids, count.clamp(min=0).long(), order))


def _in_order(ids: Tensor, sizes: Tensor, order: Tensor) -> Tensor:
    """Stretches of `ids`, of these sizes and end to end, in another order; some may be left out."""
    picked = sizes[order]
    begins = (sizes.cumsum(0) - sizes)[order] - (picked.cumsum(0) - picked)
    return ids[begins.repeat_interleave(picked) + torch.arange(int(picked.sum()), device=ids.device)]
