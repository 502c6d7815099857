"""The GRPO losses from hidden states and the language-model head, in chunks of the [N, V] logits."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elastic.ops._autograd import handed_out, origin
from elastic.ops._grpo import fake_grpo_outputs, grpo_arguments, grpo_output
from elastic.ops._head import chunk_size, head_operands
from elastic.ops._inputs import flag
from elastic.ops.grpo_options import GrpoOptions, with_grpo_options
from elastic.reference.loss import GrpoOutput

if TYPE_CHECKING:
    from typing_extensions import Unpack


@with_grpo_options
def linear_grpo_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    old_logprobs: Tensor,
    row_offsets: Tensor,
    advantages: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    chunk_tokens: int | None = None,
    gather: bool = True,
    **options: "Unpack[GrpoOptions]",
) -> GrpoOutput:
    """`grpo_loss(hidden @ weight.T + bias, ...)` in chunks of tokens; every gradient is computed in forward.

    A chunk's logits are overwritten by their gradient, which is multiplied on at once, so memory besides the
    outputs is one chunk of logits, `chunk_tokens` x V, whatever N is (and [V, H] float32 where the weight's
    gradient is summed over several 16-bit chunks). On some CPUs torch's product of a 16-bit chunk takes
    scratch memory too, which grows with the chunk. Every token passes through three matrix products; `gspo`
    computes the first one twice, except for its last chunk. Operands keep their dtype; products accumulate in
    float32, and so does the weight's gradient across chunks (on the CPU each 16-bit chunk is rounded once). A
    gradient that is not needed (a frozen head, say) is not computed.

    Masked tokens are left out of all products. Tokens that cannot have a gradient (A = 0 without KL and
    entropy bonus) take part in the first one only, for their logprob, and with `skip_zero_advantage` in none.
    To leave tokens out, the host waits for two counts of tokens. Results do not depend on `chunk_tokens`
    beyond rounding: which products torch picks for a chunk, and where the weight's and bias's gradients are
    rounded. Deterministic where torch's matrix products are; on CUDA name `chunk_tokens` if the same bits are
    wanted beside other memory.

    backward() returns the stored gradients as `grpo_loss` does. In float16, logit gradients below 6e-8 are 0.

    Args:
        hidden: [N, H] float32, bfloat16 or float16, CPU or CUDA (float64 too on the CPU); any strides. Row t
            predicts targets[t]. float16 products are slow on most CPUs.
        weight: [V, H] in hidden's dtype. Under autocast hidden, weight and bias are cast as F.linear's are,
            float64 stays.
        targets, old_logprobs, row_offsets, advantages: as in `grpo_loss`.
        bias: [V] in hidden's dtype; any stride.
        chunk_tokens: tokens per chunk, at least 1: fewer take less memory, more make faster products. None:
            4096; on CUDA with a gradient all of them, or the power of two, whose logits take at most a
            quarter of the memory that is free.
        gather: whether tokens are left out of products. False: none is, and the host never waits (CUDA
            graphs); hidden states of masked tokens must then be finite, as they are multiplied by 0.
        rewards and so on: as in `grpo_loss`.

    Returns:
        GrpoOutput, as `grpo_loss`.

    Raises:
        TypeError: a wrong type or dtype, weight's or bias's is not hidden's.
        ValueError: wrong shape or device, chunk_tokens < 1, and what `grpo_loss` raises.
        RuntimeError: a derivative that does not exist.
    """
    op = "linear_grpo_loss"
    hidden, weight, bias = head_operands(op, hidden, weight, bias)
    tensors, settings = grpo_arguments(op, hidden, targets, old_logprobs, row_offsets, advantages, options)
    settings["chunk_tokens"] = chunk_size(op, chunk_tokens)
    settings["gather"] = flag(op, "gather", gather)
    needs = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in (hidden, weight, bias)]
    outputs = torch.ops.elastic.linear_grpo_loss(
        hidden, weight, bias, *tensors, **settings, needs_gradient=needs
    )
    return grpo_output(outputs[:6], tensors)


def _save(ctx: Any, inputs: tuple, keyword_only_inputs: dict, output: tuple) -> None:
    ctx.needs = keyword_only_inputs["needs_gradient"]
    ctx.mark_non_differentiable(*output[1 if any(ctx.needs) else 0 :])
    ctx.save_for_backward(*output[6:])
    if any(ctx.needs):
        ctx.origin = origin("linear_grpo_loss", *inputs[:3])


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    gradients = (
        handed_out("linear_grpo_loss", gradient, grad, ctx.origin) if needed else None
        for gradient, needed in zip(ctx.saved_tensors, ctx.needs, strict=True)
    )
    return *gradients, *[None] * 12


torch.library.register_autograd("elastic::linear_grpo_loss", _backward, setup_context=_save)


@torch.library.register_fake("elastic::linear_grpo_loss")
def _(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *tensors: Tensor | None,
    needs_gradient: list[bool],
    **options: Any,
) -> tuple[Tensor, ...]:
    shapes = (hidden.shape, weight.shape, weight.shape[:1])
    gradients = [
        hidden.new_empty(shape if needed else (0,))
        for shape, needed in zip(shapes, needs_gradient, strict=True)
    ]
    return *fake_grpo_outputs(hidden, tensors), *gradients
