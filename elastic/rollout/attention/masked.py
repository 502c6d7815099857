"""Attention of one new token per row under an additive mask, in plain torch.

n rows, Hq query heads, H key/value heads, G = Hq / H, L columns, D width of queries and keys, D' of values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def by_pool(
    keys: Sequence[Tensor], values: Sequence[Tensor], run: Callable[[slice, Tensor, Tensor], Tensor]
) -> list[Tensor]:
    """Each pool's attention, as `run(rows, key, value)` gives it; rows are numbered pool by pool.

    Args:
        keys, values: of each pool [S_p, H, L_p, D] and [S_p, H, L_p, D']; pools without rows are left out.
    """
    parts, begin = [], 0
    for key, value in zip(keys, values, strict=True):
        rows = slice(begin, begin + key.shape[0])
        begin = rows.stop
        if key.shape[0]:
            parts.append(run(rows, key, value))
    return parts


def length_mask(lengths: Tensor, columns: int, window: int, dtype: torch.dtype) -> Tensor:
    """[n, 1, 1, L] of `dtype`: 0 where a row may read, -inf elsewhere.

    Additive, in the keys' dtype: SDPA would convert a boolean mask again in every layer.

    Args:
        lengths: [n] int32 or int64, columns that each row has, its new token's included; at least 1.
        columns: L.
        window: a row reads the last so many of its columns; 0 for all.
    """
    column = torch.arange(columns, device=lengths.device)
    hidden = column >= lengths[:, None]
    if window:
        hidden |= column < lengths[:, None] - window
    mask = torch.zeros(hidden.shape, dtype=dtype, device=lengths.device)
    return mask.masked_fill_(hidden, -torch.inf)[:, None, None]


def masked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scale: float,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention under an additive mask, for one pool.

    The query heads of one key head go in as its queries, so that keys and values are not repeated.

    Args:
        query: [n, Hq, 1, D].
        key: [n, H, L, D].
        value: [n, H, L, D'].
        mask: [n, 1 or Hq, 1, L], added to the scores.
        scale: of the scores.
        softcap: scores become softcap * tanh(score / softcap); 0 for none. Before the mask, as in Gemma 2.
        sinks: [Hq] scores of a column without a value that every row attends to besides (gpt-oss).

    Returns:
        [n, 1, Hq, D'].
    """
    rows, heads, _, width = query.shape
    packed = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
    if mask.shape[1] != 1:
        mask = mask.reshape(*packed.shape[:3], mask.shape[3])
    if not softcap and sinks is None:
        out = F.scaled_dot_product_attention(packed, key, value, attn_mask=mask, scale=scale)
    else:
        scores = (packed @ key.transpose(2, 3)).float() * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        scores = scores + mask
        if sinks is not None:
            sink = sinks.to(scores.dtype).view(1, *packed.shape[1:3], 1).expand(rows, -1, -1, 1)
            scores = torch.cat([scores, sink], dim=-1)
        weights = scores.softmax(dim=-1)[..., : key.shape[2]].to(value.dtype)
        out = weights @ value
    return out.reshape(rows, 1, heads, value.shape[3])
