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

KVCACHE = "flash_attn_with_kvcache"
_MOST_WIDTH = 256  # head dimension
# Module: what it is called, and major compute capabilities that it is used on; preferred ones first.
# FlashAttention 3 can be built without kernels for 8, and such a build ends the process when it is called.
_PACKAGES = {
    "flash_attn_interface": ("FlashAttention 3", range(9, 10)),
    "fa3_fwd_interface": ("FlashAttention 3 (forward only)", range(9, 10)),
    "flash_attn": ("FlashAttention 2", range(8, 100)),
}


def flash_packages(device: torch.device, name: str = KVCACHE) -> tuple[dict[str, str], str]:
    """Installed modules with a function for this device, best first.

    A build may still lack what a model needs: windows, soft caps, its head dimension.

    Args:
        device: a CUDA device.
        name: of the function.

    Returns:
        What each is called, by module; and what is wrong with the others.
    """
    major = torch.cuda.get_device_capability(device)[0]
    found, wrong = {}, []
    for module, (package, majors) in _PACKAGES.items():
        try:
            kernel(module, name)
        except ImportError as error:
            wrong.append(f"{module} cannot be imported ({error})")
        except AttributeError:
            wrong.append(f"{module} has no {name}")
        else:
            if major in majors:
                found[module] = package
            else:
                wrong.append(f"{package} is not used on compute capability {major}")
    return found, "; ".join(wrong)


@cache
def kernel(module: str, name: str = KVCACHE) -> Callable[..., Any]:
    """Its function of that name.

    Raises:
        ImportError: not installed, or built against another torch.
        AttributeError: it has none.
    """
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def flash_obstacle(device: torch.device, dtype: torch.dtype, width: int | None) -> str:
    """Why no kernel can serve; empty if one can, as far as can be told without a call.

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
    found, wrong = flash_packages(device)
    return "" if found else wrong


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor,
    scale: float,
    window: int,
    softcap: float,
    sinks: Tensor | None,
    module: str,
) -> Tensor:
    """What `attend` computes, for one pool.

    Args:
        module: whose kernel runs; the others are those of `attend`.

    Raises:
        ImportError, AttributeError: as `kernel`.
    """
    out = kernel(module)(
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
