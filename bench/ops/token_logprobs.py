"""`token_logprobs`: logprob of each token and entropy of its row, forward alone.

N tokens, V vocabulary. Least traffic: the logits read once.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.harness.case import COMPILED, Case, Variant, ceiling, compiler_for, name_of, nbytes
from bench.harness.device import Device
from bench.harness.models import model_of
from bench.ops.grpo_loss import TOGETHER
from bench.ops.inputs import Inputs, assert_near, eager_logprobs, exact_logprobs
from elastic import ops

Logprobs = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def case(device: Device, tokens: int, vocab: int, dtype: torch.dtype) -> Case:
    sets = [Inputs.random(tokens, vocab, dtype, device, seed) for seed in (3, 4)]
    exact = exact_logprobs(sets[0].logits, sets[0].targets)
    logits = sets[0].logits

    def check(result: tuple[Tensor, Tensor]) -> None:
        for name, got, expected in zip(("logprobs", "entropy"), result, exact, strict=True):
            assert_near(name, got, expected)

    def flush(_: int) -> None:
        device.flush_cache()

    def call(function: Logprobs) -> Callable[[int], Any]:
        def run(number: int) -> Any:
            with torch.no_grad():
                return function(sets[number % 2].logits, sets[number % 2].targets)

        return run

    def triton() -> Callable[[int], Any]:
        from bench.gpu.triton_loss import logprobs_and_entropy

        return call(lambda x, t: logprobs_and_entropy(x, t, **TOGETHER))

    def trl() -> Callable[[int], Any]:
        from trl.trainer.utils import selective_log_softmax_and_entropy

        return call(selective_log_softmax_and_entropy)

    def compiled() -> Callable[[int], Any]:
        return call(torch.compile(eager_logprobs, dynamic=False))

    variants = [
        Variant("eager", lambda: call(eager_logprobs), check, flush),
        Variant(COMPILED, compiled, check, flush, needs=compiler_for(device)),
        Variant("elastic", lambda: call(ops.token_logprobs), check, flush),
        ceiling(device, logits),
    ]
    if dtype == torch.float32:  # in bfloat16 its logprobs are bfloat16, which the check refuses
        variants.append(Variant("TRL logprobs", trl, check, flush, needs=("trl",)))
    if device.is_cuda:
        variants.append(Variant("Triton, 1 read", triton, check, flush, needs=("triton",)))
    shape, model = f"N={tokens} V={vocab}", model_of(vocab)
    return Case("token_logprobs", shape, name_of(dtype), variants, bytes=nbytes(logits), model=model)
