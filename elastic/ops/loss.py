"""The GRPO family of losses, straight from logits, with the gradient computed in the forward pass."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elastic.ops._autograd import handed_out, origin, refuse_transforms
from elastic.ops._grpo import fake_grpo_outputs, grpo_arguments, grpo_output
from elastic.ops._inputs import check_tensor, flag
from elastic.ops.grpo_options import GrpoOptions, with_grpo_options
from elastic.reference.loss import GrpoOutput

if TYPE_CHECKING:
    from typing_extensions import Unpack


@with_grpo_options
def grpo_loss(
    logits: Tensor,
    targets: Tensor,
    old_logprobs: Tensor,
    row_offsets: Tensor,
    advantages: Tensor | None = None,
    *,
    inplace: bool = False,
    **options: "Unpack[GrpoOptions]",
) -> GrpoOutput:
    """Policy loss of a packed batch of completions; the gradient on the logits is computed in the same call.

    With l the target's logprob, d = l - old, rho = exp(d), A the row's advantage, m the mask, n a row's
    number of unmasked tokens (SPEC section 5):

    | loss | x, per token | aggregation |
    |---|---|---|
    | `grpo` | -min(min(rho, delta) A, clip(rho, 1-clip_low, 1+clip_high) A) | sum m x / n, mean over rows |
    | `bnpo` | same | sum m x / sum m |
    | `dr_grpo` | same | sum m x / (rows max_length) |
    | `dapo` | same | sum m x / num_tokens |
    | `gspo` | same, rho the geometric mean over the row's unmasked tokens | as grpo |
    | `cispo` | -min(rho, clip_high) A l, no gradient through the first factors | as dapo |
    | `sapo` | -A (4 / tau) sigmoid(tau (rho - 1)), tau by the sign of A | as grpo |

    The token's whole term is w x + kl_coef KL - entropy_coef H; all three aggregate alike, so that
    accumulating micro-batches is exact. `clip_high` bounds cispo's ratio itself (values like 5 are usual
    there). `delta` caps the unclipped ratio (INTELLECT-2, arXiv 2505.07291); `dual_clip` c > 1 bounds x by
    c |A| where A < 0 (Ye et al., arXiv 1912.09729).

    KL estimators of KL(policy to reference), with q = l - ref: `k1` q, `k2` q^2 / 2, `k3` exp(-q) - 1 + q;
    `kl_weighted` multiplies by rho (the row's for gspo), through which gradient flows too.

    w is 1 or, with `engine_logprobs`, exp(old - engine), a constant: cut to [engine_low, engine_high]
    (`truncate`) or zeroed outside (`mask`), per token or, with engine_level="row", from the sum over the
    row's unmasked tokens.

    Infinities: a term with factor 0 (masked, A = 0, w = 0, a KL with kl_coef = 0) adds exactly 0, however
    large its ratio. A target of probability 0 has rho = 0 and the limit of its term: cispo's rho l is 0, and
    so is rho KL, except for k3, whose limit is exp(ref - old) (infinite for gspo). An infinite rho times a KL
    of 0 is 0. Where no limit is finite (an infinite rho that no clip bounds, an infinite KL that is not
    weighted, ref = -inf) the loss is infinite, or NaN where infinities of both signs are added, and the
    token's gradient is meaningless. A NaN always reaches the loss, unless it is masked.

    Masked tokens (forced ones: pass `source == SAMPLED`) are never read: they get no loss, ratio, KL or
    entropy and a gradient of exact zeros, whatever they hold. A row with no unmasked token still counts among
    the rows. Tokens whose gradient is zero (A = 0 without KL and entropy bonus) report their logprob, and
    their row is zero-filled; with `skip_zero_advantage` they are not read either and report 0, though they
    still count in every denominator. The result does not depend on the number of threads; sums run in index
    order.

    Advantages, counts and factors are computed in the same call, on the logits' device. On the CPU logits are
    read once (twice for gspo or an entropy bonus) and the gradient is written once. If gradients are off or
    the logits need none, nothing is written. backward() multiplies the stored gradient in place by the
    incoming one and returns it; a factor of 1 costs nothing. Where the graph is kept (retain_graph=True) it
    returns a copy instead, so that any number of backwards is right and nothing that was returned is written
    later. Second and forward-mode derivatives and torch.func raise.

    An option that would do nothing (`pass_k` beside `advantages`, `tau_positive` for grpo, `kl` without
    `ref_logprobs`, ...) is an error unless it is None. `num_tokens` and `num_rows` may always be given: every
    loss but bnpo divides by one of them.

    Args:
        logits: [N, V] float32, bfloat16 or float16, CPU or CUDA (float64 too on the CPU); rows may be
            strided, the last stride must be 1. N and V below 2^31, their product as large as memory. Row
            t predicts targets[t]. In float16, gradients below 6e-8 are 0: a GradScaler's factor comes too
            late for them.
        targets: [N] int64; unmasked ones in [0, V).
        old_logprobs: [N] float, logprobs under the policy that sampled, at the same temperature.
        row_offsets: [R + 1] int64, from 0 to N; row r holds tokens row_offsets[r] up to row_offsets[r + 1].
        advantages: [R]. Exactly one of this and (`rewards`, `group_offsets`) is given.
        rewards, group_offsets, advantage, advantage_eps, pass_k: see `group_advantage`; None: group, 1e-4, 4.
        mask: [N] bool, True where a token counts; None: all do.
        ref_logprobs: [N] float, needed where kl_coef is not 0.
        engine_logprobs: [N] float, those of the engine that sampled; old_logprobs are then the trainer's.
        engine_mode, engine_level, engine_low, engine_high: None: truncate, token, 0, 2.
        clip_low, clip_high: None: 0.2.
        tau_positive, tau_negative: None: 1, 1.05.
        kl: None: k3.
        temperature: of the softmax, above 0; a number or a tensor without dimensions, [N] or [R] numbers
            (where R is N, it is a token's).
        softcap: above 0; logits become softcap tanh(logits / softcap) before the temperature.
        kept_ids, kept_offsets: as in `token_logprobs`; logprobs, ratio and entropy are those among a token's
            kept ids, and old, reference and engine logprobs must be too. Ids of masked tokens are not used.
        num_tokens: for dapo and cispo: unmasked tokens of the whole optimizer step, over micro-batches and
            processes; default this call's. 0 counts as 1.
        num_rows: for grpo, gspo, sapo and dr_grpo: rows of the whole optimizer step; default this call's R.
            0 counts as 1.
        max_length: the fixed length that dr_grpo divides by; required for it.
        skip_zero_advantage: do not read tokens that can have no gradient.
        inplace: write the gradient over `logits`, whose contents are lost; no second [N, V] tensor is
            allocated, unless the graph is kept. Refused for leaves and views of them. If another op saved
            these logits for its backward, that raises.

    Returns:
        GrpoOutput, whose tensors share no memory with the arguments. N = 0 or everything masked: loss,
        clip_fraction and kl are 0, and so is the gradient. A row of logits with NaN, +inf or nothing but
        -inf makes the loss and that row's gradient NaN.

    Raises:
        TypeError: a wrong type or dtype; uint8 masks are refused, because SAMPLED is 0 in a source tensor.
        ValueError: wrong shape, stride or device; unfitting offsets; both or neither of advantages and
            rewards; an option without effect or out of range (temperature, softcap and the taus: 1e-30 to
            1e30); (CPU) a target out of range. On CUDA contents are not read back: an id or a token's
            temperature out of range or an unfitting offset makes the loss NaN.
        RuntimeError: a derivative that does not exist.
    """
    op = "grpo_loss"
    check_tensor(op, "logits", logits, logits)
    refuse_transforms(op, logits)
    tensors, settings = grpo_arguments(op, logits, targets, old_logprobs, row_offsets, advantages, options)
    needs_gradient = torch.is_grad_enabled() and logits.requires_grad
    over_logits = flag(op, "inplace", inplace) and needs_gradient
    if over_logits:
        owner = logits if logits._base is None else logits._base
        if owner.is_leaf and owner.requires_grad:
            raise ValueError(
                f"{op}: inplace: expected logits that an op computed, got a leaf or a view of one"
            )
    if over_logits or (needs_gradient and not torch.compiler.is_compiling()):
        outputs = _Loss.apply(logits, over_logits, tensors, settings)
    else:
        *outputs, _ = torch.ops.elastic.grpo_loss(logits, *tensors, **settings, needs_gradient=needs_gradient)
    return grpo_output(outputs, tensors)


class _Loss(torch.autograd.Function):
    """`grpo_loss` outside the compiler, and `grpo_loss` in place, whose gradient overwrites the logits.

    In place it must be a Function: a formula can only be registered on a functional op. autograd notes where
    the logits came from before forward() runs, so overwriting them (also through a view of a larger tensor)
    leaves their history alone. The op that writes elsewhere has a registered formula for the compiler; calls
    outside the compiler avoid it, because torch looks up each of the op's arguments first, 0.4 ms per call.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, inplace: bool, tensors: tuple, options: dict) -> tuple[Tensor, ...]:
        ctx.origin = origin("grpo_loss", logits)  # before the write, after which some views refuse to be used
        plain = gradient = logits.detach()
        if inplace:
            outputs = torch.ops.elastic.grpo_loss_(plain, *tensors, **options)
        else:
            *outputs, gradient = torch.ops.elastic.grpo_loss(plain, *tensors, **options, needs_gradient=True)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(*outputs[1:])
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return handed_out("grpo_loss", gradient, grad, ctx.origin), None, None, None


def _save(ctx: Any, inputs: tuple, keyword_only_inputs: dict, output: tuple) -> None:
    *outputs, gradient = output
    if keyword_only_inputs["needs_gradient"]:
        ctx.origin = origin("grpo_loss", inputs[0])
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(*outputs[1:], gradient)
    else:
        ctx.mark_non_differentiable(*output)


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    (gradient,) = ctx.saved_tensors
    return handed_out("grpo_loss", gradient, grad, ctx.origin), *[None] * 12


torch.library.register_autograd("elastic::grpo_loss", _backward, setup_context=_save)


@torch.library.register_fake("elastic::grpo_loss")
def _(logits: Tensor, *tensors: Tensor | None, needs_gradient: bool, **options: Any) -> tuple[Tensor, ...]:
    rows = logits.shape[0] if needs_gradient else 0
    return *fake_grpo_outputs(logits, tensors), logits.new_empty((rows, logits.shape[1]))


@torch.library.register_fake("elastic::grpo_loss_")
def _(logits: Tensor, *tensors: Tensor | None, **options: Any) -> tuple[Tensor, ...]:
    return fake_grpo_outputs(logits, tensors)


@torch.library.register_fake("elastic::scale_")
def _(values: Tensor, factor: Tensor) -> None:
    return None
