"""Sampling parameters of the rows in the slots. R rows, S slots."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elastic.sampling import Sampling

# Name, dtype, and the value of free slots, which does nothing.
_FIELDS = (
    ("temperature", torch.float64, 1.0),
    ("top_k", torch.int64, 0),
    ("top_p", torch.float64, 1.0),
    ("min_p", torch.float64, 0.0),
)


class SlotSampling:
    """The parameters of a draw over the slots.

    Args:
        samplings: R, one per row.
        slots: S.

    Attributes:
        temperature, top_k, top_p, min_p: a number where all rows of the call have the same, which costs the
            draw nothing; else [S], which stays where it is.
    """

    temperature: float | Tensor
    top_k: int | Tensor
    top_p: float | Tensor
    min_p: float | Tensor

    def __init__(self, samplings: Sequence[Sampling], slots: int, device: torch.device):
        self._of_rows: dict[str, Tensor] = {}
        for name, dtype, off in _FIELDS:
            values = [getattr(sampling, name) for sampling in samplings]
            if len(set(values)) == 1:
                setattr(self, name, values[0])
                continue
            self._of_rows[name] = torch.tensor(values, dtype=dtype, device=device)
            setattr(self, name, torch.full((slots,), off, dtype=dtype, device=device))

    def of(self, rows: int) -> tuple[float | Tensor, int | Tensor, float | Tensor, float | Tensor]:
        """Temperature, top_k, top_p and min_p of the first `rows` slots."""

        def front(value: float | Tensor) -> float | Tensor:
            return value[:rows] if isinstance(value, Tensor) else value

        top_k = self.top_k[:rows] if isinstance(self.top_k, Tensor) else self.top_k
        return front(self.temperature), top_k, front(self.top_p), front(self.min_p)

    def admit(self, slots: Tensor, rows: Tensor) -> None:
        """Rows take slots, both [k] int64."""
        for name, values in self._of_rows.items():
            getattr(self, name)[slots] = values[rows]

    def move(self, source: Tensor, target: Tensor) -> None:
        """Copies slots `source` over slots `target`, disjoint [k] int64."""
        for name in self._of_rows:
            getattr(self, name)[target] = getattr(self, name)[source]
