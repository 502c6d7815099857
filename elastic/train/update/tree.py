"""Attention over a packed batch of prompt trees, for unmodified Hugging Face models.

A packed batch is one sequence: every prompt once, then every completion. A completion attends to its own
prompt and, causally, to itself; a prompt attends causally to itself. `TreeLayout` holds which token belongs
where. The function below is registered under the name `TREE_ATTENTION`; a model whose attention
implementation is set to that name calls it with the layout that the forward call was given as `tree=`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elastic.models.serving import attention_set, exclusive
from elastic.train.update.layout import TreeLayout
from elastic.train.update.varlen import VarlenLayout

TREE_ATTENTION = "elastic_tree"
_LEAST_PIECE = 1024  # queries of a call where a window is shorter


class _ToSlots(torch.autograd.Function):
    """Packed tokens [M, ...] -> slots [S, ...]. The backward is a gather too: a token has one slot."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, layout: TreeLayout) -> Tensor:
        ctx.layout = layout
        return tokens.index_select(0, layout.token_of_slot)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.index_select(0, ctx.layout.slot_of_token), None


class _FromSlots(torch.autograd.Function):
    """Slots [S, ...] -> packed tokens [M, ...]; padding slots get no gradient."""

    @staticmethod
    def forward(ctx: Any, slots: Tensor, layout: TreeLayout) -> Tensor:
        ctx.layout = layout
        return slots.index_select(0, layout.slot_of_token)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        slots = grad.index_select(0, ctx.layout.token_of_slot)
        return slots.index_fill_(0, ctx.layout.padding_slots, 0), None


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    tree: TreeLayout | VarlenLayout | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed batch of prompt trees, in the signature transformers calls.

    Args:
        module: the attention layer; the layout notes it.
        query: [1, Hq, M, D] float, rotary embedding applied.
        key: [1, Hkv, M, D] float.
        value: [1, Hkv, M, D'] float.
        attention_mask: must be None: the layout is the mask.
        tree: the layout of the M tokens, passed through the model's forward call.
        scaling: of the scores.
        dropout: of the attention probabilities; must be 0, as updates run without.
        sliding_window: positions that a token of this layer sees, its own included; None for all.
        softcap: refused, as is ``s_aux``: the fused call cannot apply them.

    Returns:
        ([1, M, Hq, D'], None).

    Raises:
        ValueError: no layout, a mask beside it, or a layer that needs a soft cap or attention sinks.
    """
    if tree is None:
        raise ValueError(f"attention '{TREE_ATTENTION}' needs the packed batch's layout as tree=")
    if attention_mask is not None:
        raise ValueError(f"attention '{TREE_ATTENTION}': attention_mask must be None, the layout masks")
    if dropout:
        raise ValueError(f"attention '{TREE_ATTENTION}': dropout must be 0, got {dropout}")
    if softcap is not None or s_aux is not None:
        raise ValueError(
            f"attention '{TREE_ATTENTION}': models with softcap or attention sinks are not supported"
        )
    tree.seen_by.append(module)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    window = sliding_window if sliding_window is not None and sliding_window < tree.longest else None
    if isinstance(tree, VarlenLayout):
        out = tree.attend(q, k, v, scaling, window)
    else:
        out = _attend(tree, q, k, v, scaling, window)
    return out.unsqueeze(0), None


def _attend(
    tree: TreeLayout, q: Tensor, k: Tensor, v: Tensor, scaling: float | None, window: int | None
) -> Tensor:
    """[M, Hq, D'] from [M, Hq, D], [M, Hkv, D] and [M, Hkv, D']: a call for the prompts, one a bucket."""
    masks = tree.masks(window)
    q, k, v = (_ToSlots.apply(x, tree) for x in (q, k, v))
    prompt_slots = tree.prompts * tree.prompt_width
    sizes = [prompt_slots, *(bucket.rows * bucket.width for bucket in tree.buckets)]
    parts = list(zip(q.split(sizes), k.split(sizes), v.split(sizes), strict=True))
    outputs: list[Tensor] = []
    prompts = [x.unflatten(0, (tree.prompts, tree.prompt_width)) for x in parts[0]] if prompt_slots else []
    if prompts:
        outputs.append(_fused(prompts, masks.prompts, scaling))
    for bucket, mask, part in zip(tree.buckets, masks.buckets, parts[1:], strict=True):
        own = [x.unflatten(0, (bucket.rows, bucket.width)) for x in part]
        if prompts and bucket.prompt_width:
            seen = [x[:, : bucket.prompt_width].index_select(0, bucket.prompt) for x in prompts]
            whole = [torch.cat(pair, dim=1) for pair in zip(seen, own, strict=True)]
            own = [whole[0] if mask is None else own[0], *whole[1:]]
        out = (
            _fused(own, mask, scaling) if mask is not None or window is None else _local(own, window, scaling)
        )
        outputs.append(out[-bucket.rows * bucket.width :])  # where the prompt asked too, it came first
    return _FromSlots.apply(torch.cat(outputs), tree)


def _fused(qkv: Sequence[Tensor], mask: Tensor | None, scaling: float | None) -> Tensor:
    """Attention of [rows, positions, heads, D] each, causal without a mask; the queries' slots flattened."""
    q, k, v = (x.transpose(1, 2) for x in qkv)
    groups = q.shape[1] // k.shape[1]
    if groups > 1 and q.is_cuda and not (mask is None and _narrow(q)):
        # There only flash shares keys among heads; else torch would compute all scores as one tensor.
        k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    out = F.scaled_dot_product_attention(
        *(q, k, v), mask, is_causal=mask is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
    )
    return out.transpose(1, 2).flatten(0, 1)


def _local(qkv: Sequence[Tensor], window: int, scaling: float | None) -> Tensor:
    """`_fused` of one row whose tokens see `window` positions, in pieces with a small mask each."""
    outputs, tokens, piece = [], qkv[0].shape[1], max(window, _LEAST_PIECE)
    for first in range(0, tokens, piece):
        last, start = min(first + piece, tokens), max(0, first - window + 1)
        places = torch.arange(start, last, device=qkv[0].device)
        ahead = places[first - start :, None] - places
        part = [qkv[0][:, first:last], *(x[:, start:last] for x in qkv[1:])]
        outputs.append(_fused(part, (ahead >= 0) & (ahead < window), scaling))
    return torch.cat(outputs)


def _narrow(tensor: Tensor) -> bool:
    """Whether attention is computed in 16 bits."""
    kind = tensor.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype
    return dtype.itemsize == 2


@contextmanager
def switched(model: nn.Module) -> Iterator[None]:
    """Sets `model`'s attention implementation to the tree attention for the duration of the block."""
    from transformers import AttentionInterface

    AttentionInterface.register(TREE_ATTENTION, tree_attention)
    with exclusive(model), attention_set(model, TREE_ATTENTION):
        yield


def is_switched(model: nn.Module) -> bool:
    """Whether a forward pass of `model`, or of what it wraps, runs under the tree attention."""
    inner: Any = model
    while not hasattr(getattr(inner, "config", None), "get_text_config"):
        inner = inner.module  # of DistributedDataParallel, or of DeepSpeed's engine
    return bool(inner.config.get_text_config(decoder=True)._attn_implementation == TREE_ATTENTION)
