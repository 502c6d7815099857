"""The GRPO losses from hidden states and the language-model head, without an [N, V] tensor of logits."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from elastic.ops._grpo import fake_grpo_outputs, grpo_arguments, grpo_output
from elastic.ops._inputs import check_tensor, checked
from elastic.reference.loss import GrpoOutput


def linear_grpo_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    old_logprobs: Tensor,
    row_offsets: Tensor,
    advantages: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    chunk_tokens: int = 4096,
    gather: bool = True,
    **options: Any,
) -> GrpoOutput:
    """`grpo_loss(hidden @ weight.T + bias, ...)` in chunks of tokens; every gradient is computed on the way.

    A chunk's logits are turned into their gradient in place and multiplied on at once, so memory besides the
    outputs is one chunk of logits, `chunk_tokens` x V, whatever N is (and [V, H] float32 where 16-bit chunks
    add up to the weight's gradient). torch's product of a 16-bit chunk takes scratch beside it on some CPUs,
    which grows with the chunk. Three matrix products an element; `gspo` makes the first one twice, except for
    its last chunk. Operands keep their dtype; products accumulate in float32, and so does the weight's
    gradient across chunks (on the CPU each 16-bit chunk is rounded once). A gradient that is not needed (a
    frozen head, say) is not computed.

    Masked tokens leave the products, and tokens that cannot have a gradient (A = 0 without KL and entropy
    bonus) all but the first one, which their logprob needs; `skip_zero_advantage` takes that away too. For
    this the host waits for two counts of tokens. Results do not depend on `chunk_tokens` beyond rounding.
    Deterministic where torch's matrix products are.

    backward() multiplies the stored gradients by the incoming one, in place, unless that is 1; after a scaled
    backward a second one raises. In float16 logit gradients below 6e-8 are 0.

    Args:
        hidden: [N, H] float32, bfloat16 or float16, CPU or CUDA (float64 too on the CPU); any strides. Row t
            predicts targets[t]. float16 products are slow on most CPUs.
        weight: [V, H] in hidden's dtype. Under autocast hidden, weight and bias are cast as F.linear's are.
        targets, old_logprobs, row_offsets, advantages: as in `grpo_loss`.
        bias: [V] in hidden's dtype; any stride.
        chunk_tokens: tokens a chunk, at least 1: less is less memory, more is faster products.
        gather: False: every token goes through every product, and the host never waits (CUDA graphs). Then
            hidden states of masked tokens must be finite: their zero gradient is multiplied with them.
        **options: the keywords of `grpo_loss` except `inplace`.

    Returns:
        GrpoOutput, as `grpo_loss`.

    Raises:
        TypeError: a dtype is not one of the above, weight's or bias's is not hidden's, an unknown keyword.
        ValueError: wrong shape or device, chunk_tokens < 1, and what `grpo_loss` raises.
    """
    op = "linear_grpo_loss"
    check_tensor(op, "hidden", hidden, hidden)
    check_tensor(op, "weight", weight, hidden)
    if bias is not None:
        bias = checked(op, "bias", bias, hidden)
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    tensors, options = grpo_arguments(op, hidden, targets, old_logprobs, row_offsets, advantages, **options)
    options |= {"chunk_tokens": chunk_tokens, "gather": gather}
    needs = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in (hidden, weight, bias)]
    if any(needs):
        outputs = _LinearLoss.apply(hidden, weight, bias, tensors, {**options, "needs_gradient": needs})
    else:
        outputs = torch.ops.elastic.linear_grpo_loss(
            hidden, weight, bias, *tensors, **options, needs_gradient=needs
        )[:6]
    return grpo_output(outputs, tensors)


class _LinearLoss(torch.autograd.Function):
    """The forward pass computes the gradients; backward() hands them out, scaled."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, tensors: tuple, options: dict
    ) -> tuple[Tensor, ...]:
        *outputs, d_hidden, d_weight, d_bias = torch.ops.elastic.linear_grpo_loss(
            hidden, weight, bias, *tensors, **options
        )
        ctx.needs = options["needs_gradient"]
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        ctx.mark_non_differentiable(*outputs[1:])
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradients: list[Tensor | None] = []
        for gradient, needed in zip(ctx.saved_tensors, ctx.needs, strict=True):
            if needed:
                torch.ops.elastic.scale_(gradient if gradient.dim() == 2 else gradient[None], grad)
            gradients.append(gradient if needed else None)
        return *gradients, None, None


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
