"""Checks that the ops share: each returns an argument as the C++ op takes it, or raises naming it."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, cast

import torch
from torch import Tensor


def compute_dtype(logits: Tensor) -> torch.dtype:
    """Dtype of per-token floats beside `logits`: float64 for float64 logits, float32 otherwise."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def check_tensor(op: str, name: str, tensor: Tensor, beside: Tensor) -> None:
    """Raises TypeError unless `tensor` is one, ValueError unless it lives on the device of `beside`.

    The dispatcher would pick a kernel by the highest device among the arguments before the op can object.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{op}: {name}: expected a tensor, got {type(tensor).__name__}")
    if tensor.device != beside.device:
        raise ValueError(f"{op}: {name}: expected a tensor on {beside.device}, got one on {tensor.device}")


def checked(op: str, name: str, tensor: Tensor, beside: Tensor) -> Tensor:
    """A small tensor that is only read, contiguous; raises as `check_tensor` does."""
    check_tensor(op, name, tensor, beside)
    return tensor.contiguous()


def small_float(op: str, name: str, tensor: Tensor, logits: Tensor) -> Tensor:
    """`tensor`, one float per token or row, detached, contiguous and in the kernels' dtype.

    Raises:
        TypeError: not a tensor, or not floating point.
        ValueError: on another device.
    """
    check_tensor(op, name, tensor, logits)
    if not tensor.is_floating_point():
        raise TypeError(f"{op}: {name}: expected a floating point tensor, got {dtype_name(tensor)}")
    return tensor.detach().to(compute_dtype(logits)).contiguous()


def small_real(op: str, name: str, tensor: Tensor, logits: Tensor) -> Tensor:
    """As `small_float`, for integers and booleans too: True is 1."""
    check_tensor(op, name, tensor, logits)
    if tensor.is_complex():
        raise TypeError(f"{op}: {name}: expected real numbers, got {dtype_name(tensor)}")
    return tensor.detach().to(compute_dtype(logits)).contiguous()


def split_temperature(op: str, logits: Tensor, temperature: float | Tensor) -> tuple[float, Tensor | None]:
    """The op's two arguments: one temperature for all tokens, or one per token [N].

    A tensor without dimensions, on this device or the CPU, is one for all; the host does not wait for it.
    """
    if not isinstance(temperature, Tensor):
        return number(op, "temperature", temperature), None
    if temperature.dtype == torch.bool:
        raise TypeError(f"{op}: temperature: expected real numbers, got bool")
    if temperature.dim() == 0 and temperature.device.type == "cpu":
        ones = torch.ones((), dtype=compute_dtype(logits), device=logits.device)
        temperature = ones * temperature.detach()
    one_or_more = small_real(op, "temperature", temperature, logits)
    many = one_or_more.expand(logits.shape[:1]) if one_or_more.dim() == 0 else one_or_more
    return 1.0, many.contiguous()


def kept_sets(
    op: str, kept_ids: Tensor | None, kept_offsets: Tensor | None, beside: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """The op's two arguments: the ids of tokens' kept sets, and where each token's begin and end."""
    if (kept_ids is None) != (kept_offsets is None):
        raise ValueError(f"{op}: kept_ids: expected kept_ids and kept_offsets together, got one of them")
    if kept_ids is None or kept_offsets is None:
        return None, None
    return checked(op, "kept_ids", kept_ids, beside), checked(op, "kept_offsets", kept_offsets, beside)


def as_autocast(tensor: Tensor) -> Tensor:
    """The tensor as F.linear would take it under autocast, which casts floats but float64."""
    device = tensor.device.type
    # torch refuses the question for meta tensors, which autocast leaves alone.
    if device == "meta" or not torch.is_autocast_enabled(device) or not tensor.is_floating_point():
        return tensor
    return tensor if tensor.dtype == torch.float64 else tensor.to(torch.get_autocast_dtype(device))


def number(op: str, name: str, value: Any) -> float:
    """A Python or numpy number as a float, which is all the dispatcher takes under torch.compile."""
    if isinstance(value, bool) or not isinstance(value, (float, int, Real)):
        raise TypeError(f"{op}: {name}: expected a number, got {got(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{op}: {name}: expected a number that float64 holds, got a larger one") from None


def integer(op: str, name: str, value: Any) -> int:
    """A Python or numpy integer of 64 bits, or torch's stand-in for one while it traces."""
    if isinstance(value, torch.SymInt):
        return cast(int, value)
    if isinstance(value, bool) or not isinstance(value, (int, Integral)):
        raise TypeError(f"{op}: {name}: expected an integer, got {got(value)}")
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{op}: {name}: expected an integer of 64 bits, got {number}")
    return number


def flag(op: str, name: str, value: Any) -> bool:
    """True or False; TypeError for anything else."""
    if not isinstance(value, bool):
        raise TypeError(f"{op}: {name}: expected True or False, got {got(value)}")
    return value


def one_of(*options: str) -> Callable[[str, str, Any], str]:
    """Makes a check like `number` and `integer` that takes one of these names."""
    expected = f"{', '.join(options[:-1])} or {options[-1]}"

    def check(op: str, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{op}: {name}: expected {expected}, got {got(value)}")
        if value not in options:
            raise ValueError(f"{op}: {name}: expected {expected}, got {value!r}")
        return value

    return check


def refuse_unused(op: str, name: str, value: Any, why: str) -> None:
    """Raises ValueError for an option that was given and would do nothing."""
    if value is not None and value is not False:
        raise ValueError(f"{op}: {name}: expected None {why}, got {got(value)}")


def dtype_name(tensor: Tensor) -> str:
    """The dtype as errors name it: "float32"."""
    return str(tensor.dtype).removeprefix("torch.")


def got(value: Any) -> str:
    """How an error shows a value: its repr where that is short, else its type."""
    if isinstance(value, Tensor):
        return f"a tensor of {dtype_name(value)}"
    return repr(value) if value is None or isinstance(value, (str, int, float)) else type(value).__name__
