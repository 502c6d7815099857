"""Attention by lengths with torch's compiled flex_attention, for devices without flash-attn.

n rows, Hq query heads, H key/value heads, G = Hq / H, L columns, D head dimension.

The query heads of one key head go in as its G queries, so that any ratio of heads serves. Which blocks of
columns a row reads is made from its length by a few small ops, on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

_BLOCK = 128  # columns


@cache
def compiled(*variant: Any) -> Callable[..., Any]:
    """flex_attention, compiled on its own for each variant, numbers of rows and columns aside.

    One code object is compiled for eight cases, those of all models in the process together; from there on it
    would run uncompiled, and build all scores.
    """
    code = flex_attention.__code__.replace()
    own = FunctionType(code, flex_attention.__globals__, "flex_attention", flex_attention.__defaults__)
    own.__kwdefaults__ = flex_attention.__kwdefaults__
    return torch.compile(own)


def flex_obstacle(device: torch.device) -> str:
    """Why it cannot serve; empty if it can, as far as can be told without a call."""
    # The C++ kernel that torch 2.13 writes for a CPU does not compile once a size has changed.
    return "" if device.type == "cuda" else f"flex_attention needs a CUDA device, this is {device.type}"


def length_blocks(lengths: Tensor, columns: int, window: int, queries: int) -> BlockMask:
    """Blocks of columns that each row reads, and which columns of them.

    Args:
        lengths: [n] int32 or int64.
        columns: L.
        window: last columns of a row that it reads; 0 for all.
        queries: per row and key head; all read the same columns.
    """
    rows, count = lengths.shape[0], -(-columns // _BLOCK)
    first = (lengths - window).clamp(min=0) // _BLOCK if window else torch.zeros_like(lengths)
    number = (lengths - 1) // _BLOCK - first + 1
    index = first[:, None] + torch.arange(count, device=lengths.device)

    def read(row: Tensor, head: Tensor, query: Tensor, column: Tensor) -> Tensor:
        seen = column < lengths[row]
        return seen & (column >= lengths[row] - window) if window else seen

    return BlockMask.from_kv_blocks(
        number.view(rows, 1, 1).int(),
        index.clamp(max=count - 1).view(rows, 1, 1, count).int(),
        BLOCK_SIZE=_BLOCK,
        mask_mod=read,
        seq_lengths=(queries, columns),
        compute_q_blocks=False,
    )


def flex_by_lengths(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor,
    scale: float,
    window: int,
    softcap: float,
    sinks: Tensor | None,
) -> Tensor:
    """What `attend` computes, for one pool; the arguments are its."""
    rows, heads, _, width = query.shape
    packed = query.reshape(rows, key.shape[1], heads // key.shape[1], width)

    def capped(score: Tensor, row: Tensor, head: Tensor, query: Tensor, column: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    variant = bool(window), softcap, sinks is None, scale, packed.shape[1:], value.shape[3], query.dtype
    out = compiled(*variant)(
        packed,
        key,
        value,
        score_mod=capped if softcap else None,
        block_mask=length_blocks(lengths, key.shape[2], window, packed.shape[2]),
        scale=scale,
        return_aux=None if sinks is None else AuxRequest(lse=True),
    )
    if sinks is not None:  # as in flash.py
        out, aux = out
        share = torch.sigmoid(aux.lse - sinks.float().view(packed.shape[1:3]))
        out = (out * share[..., None]).to(query.dtype)
    return out.reshape(rows, 1, heads, value.shape[3])
