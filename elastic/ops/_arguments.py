"""Arguments of the budget and sampling ops: integers in tensors or lists, one value per row, the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elastic.budget.machine import Machine
from elastic.ops._inputs import check_tensor, dtype_name, got, integer

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def integers(op: str, name: str, values: Any, beside: Tensor) -> Tensor:
    """A tensor of integers beside another: int64, contiguous."""
    check_tensor(op, name, values, beside)
    if values.dtype not in INTEGERS:
        raise TypeError(f"{op}: {name}: expected int64, got {dtype_name(values)}")
    return (values if values.dtype == torch.int64 else values.long()).contiguous()


def listed_integers(op: str, name: str, values: Any) -> Tensor:
    """Integers as a tensor anywhere, or as a list or tuple: int64, contiguous."""
    if isinstance(values, Tensor):
        return integers(op, name, values, values)
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
        raise TypeError(f"{op}: {name}: expected integers, as a tensor or a list, got {got(values)}")
    return torch.tensor([integer(op, name, value) for value in values], dtype=torch.int64)


def per_row(op: str, name: str, value: Any, dtype: torch.dtype, beside: Tensor) -> Tensor:
    """A parameter given as a tensor, one value per row of `beside`, in `dtype`.

    A floating `dtype` takes floats of any width and integers, an integer one only integers. A 0-dim tensor,
    on any device, holds for every row.
    """
    allowed = value.dtype in INTEGERS or (dtype.is_floating_point and value.is_floating_point())
    if not allowed:
        expected = "numbers" if dtype.is_floating_point else "integers"
        raise TypeError(f"{op}: {name}: expected {expected}, got {dtype_name(value)}")
    if value.dim() == 0:
        value = value.to(beside.device).expand(beside.shape[0])
    check_tensor(op, name, value, beside)
    return value.detach().to(dtype).contiguous()


def check_machine(op: str, machine: Any, beside: Tensor | None = None) -> None:
    """Raises unless `machine` is one, on the device of `beside`."""
    if not isinstance(machine, Machine):
        raise TypeError(f"{op}: machine: expected a Machine, got {got(machine)}")
    if beside is not None and machine.tables.device != beside.device:
        raise ValueError(
            f"{op}: machine: expected one on {beside.device}, got one on {machine.tables.device}"
        )
