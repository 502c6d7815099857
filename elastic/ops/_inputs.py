"""What the loss ops' Python sides share: small inputs brought to the dtype the kernels compute in."""

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
    """`tensor`, a float a token or a row, detached, contiguous and in the kernels' dtype.

    Raises:
        TypeError: not a tensor, or not floating point.
        ValueError: on another device.
    """
    check_tensor(op, name, tensor, logits)
    if not tensor.is_floating_point():
        raise TypeError(f"{op}: {name}: expected a floating point tensor, got {tensor.dtype}")
    return tensor.detach().to(compute_dtype(logits)).contiguous()


def split_temperature(op: str, logits: Tensor, temperature: float | Tensor) -> tuple[float, Tensor | None]:
    """The op's two arguments: one temperature for all tokens, or one a token [N]."""
    if isinstance(temperature, Tensor):
        return 1.0, small_float(op, "temperature", temperature, logits)
    return float(temperature), None


def optional_float(value: float | None) -> float | None:
    """The op's `float?` argument; the dispatcher takes no integers for it under torch.compile."""
    return None if value is None else float(value)
