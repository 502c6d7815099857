"""Attention of one token per row, row by row and head by head in float64; and a flash-attn of it."""

from types import SimpleNamespace

import torch


def oracle(query, keys, values, lengths, scale, window=0, softcap=0.0, sinks=None):
    """[n, 1, Hq, D] float64, and the log of the sums of exponentials [n, Hq]; arguments as of `attend`."""
    rows = [(key, value, row) for key, value in zip(keys, values, strict=True) for row in range(len(key))]
    heads = query.shape[1]
    out = torch.zeros(len(rows), 1, heads, values[0].shape[3], dtype=torch.float64)
    sums = torch.zeros(len(rows), heads, dtype=torch.float64)
    for n, (key, value, row) in enumerate(rows):
        length = int(lengths[n])
        read = slice(max(0, length - window) if window else 0, length)
        for head in range(heads):
            group = head * key.shape[1] // heads
            scores = key[row, group, read].double() @ query[n, head, 0].double() * scale
            if softcap:
                scores = softcap * (scores / softcap).tanh()
            total = scores.exp().sum()
            if sinks is not None:
                total = total + sinks[head].double().exp()
            out[n, 0, head] = (scores.exp() / total) @ value[row, group, read].double()
            sums[n, head] = scores.exp().sum().log()
    return out, sums


class FlashStandIn(SimpleNamespace):
    """`flash_attn_with_kvcache` as its documentation has it: checks what it is given and notes the calls."""

    def __init__(self):
        super().__init__(calls=[])

    def flash_attn_with_kvcache(
        self,
        q,
        k_cache,
        v_cache,
        *,
        cache_seqlens,
        softmax_scale,
        causal,
        window_size,
        softcap=0.0,
        return_softmax_lse=False,
    ):
        rows, tokens, heads, width = q.shape
        assert tokens == 1
        assert causal
        assert cache_seqlens.dtype == torch.int32
        assert k_cache.shape[:3] == v_cache.shape[:3]
        assert k_cache.shape[0] == rows
        assert k_cache.shape[3] == width
        assert heads % k_cache.shape[2] == 0
        for tensor in (q, k_cache, v_cache):
            assert tensor.stride(3) == 1
        left, right = window_size
        assert right == (-1 if left < 0 else 0)
        self.calls.append((tuple(k_cache.shape), k_cache.data_ptr(), cache_seqlens.tolist(), window_size))
        heads_first = [x.transpose(1, 2) for x in (q, k_cache, v_cache)]
        out, sums = oracle(
            heads_first[0], *([x] for x in heads_first[1:]), cache_seqlens, softmax_scale, left + 1, softcap
        )
        out = out.to(q.dtype)
        return (out, sums[:, :, None].float(), None) if return_softmax_lse else out
