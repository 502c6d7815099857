"""Attention over a packed batch of prompt trees, for unmodified Hugging Face models.

A packed batch is one sequence: every prompt once, then every completion. A completion attends to its own
prompt and, causally, to itself; a prompt attends causally to itself. `TreeLayout` holds which token belongs
where. The function below is registered under the name `TREE_ATTENTION`; a model whose attention
implementation is set to that name calls it with the layout that the forward call was given as `tree=`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elastic.models.serving import attention_set, exclusive
from elastic.train.update.layout import TreeLayout

TREE_ATTENTION = "elastic_tree"


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
    tree: TreeLayout | None = None,
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
        dropout: of the attention probabilities.
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
    if softcap is not None or s_aux is not None:
        raise ValueError(
            f"attention '{TREE_ATTENTION}': models with softcap or attention sinks are not supported"
        )
    tree.seen_by.append(module)
    q, k, v = (_ToSlots.apply(x[0].transpose(0, 1), tree) for x in (query, key, value))
    prompt_slots = tree.prompts * tree.prompt_width
    sizes = [prompt_slots, *(bucket.rows * bucket.width for bucket in tree.buckets)]
    parts = list(zip(q.split(sizes), k.split(sizes), v.split(sizes), strict=True))
    gqa = q.shape[1] != k.shape[1]
    masks = tree.masks(sliding_window)

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """[rows, positions, heads, D] each; returns the queries' slots flattened."""
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=gqa,
        )
        return out.transpose(1, 2).flatten(0, 1)

    outputs: list[Tensor] = []
    prompt_k = prompt_v = None
    if prompt_slots:
        pq, pk, pv = (x.unflatten(0, (tree.prompts, tree.prompt_width)) for x in parts[0])
        outputs.append(attend(pq, pk, pv, masks.prompts))
        prompt_k, prompt_v = pk, pv
    for bucket, mask, part in zip(tree.buckets, masks.buckets, parts[1:], strict=True):
        bq, bk, bv = (x.unflatten(0, (bucket.rows, bucket.width)) for x in part)
        if prompt_k is not None and prompt_v is not None and bucket.prompt_width:
            bk = torch.cat([prompt_k[:, : bucket.prompt_width].index_select(0, bucket.prompt), bk], dim=1)
            bv = torch.cat([prompt_v[:, : bucket.prompt_width].index_select(0, bucket.prompt), bv], dim=1)
        outputs.append(attend(bq, bk, bv, mask))
    return _FromSlots.apply(torch.cat(outputs), tree).unsqueeze(0), None


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
    while not hasattr(inner, "config"):
        inner = inner.module  # of DistributedDataParallel
    return bool(inner.config.get_text_config(decoder=True)._attn_implementation == TREE_ATTENTION)
