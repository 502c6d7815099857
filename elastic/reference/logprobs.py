"""Logprobs and entropy in plain PyTorch, differentiable by autograd: the same as `elastic.ops`, unchecked.

N tokens, V vocabulary, H width. Computed in the dtype that comes in, 16-bit logits in float32.
"""

import torch
from torch import Tensor


def token_logprobs(
    logits: Tensor,
    targets: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    softcap: float | None = None,
    kept_ids: Tensor | None = None,
    kept_offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """[N] logprob of each target and [N] entropy of each row."""
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if kept_ids is not None and kept_offsets is not None:
        logits = logits.masked_fill(~kept_mask(kept_ids, kept_offsets, logits.shape[1]), -torch.inf)
    if isinstance(temperature, Tensor):
        temperature = temperature.to(logits).reshape(-1, 1)
    logprobs = torch.log_softmax(logits / temperature, dim=-1)
    # log p is -inf where p is 0; replacing it keeps 0 * -inf out of the value and of the gradient
    finite = torch.where(logprobs == -torch.inf, 0.0, logprobs)
    return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * finite).sum(-1)


def kept_mask(kept_ids: Tensor, kept_offsets: Tensor, vocab: int) -> Tensor:
    """[N, vocab] bool: which ids a token's distribution has; all where its kept set is empty."""
    sizes = kept_offsets.diff()
    mask = (sizes == 0)[:, None].repeat(1, vocab)
    token = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    mask[token, kept_ids.long()] = True
    return mask


def linear_token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    kept_ids: Tensor | None = None,
    kept_offsets: Tensor | None = None,
    chunk_tokens: int | None = None,
) -> tuple[Tensor, Tensor]:
    """See `elastic.ops.linear_token_logprobs`; `chunk_tokens` changes nothing here."""
    logits = torch.nn.functional.linear(hidden, weight, bias)
    kept = {"kept_ids": kept_ids, "kept_offsets": kept_offsets}
    return token_logprobs(logits, targets, temperature, softcap=softcap, **kept)
