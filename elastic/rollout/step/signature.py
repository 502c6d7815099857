"""What a recorded step depends on without reading it again: addresses, and what Python decided by.

A recording is right as long as this is equal. Contents may change: weights updated in place are fine.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

Signature = tuple[Any, ...]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def addresses(tensors: Iterable[Tensor]) -> Signature:
    """Where each tensor lies and how it is laid out."""
    return tuple((t.data_ptr(), t.dtype, tuple(t.shape), t.stride()) for t in tensors)


def of_value(value: Tensor | float) -> Signature:
    """An argument of a step: numbers by value, as a recording holds them, tensors by address."""
    return addresses([value]) if isinstance(value, Tensor) else (value,)


def of_model(model: Any) -> Signature:
    """Weights and buffers by address; hooks and plain attributes, such as the active adapter, by value."""
    modules = tuple(
        (name, getattr(module.forward, "__func__", module.forward), *_hooks(module), *_settings(module))
        for name, module in model.named_modules()
    )
    config = model.config.get_text_config(decoder=True)
    tensors = addresses([*model.parameters(), *model.buffers()])
    return tensors, modules, config._attn_implementation


def of_process(device: torch.device) -> Signature:
    """Modes of torch that choose kernels."""
    return (
        torch.is_autocast_enabled(device.type),
        torch.get_autocast_dtype(device.type),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
    )


def _hooks(module: nn.Module) -> Signature:
    return tuple(id(hook) for name in _HOOKS for hook in getattr(module, name).values())


def _settings(module: nn.Module) -> Signature:
    return tuple((name, text) for name, value in vars(module).items() if (text := _plain(value)) is not None)


def _plain(value: Any) -> Any:
    """A hashable copy of a number, a string or None, or of a collection of these; None for anything else."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return (value,)
    if isinstance(value, dict):
        value = list(value.items())
    if not isinstance(value, (list, tuple, set, frozenset)):
        return None
    parts = [_plain(part) for part in value]
    return None if None in parts else tuple(parts)
