"""`grpo_loss`: from logits to the loss and the logits' gradient, forward and backward together.

N tokens, V vocabulary. Least traffic: the logits read and the gradient written once.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.harness.case import COMPILED, Case, Variant, ceiling, compiler_for, name_of, nbytes
from bench.harness.device import Device
from bench.harness.models import model_of
from bench.ops.inputs import COMPLETIONS, HIGH, LOW, Exact, Inputs, clipped_loss, eager_loss
from elastic import ops

TOGETHER = {"block": 4096, "warps": 8}  # Triton: several programs a multiprocessor
ALONE = {"block": 16_384, "warps": 32}  # one
Loss = Callable[[Tensor, Inputs], Tensor]


def case(device: Device, tokens: int, vocab: int, dtype: torch.dtype) -> Case:
    sets = [Inputs.random(tokens, vocab, dtype, device, seed) for seed in (1, 2)]
    exact = Exact.of(sets[0])
    work = sets[0].logits.clone()

    def of(number: int) -> Inputs:
        return sets[number % 2]

    def fresh(_: int) -> None:
        device.poison(work)
        device.flush_cache()

    def refill(number: int) -> None:
        work.copy_(of(number).logits)
        device.flush_cache()

    def check(result: tuple[Tensor, Tensor]) -> None:
        exact.check(*result)

    def differentiate(loss: Loss) -> Callable[[int], tuple[Tensor, Tensor]]:
        return lambda number: with_gradient(loss, of(number).logits, of(number))

    def in_place(number: int) -> tuple[Tensor, Tensor]:
        return with_gradient(lambda x, i: fused_loss(x, i, inplace=True), work, of(number))

    def triton(inplace: bool, config: dict[str, int]) -> Callable[[], Callable[[int], Any]]:
        def make() -> Callable[[int], Any]:
            from bench.gpu.triton_loss import loss_and_gradient

            def run(number: int) -> tuple[Tensor, Tensor]:
                logits = work if inplace else of(number).logits
                return loss_and_gradient(logits, of(number), inplace=inplace, **config)

            return run

        return make

    variants = [
        Variant("eager", lambda: differentiate(eager_loss), check, fresh),
        Variant(
            COMPILED,
            lambda: differentiate(torch.compile(eager_loss, dynamic=False)),
            check,
            fresh,
            needs=compiler_for(device),
        ),
        Variant("elastic", lambda: differentiate(fused_loss), check, fresh),
        Variant("elastic, in place", lambda: in_place, check, refill),
        ceiling(device, work),
    ]
    if dtype == torch.float32:  # in bfloat16 its logprobs are bfloat16, which the check refuses
        variants.append(
            Variant("TRL logprobs", lambda: differentiate(trl_loss()), check, fresh, needs=("trl",))
        )
    if device.is_cuda:
        need = {"needs": ("triton",)}
        variants += [
            Variant("Triton, 2 reads", triton(False, TOGETHER), check, fresh, **need),
            Variant("Triton, second read from L2", triton(False, ALONE), check, fresh, **need),
            Variant("Triton, in place, second read from L2", triton(True, ALONE), check, refill, **need),
        ]
        if tokens % COMPLETIONS == 0:
            need = {"needs": ("liger-kernel",)}
            variants.append(Variant("liger-kernel", lambda: liger(sets), liger_check(exact), fresh, **need))
    shape = f"N={tokens} V={vocab}"
    return Case("grpo_loss", shape, name_of(dtype), variants, bytes=2 * nbytes(work), model=model_of(vocab))


def with_gradient(loss: Loss, logits: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Forward and backward; `autograd.grad`, because accumulation into a leaf may copy the gradient."""
    leaf = logits.detach().requires_grad_()
    # Like what a matrix product leaves: the leaf's memory, which may be written over, but no view of a leaf.
    value = loss(torch.ops.aten._unsafe_view(leaf, leaf.shape), inputs)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def fused_loss(logits: Tensor, inputs: Inputs, inplace: bool = False) -> Tensor:
    return ops.grpo_loss(
        logits, inputs.targets, inputs.old_logprobs, inputs.row_offsets, inputs.advantages, inplace=inplace
    ).loss


def trl_loss() -> Loss:
    """TRL's logprobs, row by row to save memory, under the same objective."""
    from trl.trainer.utils import selective_log_softmax

    def loss(logits: Tensor, inputs: Inputs) -> Tensor:
        logprobs = selective_log_softmax(logits, inputs.targets)
        return clipped_loss(logprobs, inputs.old_logprobs, inputs.advantage, inputs.weight)

    return loss


def liger(sets: list[Inputs]) -> Callable[[int], Any]:
    """liger-kernel's Triton loss; it wants [B, L + 1, V] logits, of which the last position is not used."""
    from liger_kernel.transformers.grpo_loss import triton_grpo_loss

    length = len(sets[0].targets) // COMPLETIONS
    padded = []
    for inputs in sets:
        logits = inputs.logits.new_empty(COMPLETIONS, length + 1, inputs.logits.shape[1])
        logits[:, :-1] = inputs.logits.view(COMPLETIONS, length, -1)
        padded.append(logits)

    def run(number: int) -> tuple[Tensor, Tensor]:
        inputs, leaf = sets[number % 2], padded[number % 2].detach().requires_grad_()
        loss, _ = triton_grpo_loss(
            logits=leaf,
            old_logp=inputs.old_logprobs.view(COMPLETIONS, length),
            ref_logp=None,
            completion_ids=inputs.targets.view(COMPLETIONS, length),
            advantages=inputs.advantages,
            temperature=1.0,
            beta=0.0,
            eps_low=1 - LOW,
            eps_high=HIGH - 1,
            inplace=False,
            loss_type="grpo",
            reduce=True,
        )
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]

    return run


def liger_check(exact: Exact) -> Callable[[tuple[Tensor, Tensor]], None]:
    def check(result: tuple[Tensor, Tensor]) -> None:
        loss, gradient = result
        exact.check(loss, gradient[:, :-1].reshape(-1, gradient.shape[-1]))

    return check
