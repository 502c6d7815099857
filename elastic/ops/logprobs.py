"""Logprob and entropy of tokens from logits, without an [N, V] logprob tensor."""

from typing import Any

import torch
from torch import Tensor

from elastic.ops._autograd import first_order, refuse_transforms
from elastic.ops._inputs import check_tensor, checked, compute_dtype, kept_sets, number, split_temperature


def token_logprobs(
    logits: Tensor,
    targets: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    softcap: float | None = None,
    kept_ids: Tensor | None = None,
    kept_offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Logprob of each row's target and entropy of each row's distribution, both differentiable.

    With z = logits / temperature, or softcap tanh(logits / softcap) / temperature: logprob = z[target] -
    logsumexp(z), entropy = -sum p log p in nats. An id of probability zero (logit -inf and no softcap) adds
    nothing. Everything is relative to the row's largest logit, so that neither an offset nor the size of
    finite logits costs digits. Logits are read once forward, and once backward, which writes the gradient in
    their dtype. Computed in float32 (float64 for float64 logits); logprobs are never above 0; deterministic.

    A token with a kept set (`kept_ids`) has its distribution among these ids alone, as if all other logits
    were -inf behind the soft cap: the distribution that top-k, top-p or min-p left when it was sampled
    ("keep sampling mask", DeepSeek-V3.2, arXiv 2512.02556, section 3.1). Other ids have gradient 0, and only
    the kept logits are read.

    Args:
        logits: [N, V] float32, bfloat16 or float16, CPU or CUDA (float64 too on the CPU). Rows may be
            strided, the last stride must be 1. N and V below 2^31, their product as large as memory.
        targets: [N] int64 in [0, V).
        temperature: above 0; a number or a tensor without dimensions, or [N] numbers.
        softcap: above 0; the bound of the logits in models that cap them (Gemma 2, arXiv 2408.00118).
        kept_ids: [M] int32, the kept sets end to end: a token's ids ascend and hold its target.
        kept_offsets: [N + 1] int64, from 0 to M; token t has the ids kept_offsets[t] up to
            kept_offsets[t + 1]. A token without ids has the whole vocabulary. Together with `kept_ids`.

    Returns:
        logprobs [N] and entropy [N], float32 (float64 for float64 logits). N = 0 gives empty tensors. A row
        with NaN, +inf or nothing but -inf gives NaN.

    Raises:
        TypeError: a wrong type or dtype.
        ValueError: wrong shape, stride or device, temperature or softcap outside [1e-30, 1e30], or (CPU) an
            id out of range or a target outside of its kept set. On CUDA contents are not read back: a bad
            target makes its logprob NaN, a bad temperature, kept id or offset its logprob and entropy.
        RuntimeError: a derivative that does not exist: second, forward-mode, torch.func but vmap.
    """
    op = "token_logprobs"
    check_tensor(op, "logits", logits, logits)
    refuse_transforms(op, logits, vmap=True)
    targets = checked(op, "targets", targets, logits)
    scalar, per_token = split_temperature(op, logits, temperature)
    softcap = None if softcap is None else number(op, "softcap", softcap)
    kept = kept_sets(op, kept_ids, kept_offsets, logits)
    logprobs, entropy, *_ = torch.ops.elastic.token_logprobs(
        logits, targets, scalar, per_token, softcap, *kept
    )
    return logprobs, entropy


@torch.library.register_fake("elastic::token_logprobs")
def _(
    logits: Tensor,
    targets: Tensor,
    temperature: float,
    temperatures: Tensor | None = None,
    softcap: float | None = None,
    *kept: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def out() -> Tensor:
        return logits.new_empty(logits.shape[0], dtype=compute_dtype(logits))

    return out(), out(), out(), out()


@torch.library.register_fake("elastic::token_logprobs_backward")
def _(
    logits: Tensor,
    targets: Tensor,
    maximum: Tensor,
    log_sum: Tensor,
    entropy: Tensor,
    grad_logprobs: Tensor | None,
    grad_entropy: Tensor | None,
    temperature: float,
    temperatures: Tensor | None = None,
    softcap: float | None = None,
    *kept: Tensor | None,
) -> Tensor:
    return logits.new_empty(logits.shape)


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    logits, targets, ctx.temperature, temperatures, ctx.softcap, *kept = inputs
    _, entropy, maximum, log_sum = output
    ctx.save_for_backward(logits, targets, maximum, log_sum, entropy, temperatures, *kept)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(maximum, log_sum)


def _backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None, *_: None) -> tuple:
    gradient = None
    if ctx.needs_input_grad[0] and (grad_logprobs is not None or grad_entropy is not None):
        logits, targets, maximum, log_sum, entropy, temperatures, *kept = ctx.saved_tensors
        with torch.no_grad():
            gradient = torch.ops.elastic.token_logprobs_backward(
                logits,
                targets,
                maximum,
                log_sum,
                entropy,
                None if grad_logprobs is None else grad_logprobs.contiguous(),
                None if grad_entropy is None else grad_entropy.contiguous(),
                ctx.temperature,
                temperatures,
                ctx.softcap,
                *kept,
            )
        gradient = first_order("token_logprobs", gradient, logits, grad_logprobs, grad_entropy)
    return gradient, *[None] * 6


torch.library.register_autograd("elastic::token_logprobs", _backward, setup_context=_save)
