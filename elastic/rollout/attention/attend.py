"""The op of a decode step's attention: one new token per row, over the columns that its length says.

n rows, Hq query heads, H key/value heads, D width of queries and keys, D' of values; pool p has S_p rows in
use and L_p columns.

One opaque op, so that torch.compile has no reason to break the graph: the kernels behind it are foreign
extensions, or compiled on their own. Lengths stay on the device, so a captured step serves every step.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from elastic.rollout.attention.flash import flash_attention
from elastic.rollout.attention.flex import flex_by_lengths
from elastic.rollout.attention.masked import by_pool, length_mask, masked_attention


def _by_mask(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor,
    scale: float,
    window: int,
    softcap: float,
    sinks: Tensor | None,
) -> Tensor:
    mask = length_mask(lengths, key.shape[2], window, query.dtype)
    return masked_attention(query, key, value, mask, scale, softcap, sinks)


def _run(backend: str) -> Callable[..., Tensor]:
    kind, _, module = backend.partition(":")
    found: dict[str, Callable[..., Tensor]] = {
        "flash": partial(flash_attention, module=module),
        "flex": flex_by_lengths,
        "sdpa": _by_mask,
    }
    if kind not in found or bool(module) != (kind == "flash"):
        raise ValueError(f"backend: expected flash:MODULE, flex or sdpa, got {backend!r}")
    return found[kind]


@torch.library.custom_op("elastic_rollout::attend", mutates_args=())
def attend(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    lengths: Tensor,
    scale: float,
    window: int,
    softcap: float,
    sinks: Tensor | None,
    backend: str,
) -> Tensor:
    """softmax(scale * q k) v of each row over its own columns; keys and values are not repeated over heads.

    Args:
        query: [n, Hq, 1, D] float, any strides.
        keys: of each pool [S_p, H, L_p, D]; rows 0 .. S_0 - 1 of the query belong to pool 0, the next S_1 to
            pool 1, and so on. Views of larger slots will do, where the last dimension is contiguous.
        values: of each pool [S_p, H, L_p, D'].
        lengths: [n] int32 or int64: row i reads columns 0 .. lengths[i] - 1, at least one. What stands in
            columns behind must be finite.
        scale: of the scores.
        window: a row reads only the last so many of its columns; 0 for all.
        softcap: scores become softcap * tanh(score / softcap); 0 for none.
        sinks: [Hq] scores of a column without a value that every row attends to besides, or None.
        backend: "flash:" and the module of its kernel, "flex" or "sdpa"; the last makes a mask in each call.

    Returns:
        [n, 1, Hq, D'] contiguous, of the query's dtype.

    Raises:
        ValueError: shapes that do not fit, or another backend.
        ImportError: flash whose module is not installed.
    """
    _check(query, keys, values, lengths)
    run = _run(backend)

    def of_rows(rows: slice, key: Tensor, value: Tensor) -> Tensor:
        return run(query[rows], key, value, lengths[rows], scale, window, softcap, sinks)

    parts = by_pool(keys, values, of_rows)
    if not parts:
        return _out(query, values)
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts)


@attend.register_fake
def _(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    lengths: Tensor,
    scale: float,
    window: int,
    softcap: float,
    sinks: Tensor | None,
    backend: str,
) -> Tensor:
    _check(query, keys, values, lengths)
    return _out(query, values)


def _out(query: Tensor, values: Sequence[Tensor]) -> Tensor:
    return query.new_empty(query.shape[0], 1, query.shape[1], values[0].shape[3])


def _check(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], lengths: Tensor) -> None:
    if query.ndim != 4 or query.shape[2] != 1:
        raise ValueError(f"query: expected [n, heads, 1, width], one token per row, got {list(query.shape)}")
    rows, heads, _, width = query.shape
    if not len(keys) or len(keys) != len(values):
        raise ValueError(f"keys, values: expected one of each per pool, got {len(keys)} and {len(values)}")
    for key, value in zip(keys, values, strict=True):
        if key.ndim != 4 or key.shape[:3] != value.shape[:3] or key.shape[3] != width:
            raise ValueError(
                f"keys, values: expected [rows, heads, columns, width] alike, keys of the query's width "
                f"{width}, got {list(key.shape)} and {list(value.shape)}"
            )
        if heads % key.shape[1]:
            raise ValueError(f"query: expected a multiple of the {key.shape[1]} key heads, got {heads} heads")
    served = sum(key.shape[0] for key in keys)
    if served != rows or lengths.shape != (rows,):
        raise ValueError(
            f"keys, lengths: expected {rows} rows, as the query has, got {served} and {list(lengths.shape)}"
        )
