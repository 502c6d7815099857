"""Attention by lengths with flash-attn's `flash_attn_with_kvcache`, of FlashAttention 3 or 2.

n rows, Hq query heads, H key/value heads, L columns, D head dimension.

The kernel reads each row's own columns and no others, shares the keys among the query heads of a group, and
takes its lengths from the device. It wants [n, L, H, D]; the slots are [n, H, L, D], which a transposed view
gives without a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

_MOST_WIDTH = 256  # head dimension
# Package, what it is called, and major compute capabilities that it has kernels for; preferred ones first.
_PACKAGES = (
    ("flash_attn_interface", "FlashAttention 3", range(8, 10)),
    ("flash_attn", "FlashAttention 2", range(8, 100)),
)


@cache
def find_flash(device: torch.device) -> tuple[Callable[..., Any] | None, str]:
    """`flash_attn_with_kvcache` of an installed package for this device, and what it is; or None, and why.

    Args:
        device: a CUDA device.
    """
    major = torch.cuda.get_device_capability(device)[0]
    found = []
    for package, name, majors in _PACKAGES:
        try:
            function = getattr(import_module(package), "flash_attn_with_kvcache", None)
        except ImportError as error:  # OSError of a library is one, too: built against another torch
            found.append(f"{package} cannot be imported ({error})")
            continue
        if function is not None and major in majors:
            return function, f"{name} is installed"
        found.append(
            f"{package} has no flash_attn_with_kvcache"
            if function is None
            else f"{name} has no kernels for compute capability {major}"
        )
    return None, "; ".join(found)


def flash_obstacle(device: torch.device, dtype: torch.dtype, width: int | None) -> str:
    """Why the kernel cannot serve; empty if it can, as far as can be told without a call.

    Args:
        dtype: of keys and values.
        width: head dimension, or None where the configuration does not tell.
    """
    if device.type != "cuda":
        return f"flash-attn needs a CUDA device, this is {device.type}"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"flash-attn needs bfloat16 or float16, the model is {str(dtype).removeprefix('torch.')}"
    if width is not None and (width > _MOST_WIDTH or width % 8):
        return f"flash-attn needs head dimensions of 8, 16, ..., {_MOST_WIDTH}, the model's is {width}"
    function, said = find_flash(device)
    return "" if function else said


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor,
    scale: float,
    window: int,
    softcap: float,
    sinks: Tensor | None,
) -> Tensor:
    """See `attend`, for one pool.

    Raises:
        RuntimeError: no package for this device.
    """
    function, said = find_flash(query.device)
    if function is None:
        raise RuntimeError(f"attention: flash: {said}")
    out = function(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        cache_seqlens=lengths.to(torch.int32),
        softmax_scale=scale,
        causal=True,
        window_size=(window - 1, 0) if window else (-1, -1),  # columns before the row's own
        **({"softcap": softcap} if softcap else {}),
        **({"return_softmax_lse": True} if sinks is not None else {}),
    )
    if sinks is None:
        return out
    # A column without a value takes its share of the weights, which the sum over the others tells: this needs
    # no kernel that knows sinks.
    out, lse = out[0], out[1]  # lse: [n, Hq, 1] float32
    share = torch.sigmoid(lse - sinks.float()[:, None])
    return (out * share.transpose(1, 2)[..., None]).to(query.dtype)
