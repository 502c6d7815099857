"""Attention over a packed batch of prompt trees, for unmodified Hugging Face models.

A packed batch is one sequence: every prompt once, then every completion. A completion attends to its own
prompt and, causally, to itself; a prompt attends causally to itself. `TreeLayout` says who is who. The
function below is registered under the name `TREE_ATTENTION`; a model whose attention implementation is
set to that name calls it with the layout that the forward call was given as `tree=`.

Only attention is padded: completions are sorted by length into buckets, and one fused
`scaled_dot_product_attention` call serves a bucket. Everything else in the model sees no padding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elastic.rollout.serving import attention_set, exclusive

TREE_ATTENTION = "elastic_tree"

# A bucket grows while the attention cells (queries x keys) that padding adds stay below this share.
# Forward + backward of 192 completions of 30-104 tokens, hidden 128: 680 ms at 0.1, 693 at 0.2, 795 at 0.5.
_MAX_PADDING_SHARE = 0.1
# ... and while it stays below this many cells a head: longer rows fill a call by themselves.
_MAX_BUCKET_CELLS = 1 << 22


@dataclass(frozen=True)
class Bucket:
    """Completions that share one attention call.

    Attributes:
        first_slot: where its queries start among all slots.
        rows: how many completions.
        width: query positions of each, the longest completion's length.
        prompt: [rows] int64, the prompt of each.
        prompt_width: prompt key positions of each, the longest prompt's length.
        mask: [rows or 1, 1, width, prompt_width + width] bool, True where a query sees a key.
    """

    first_slot: int
    rows: int
    width: int
    prompt: Tensor
    prompt_width: int
    mask: Tensor


@dataclass(frozen=True)
class TreeLayout:
    """Where the tokens of a packed batch stand in the padded attention calls.

    A slot is a (row, position) of a padded call; slots of prompts come first, then bucket after bucket.

    Attributes:
        token_of_slot: [S] int64, padding slots point at some token.
        slot_of_token: [M] int64, the one slot of each packed token.
        padding_slots: [S'] int64, the slots without a token.
        prompts: number of prompts.
        prompt_width: query positions of each prompt, 0 where no prompt has a shared token.
        buckets: the completions' calls.
        longest: most positions any query can see, its own included.
    """

    token_of_slot: Tensor
    slot_of_token: Tensor
    padding_slots: Tensor
    prompts: int
    prompt_width: int
    buckets: tuple[Bucket, ...]
    longest: int

    @classmethod
    def build(
        cls, prompt_lengths: list[int], lengths: list[int], prompt_of: list[int], device: torch.device
    ) -> "TreeLayout":
        """Lays out prompts (in order), then completions (in order), as they stand in the packed sequence.

        Args:
            prompt_lengths: shared tokens of each prompt, 0 is legal.
            lengths: packed tokens of each completion, at least 1.
            prompt_of: index of each completion's prompt.
            device: where the model is.
        """
        prompt_width = max(prompt_lengths, default=0)
        blocks = [_slots(prompt_lengths, _starts(prompt_lengths, 0), prompt_width)]
        starts = _starts(lengths, sum(prompt_lengths))
        buckets: list[Bucket] = []
        first_slot = blocks[0].numel()
        for rows in _bucket_rows(prompt_lengths, lengths, prompt_of):
            width = max(lengths[row] for row in rows)
            prompts = [prompt_of[row] for row in rows]
            widths = [prompt_lengths[prompt] for prompt in prompts]
            blocks.append(_slots([lengths[row] for row in rows], [starts[row] for row in rows], width))
            buckets.append(
                Bucket(
                    first_slot=first_slot,
                    rows=len(rows),
                    width=width,
                    prompt=torch.tensor(prompts, device=device),
                    prompt_width=max(widths),
                    mask=_mask(widths, width).to(device),
                )
            )
            first_slot += len(rows) * width
        token_of_slot = torch.cat(blocks)
        padding_slots = (token_of_slot < 0).nonzero()[:, 0]
        slot_of_token = torch.empty(sum(prompt_lengths) + sum(lengths), dtype=torch.int64)
        used = (token_of_slot >= 0).nonzero()[:, 0]
        slot_of_token[token_of_slot[used]] = used
        longest = max((prompt_lengths[p] + n for p, n in zip(prompt_of, lengths, strict=True)), default=0)
        return cls(
            token_of_slot.clamp(min=0).to(device),
            slot_of_token.to(device),
            padding_slots.to(device),
            len(prompt_lengths),
            prompt_width,
            tuple(buckets),
            longest,
        )


def _starts(lengths: list[int], first: int) -> list[int]:
    starts = []
    for length in lengths:
        starts.append(first)
        first += length
    return starts


def _slots(lengths: list[int], starts: list[int], width: int) -> Tensor:
    """[rows * width] int64: packed token of each slot, -1 behind a row's end."""
    column = torch.arange(width)
    tokens = torch.tensor(starts, dtype=torch.int64)[:, None] + column
    return tokens.masked_fill(column >= torch.tensor(lengths, dtype=torch.int64)[:, None], -1).flatten()


def _bucket_rows(prompt_lengths: list[int], lengths: list[int], prompt_of: list[int]) -> list[list[int]]:
    """Rows of similar length together, longest first."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], -prompt_lengths[prompt_of[row]]))
    result: list[list[int]] = []
    needed, width, prompt_width = 0, 0, 0
    for row in order:
        length, prompt_length = lengths[row], prompt_lengths[prompt_of[row]]
        own = length * (prompt_length + length)
        if result:
            widest = max(prompt_width, prompt_length)
            cells = (len(result[-1]) + 1) * width * (widest + width)
            if cells <= _MAX_BUCKET_CELLS and cells * (1 - _MAX_PADDING_SHARE) <= needed + own:
                result[-1].append(row)
                needed, prompt_width = needed + own, widest
                continue
        result.append([row])
        needed, width, prompt_width = own, length, prompt_length
    return result


def _mask(prompt_widths: list[int], width: int) -> Tensor:
    """[rows or 1, 1, width, widest prompt + width] bool; one row where all prompts are equally long."""
    widest = max(prompt_widths)
    distinct = prompt_widths if len(set(prompt_widths)) > 1 else prompt_widths[:1]
    prompt = torch.arange(widest) < torch.tensor(distinct)[:, None]
    own = torch.ones(width, width, dtype=torch.bool).tril()
    return torch.cat(
        [prompt[:, None].expand(-1, width, -1), own.expand(len(distinct), -1, -1)], dim=2
    ).unsqueeze(1)


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
        module: the attention layer; unused.
        query: [1, Hq, M, D] float, rotary embedding applied.
        key: [1, Hkv, M, D] float.
        value: [1, Hkv, M, D'] float.
        attention_mask: must be None: the layout is the mask.
        tree: the layout of the M tokens, passed through the model's forward call.
        scaling: of the scores.
        dropout: of the attention probabilities.
        sliding_window: of the layer; accepted while no query sees further than the window.
        softcap: refused, as is ``s_aux``: the fused call cannot apply them.

    Returns:
        ([1, M, Hq, D'], None).

    Raises:
        ValueError: no layout, a mask beside it, or a layer that needs more than plain causal attention.
    """
    if tree is None:
        raise ValueError(f"attention '{TREE_ATTENTION}' needs the packed batch's layout as tree=")
    if attention_mask is not None:
        raise ValueError(f"attention '{TREE_ATTENTION}': attention_mask must be None, the layout masks")
    if softcap is not None or s_aux is not None:
        raise ValueError(
            f"attention '{TREE_ATTENTION}': models with softcap or attention sinks are not supported"
        )
    if sliding_window is not None and tree.longest > sliding_window:
        raise ValueError(
            f"attention '{TREE_ATTENTION}': a row has {tree.longest} tokens, more than the layer's "
            f"sliding window of {sliding_window}"
        )
    q, k, v = (_ToSlots.apply(x[0].transpose(0, 1), tree) for x in (query, key, value))
    prompt_slots = tree.prompts * tree.prompt_width
    sizes = [prompt_slots, *(bucket.rows * bucket.width for bucket in tree.buckets)]
    parts = list(zip(q.split(sizes), k.split(sizes), v.split(sizes), strict=True))
    gqa = q.shape[1] != k.shape[1]

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
        outputs.append(attend(pq, pk, pv, None))
        prompt_k, prompt_v = pk, pv
    for bucket, part in zip(tree.buckets, parts[1:], strict=True):
        bq, bk, bv = (x.unflatten(0, (bucket.rows, bucket.width)) for x in part)
        if prompt_k is not None and prompt_v is not None and bucket.prompt_width:
            bk = torch.cat([prompt_k[:, : bucket.prompt_width].index_select(0, bucket.prompt), bk], dim=1)
            bv = torch.cat([prompt_v[:, : bucket.prompt_width].index_select(0, bucket.prompt), bv], dim=1)
        outputs.append(attend(bq, bk, bv, bucket.mask))
    return _FromSlots.apply(torch.cat(outputs), tree).unsqueeze(0), None


@contextmanager
def tree_attention_of(model: nn.Module) -> Iterator[None]:
    """Sets `model`'s attention implementation to the tree attention for the duration of the block.

    The block must enclose the backward pass too: gradient checkpointing runs the forward again there.
    The model is this thread's alone meanwhile, and has its own implementation again afterwards.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(TREE_ATTENTION, tree_attention)
    with exclusive(model), attention_set(model, TREE_ATTENTION):
        yield
