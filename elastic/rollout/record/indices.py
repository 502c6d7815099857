"""What may stand between the brackets of a record."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def row_index(row: Any, count: int) -> int:
    """One row's number, 0 .. count - 1; negative ones count from the end.

    Args:
        row: an integer of Python, torch or numpy.
        count: rows there are.

    Raises:
        TypeError: no integer; a bool is none.
        IndexError: out of range; names row and range.
    """
    value = row.item() if _is_array(row) and row.ndim == 0 else row
    if isinstance(value, bool):
        raise TypeError(f"row: expected an integer, got {row!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"row: expected an integer, got {row!r}") from None
    if not -count <= number < count:
        raise IndexError(f"row: expected {-count} .. {count - 1}, got {number}")
    return number % count


def row_indices(rows: Any, count: int) -> Tensor:
    """[k] int64 on the CPU, the numbers of some rows.

    Args:
        rows: one row, a slice, a sequence or [k] tensor or array of integers, or a mask [count] of bools.
        count: rows there are.

    Raises:
        TypeError: none of these.
        IndexError: out of range, or a mask of another length.
    """
    if isinstance(rows, slice):
        return torch.tensor(range(count)[rows], dtype=torch.int64)
    if _is_array(rows) and rows.ndim > 0:
        if rows.ndim != 1:
            raise TypeError(f"rows: expected a list of rows or a mask, got shape {list(rows.shape)}")
        rows = rows.tolist()
    if isinstance(rows, str) or not isinstance(rows, Sequence):
        return torch.tensor([row_index(rows, count)])
    if len(rows) and all(isinstance(row, bool) for row in rows):
        if len(rows) != count:
            raise IndexError(f"rows: expected a mask of {count} rows, got one of {len(rows)}")
        rows = [row for row, chosen in enumerate(rows) if chosen]
    return torch.tensor([row_index(row, count) for row in rows], dtype=torch.int64)


def _is_array(value: Any) -> bool:
    return hasattr(value, "ndim") and hasattr(value, "tolist")
