"""Checks of arguments that are no tensor, or may be one, before the dispatcher sees them."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from elastic.machine import Machine
from elastic.ops._inputs import check_tensor

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def got(value: Any) -> str:
    """How an error shows a value: short ones as they are, a tensor by its dtype, others by their type."""
    if isinstance(value, Tensor):
        return str(value.dtype).removeprefix("torch.")
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    return type(value).__name__


def number(op: str, name: str, value: Any) -> float:
    """A number that is no bool, as a float."""
    if isinstance(value, bool) or not isinstance(value, (float, int, Real)):
        raise TypeError(f"{op}: {name}: expected a number or a tensor, got {got(value)}")
    return float(value)


def integer(op: str, name: str, value: Any) -> int:
    """An integer of 64 bits that is no bool."""
    if isinstance(value, bool) or not isinstance(value, (int, Integral)):
        raise TypeError(f"{op}: {name}: expected an integer, got {got(value)}")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{op}: {name}: expected an integer of 64 bits, got {value}")
    return int(value)


def integers(op: str, name: str, values: Any, beside: Tensor) -> Tensor:
    """A tensor of integers beside another: int64, contiguous."""
    check_tensor(op, name, values, beside)
    if values.dtype not in INTEGERS:
        raise TypeError(f"{op}: {name}: expected int64, got {got(values)}")
    return (values if values.dtype == torch.int64 else values.long()).contiguous()


def listed_integers(op: str, name: str, values: Any) -> Tensor:
    """Integers as a tensor anywhere, or as a list or tuple: int64, contiguous."""
    if isinstance(values, Tensor):
        return integers(op, name, values, values)
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
        raise TypeError(f"{op}: {name}: expected integers, as a tensor or a list, got {got(values)}")
    return torch.tensor([integer(op, name, value) for value in values], dtype=torch.int64)


def per_row(op: str, name: str, value: Any, dtype: torch.dtype, beside: Tensor) -> Tensor:
    """A tensor's parameter of each row of `beside` in `dtype`: floats of any width, integers for both.

    float64 holds every float exactly. A 0-dim tensor is every row's, wherever it lies.
    """
    allowed = value.dtype in INTEGERS or (dtype.is_floating_point and value.is_floating_point())
    if not allowed:
        expected = "numbers" if dtype.is_floating_point else "integers"
        raise TypeError(f"{op}: {name}: expected {expected}, got {got(value)}")
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
