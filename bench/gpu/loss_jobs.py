"""Jobs of the loss ops: `grpo_loss`, `token_logprobs`, and the ceiling of memory traffic.

N tokens, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.gpu.device import Device
from bench.gpu.inputs import (
    COMPLETIONS,
    HIGH,
    LOW,
    Exact,
    Inputs,
    assert_near,
    eager_logprobs,
    eager_loss,
    exact_logprobs,
)
from bench.gpu.job import Candidate, Job
from bench.results import installed
from elastic import ops

TOGETHER = {"block": 4096, "warps": 8}  # several programs a multiprocessor
ALONE = {"block": 16_384, "warps": 32}  # one


def copy_job(device: Device, tokens: int, vocab: int, dtype: torch.dtype) -> Job:
    """What the device's memory gives: bytes read and written by a copy, and in place."""
    source = torch.randn(tokens, vocab, dtype=dtype, device=device.torch)
    target = source.clone()
    return Job(
        "copy",
        f"N={tokens} V={vocab}",
        name_of(dtype),
        [
            Candidate("device to device", lambda: lambda _: target.copy_(source)),
            Candidate("read + write in place", lambda: lambda _: target.neg_()),
        ],
        bytes=2 * nbytes(source),
    )


def loss_job(device: Device, tokens: int, vocab: int, dtype: torch.dtype) -> Job:
    """Loss and gradient from logits, forward and backward together."""
    sets = [Inputs.random(tokens, vocab, dtype, device, seed) for seed in (1, 2)]
    exact = Exact.of(sets[0])
    work = sets[0].logits.clone()

    def of(number: int) -> Inputs:
        return sets[number % 2]

    def fresh(number: int) -> None:
        device.poison(work)
        device.flush_cache()

    def refill(number: int) -> None:
        work.copy_(of(number).logits)
        device.flush_cache()

    def check(result: tuple[Tensor, Tensor]) -> None:
        exact.check(*result)

    def differentiate(loss: Callable[[Tensor, Inputs], Tensor]) -> Callable[[int], tuple[Tensor, Tensor]]:
        return lambda number: with_gradient(loss, of(number).logits, of(number))

    def compiled() -> Callable[[int], Any]:
        return differentiate(torch.compile(eager_loss, dynamic=False))

    def triton(inplace: bool, config: dict[str, int]) -> Callable[[], Callable[[int], Any]]:
        def make() -> Callable[[int], Any]:
            from bench.gpu.triton_loss import loss_and_gradient

            def run(number: int) -> tuple[Tensor, Tensor]:
                logits = work if inplace else of(number).logits
                return loss_and_gradient(logits, of(number), inplace=inplace, **config)

            return run

        return make

    def fused(number: int) -> tuple[Tensor, Tensor]:
        return with_gradient(fused_loss, of(number).logits, of(number))

    def fused_in_place(number: int) -> tuple[Tensor, Tensor]:
        return with_gradient(lambda x, i: fused_loss(x, i, inplace=True), work, of(number))

    candidates = [
        Candidate("eager", lambda: differentiate(eager_loss), check, fresh),
        Candidate("elastic", lambda: fused, check, fresh),
        Candidate("elastic, in place", lambda: fused_in_place, check, refill),
    ]
    if device.is_cuda:
        candidates.insert(1, Candidate("torch.compile", compiled, check, fresh))
    if device.is_cuda and installed("triton"):
        candidates += [
            Candidate("Triton, 2 reads", triton(False, TOGETHER), check, fresh),
            Candidate("Triton, second read from L2", triton(False, ALONE), check, fresh),
            Candidate("Triton, in place, second read from L2", triton(True, ALONE), check, refill),
        ]
    if device.is_cuda and installed("liger-kernel") and tokens % COMPLETIONS == 0:
        candidates.append(Candidate("liger-kernel", lambda: liger(sets), liger_check(exact), fresh))
    return Job("grpo_loss", f"N={tokens} V={vocab}", name_of(dtype), candidates, bytes=2 * nbytes(work))


def with_gradient(
    loss: Callable[[Tensor, Inputs], Tensor], logits: Tensor, inputs: Inputs
) -> tuple[Tensor, Tensor]:
    """Forward and backward; `autograd.grad`, because accumulation into a leaf may copy the gradient."""
    leaf = logits.detach().requires_grad_()
    value = loss(leaf.view(leaf.shape), inputs)  # a view: the in-place op refuses leaves
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def fused_loss(logits: Tensor, inputs: Inputs, inplace: bool = False) -> Tensor:
    return ops.grpo_loss(
        logits, inputs.targets, inputs.old_logprobs, inputs.row_offsets, inputs.advantages, inplace=inplace
    ).loss


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


def logprobs_job(device: Device, tokens: int, vocab: int, dtype: torch.dtype) -> Job:
    """Logprobs and entropies, forward alone: the pass over the old policy."""
    sets = [Inputs.random(tokens, vocab, dtype, device, seed) for seed in (3, 4)]
    exact = exact_logprobs(sets[0].logits, sets[0].targets)

    def check(result: tuple[Tensor, Tensor]) -> None:
        for name, got, expected in zip(("logprobs", "entropy"), result, exact, strict=True):
            assert_near(name, got, expected)

    def flush(_: int) -> None:
        device.flush_cache()

    def call(function: Callable[[Tensor, Tensor], Any]) -> Callable[[int], Any]:
        def run(number: int) -> Any:
            with torch.no_grad():
                return function(sets[number % 2].logits, sets[number % 2].targets)

        return run

    def triton() -> Callable[[int], Any]:
        from bench.gpu.triton_loss import logprobs_and_entropy

        return call(lambda x, t: logprobs_and_entropy(x, t, **TOGETHER))

    candidates = [
        Candidate("eager", lambda: call(eager_logprobs), check, flush),
        Candidate("elastic", lambda: call(ops.token_logprobs), check, flush),
    ]
    if device.is_cuda:
        compiled = Candidate(
            "torch.compile", lambda: call(torch.compile(eager_logprobs, dynamic=False)), check, flush
        )
        candidates.insert(1, compiled)
    if device.is_cuda and installed("triton"):
        candidates.append(Candidate("Triton, 1 read", triton, check, flush))
    return Job(
        "token_logprobs",
        f"N={tokens} V={vocab}",
        name_of(dtype),
        candidates,
        bytes=nbytes(sets[0].logits),
    )


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
