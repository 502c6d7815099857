"""SDPA over keys and values that lie in several pools, in the signature that transformers calls."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

POOLED_ATTENTION = "elastic_pools"


def pooled_attention(
    module: nn.Module,
    query: Tensor,
    key: Any,
    value: Any,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Each pool's rows attend to its own keys and values.

    Args:
        query: [n, Hq, 1, D].
        key, value: a list of [n_p, H, L_p, D], one per pool, n rows together; or one tensor, as in a prefill.
        attention_mask: [n, 1, 1, L] of at least the longest pool's columns.

    Returns:
        ([n, 1, Hq, D], None).
    """
    if isinstance(key, Tensor):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    queries = query.split([k.shape[0] for k in key])
    masks = [None] * len(key) if attention_mask is None else attention_mask.split([len(q) for q in queries])
    outputs = [
        sdpa_attention_forward(module, q, k, v, None if m is None else m[..., : k.shape[2]], **options)[0]
        for q, k, v, m in zip(queries, key, value, masks, strict=True)
    ]
    return torch.cat(outputs), None


AttentionInterface.register(POOLED_ATTENTION, pooled_attention)
AttentionMaskInterface.register(POOLED_ATTENTION, sdpa_mask)
