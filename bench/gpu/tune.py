"""The launch table of the logits pass, measured: cluster size x threads for each dtype and vocabulary.

`elastic._C.set_logits_launch(cluster, threads)` overrides the table of csrc/cuda/logits_launch.cu; (-1, 0) is
the table again, cluster 0 streams the logits instead of keeping them in shared memory.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from bench.gpu.launches import TABLE, Choice
from bench.harness.case import name_of
from bench.harness.compare import Timed, compare
from bench.harness.device import Device
from bench.ops.grpo_loss import fused_loss, with_gradient
from bench.ops.inputs import Inputs
from elastic import ops

CHOICES = [TABLE, *((cluster, threads) for cluster in (0, 1, 2, 4, 8, 16) for threads in (256, 512, 1024))]
SetLaunch = Callable[[int, int], bool]


def sweep(
    device: Device, set_launch: SetLaunch, tokens: int, vocab: int, dtype: torch.dtype, rounds: int
) -> list[Choice]:
    """Times `grpo_loss` in place and `token_logprobs` under every launch that rows of this size fit into."""
    inputs = Inputs.random(tokens, vocab, dtype, device, seed=11)
    work = inputs.logits.clone()

    def loss(_: int) -> tuple[Tensor, Tensor]:
        return with_gradient(lambda x, i: fused_loss(x, i, inplace=True), work, inputs)

    def logprobs(_: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return ops.token_logprobs(inputs.logits, inputs.targets)

    found = []
    try:
        for op, call in (("grpo_loss", loss), ("token_logprobs", logprobs)):
            found += _sweep_one(op, call, device, set_launch, inputs, work, rounds)
    finally:
        set_launch(*TABLE)
    return found


def _sweep_one(
    op: str,
    call: Callable[[int], tuple[Tensor, Tensor]],
    device: Device,
    set_launch: SetLaunch,
    inputs: Inputs,
    work: Tensor,
    rounds: int,
) -> list[Choice]:
    dtype, vocab = name_of(inputs.logits.dtype), inputs.logits.shape[1]
    ways, choices = [], {}
    expected: list[Tensor] | None = None
    for cluster, threads in CHOICES:
        choice = Choice(op, dtype, vocab, cluster, threads, None)
        choices[f"{cluster} x {threads}"] = choice

        def prepare(_: int, cluster: int = cluster, threads: int = threads) -> None:
            work.copy_(inputs.logits)
            device.flush_cache()
            if not set_launch(cluster, threads):
                raise ValueError(f"set_logits_launch: refused {cluster} x {threads}")

        try:
            prepare(0)
            result = [
                part[:: 257 if part.dim() > 1 else 1].clone() for part in map(torch.atleast_1d, call(0))
            ]
            device.synchronize()
        except (RuntimeError, ValueError) as error:  # the row does not fit into such a cluster
            if device.lost():
                raise
            choice.why = str(error).split("\n")[0]
            continue
        expected = expected or result
        for got, first in zip(result, expected, strict=True):
            error = ((got.double() - first.double()).norm() / first.double().norm()).item()
            limit = 1e-5 if got.dtype == torch.float32 else 1e-3  # a bfloat16 may round to its neighbour
            if not error < limit:
                raise AssertionError(f"{op} under {cluster} x {threads}: off by {error:.1e}, limit {limit}")
        ways.append(Timed(f"{cluster} x {threads}", call, prepare))
    for name, timing in compare(ways, rounds, warmup=1, clock=device.clock).items():
        choices[name].median_ms = timing.median_ms()[0]
    return list(choices.values())
