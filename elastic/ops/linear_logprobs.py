"""Logprob and entropy of tokens from hidden states and the language-model head, without [N, V] logits."""

from typing import Any

import torch
from torch import Tensor

from elastic.ops._autograd import first_order
from elastic.ops._head import chunk_size, head_operands
from elastic.ops._inputs import checked, compute_dtype, kept_sets, number, split_temperature


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
    """`token_logprobs(hidden @ weight.T + bias, ...)` in chunks of tokens, forward and backward.

    Memory besides the results is one chunk of logits, `chunk_tokens` x V, whatever N is; backward() computes
    a chunk's logits again and takes a second chunk for their gradient (and [V, H] float32 where the weight's
    gradient is summed over 16-bit chunks). Forward takes one matrix product; backward takes one, and one more
    for each of hidden states and weight that needs a gradient. Operands keep their dtype; products accumulate
    in float32, and so does the weight's gradient over chunks (on the CPU each 16-bit chunk is rounded once).

    The host never waits. Results do not depend on `chunk_tokens` beyond rounding, as `linear_grpo_loss`'s.
    Deterministic where torch's matrix products are.

    Args:
        hidden: [N, H] float32, bfloat16 or float16, CPU or CUDA (float64 too on the CPU); any strides. Row t
            predicts targets[t]. float16 products are slow on most CPUs.
        weight: [V, H] in hidden's dtype. Under autocast hidden, weight and bias are cast as F.linear's are,
            float64 stays.
        targets: [N] int64 in [0, V).
        temperature: above 0; a number or a tensor without dimensions, or [N] numbers.
        bias: [V] in hidden's dtype; any stride.
        softcap: above 0; logits become softcap tanh(logits / softcap) before the temperature.
        kept_ids, kept_offsets: as `token_logprobs` takes them.
        chunk_tokens: tokens per chunk, at least 1. None: 4096; in backward as `linear_grpo_loss` has it.

    Returns:
        logprobs [N] and entropy [N], as `token_logprobs`; both differentiable in hidden, weight and bias.

    Raises:
        TypeError: a wrong type or dtype, weight's or bias's is not hidden's.
        ValueError: wrong shape or device, chunk_tokens < 1, and what `token_logprobs` raises.
        RuntimeError: a derivative that does not exist: second, forward-mode, torch.func.
    """
    op = "linear_token_logprobs"
    hidden, weight, bias = head_operands(op, hidden, weight, bias)
    targets = checked(op, "targets", targets, hidden)
    scalar, per_token = split_temperature(op, hidden, temperature)
    softcap = None if softcap is None else number(op, "softcap", softcap)
    kept = kept_sets(op, kept_ids, kept_offsets, hidden)
    chunk = chunk_size(op, chunk_tokens)
    logprobs, entropy, *_ = torch.ops.elastic.linear_token_logprobs(
        hidden, weight, bias, targets, scalar, per_token, softcap, *kept, chunk
    )
    return logprobs, entropy


@torch.library.register_fake("elastic::linear_token_logprobs")
def _(hidden: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return tuple(hidden.new_empty(hidden.shape[0], dtype=compute_dtype(hidden)) for _ in range(4))


@torch.library.register_fake("elastic::linear_token_logprobs_backward")
def _(hidden: Tensor, weight: Tensor, *others: Any) -> tuple[Tensor, ...]:
    shapes = (hidden.shape, weight.shape, weight.shape[:1])
    return tuple(
        hidden.new_empty(shape if needed else (0,)) for shape, needed in zip(shapes, others[-1], strict=True)
    )


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    *operands, ctx.temperature, temperatures, ctx.softcap, kept_ids, kept_offsets, ctx.chunk_tokens = inputs
    _, entropy, maximum, log_sum = output
    ctx.save_for_backward(*operands, maximum, log_sum, entropy, temperatures, kept_ids, kept_offsets)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(maximum, log_sum)


def _backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None, *_: None) -> tuple:
    needs = list(ctx.needs_input_grad[:3])
    gradients: tuple[Tensor | None, ...] = (None, None, None)
    if any(needs) and (grad_logprobs is not None or grad_entropy is not None):
        *saved, temperatures, kept_ids, kept_offsets = ctx.saved_tensors
        with torch.no_grad():
            computed = torch.ops.elastic.linear_token_logprobs_backward(
                *saved,
                None if grad_logprobs is None else grad_logprobs.contiguous(),
                None if grad_entropy is None else grad_entropy.contiguous(),
                ctx.temperature,
                temperatures,
                ctx.softcap,
                kept_ids,
                kept_offsets,
                ctx.chunk_tokens,
                needs,
            )
        sources = (*saved[:3], grad_logprobs, grad_entropy)
        gradients = tuple(
            first_order("linear_token_logprobs", gradient, *sources) if needed else None
            for gradient, needed in zip(computed, needs, strict=True)
        )
    return *gradients, *[None] * 7


torch.library.register_autograd("elastic::linear_token_logprobs", _backward, setup_context=_save)
