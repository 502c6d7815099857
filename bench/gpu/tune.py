"""The launches of the logits pass and of the ring, measured: cluster size x threads for each size of rows.

`elastic._C.set_logits_launch(cluster, threads, kernel)` overrides the table of csrc/cuda/logits_launch.cu;
TABLE is the table again, cluster 0 streams the logits instead of keeping them in shared memory. Every result
is held to the table's, whole: a launch that is wrong ends the sweep, one that rounds otherwise is marked.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.gpu.launches import OTHER_BITS, TABLE, Choice
from bench.harness.case import name_of
from bench.harness.compare import Timed, compare
from bench.harness.device import Device
from bench.ops.grpo_loss import fused_loss, with_gradient
from bench.ops.inputs import Inputs
from elastic import ops

Launch = tuple[int, int, str]
SetLaunch = Callable[[int, int, str], bool]
CLUSTERS = (1, 2, 4, 8, 16)
PASSES: list[Launch] = [
    TABLE,
    *((c, threads, "table") for c in (0, *CLUSTERS) for threads in (256, 512, 1024)),
]
RINGS: list[Launch] = [TABLE, *((c, 0, kernel) for c in CLUSTERS for kernel in ("ring", "ring_direct"))]


def sweep(
    device: Device,
    set_launch: SetLaunch,
    tokens: int,
    vocab: int,
    dtype: torch.dtype,
    rounds: int,
    launches: Sequence[Launch] = PASSES,
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
            # Without a gradient there is nothing to store.
            fit = [launch for launch in launches if op == "grpo_loss" or launch[2] != "ring_direct"]
            found += _sweep_one(op, call, device, set_launch, inputs, work, rounds, fit)
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
    launches: Sequence[Launch],
) -> list[Choice]:
    dtype, vocab = name_of(inputs.logits.dtype), inputs.logits.shape[1]
    ways, choices = [], {}
    expected: list[Tensor] | None = None
    capability = torch.cuda.get_device_capability()[0] if device.is_cuda else 0
    for launch in launches:
        name = " x ".join(map(str, launch))
        choice = Choice(op, dtype, vocab, launch[0], launch[1], None, "", launch[2], capability)
        choices[name] = choice
        print(f"  {op} {dtype} {vocab}: {name}", flush=True)  # the caller ends a process that is silent

        def prepare(_: int, launch: Launch = launch, name: str = name) -> None:
            work.copy_(inputs.logits)
            device.flush_cache()
            if not set_launch(*launch):
                raise ValueError(f"set_logits_launch: refused {name}")

        try:
            prepare(0)
            result = [part.clone() for part in call(0)]
            device.synchronize()
        except (RuntimeError, ValueError) as error:  # the row does not fit into such a cluster
            if device.lost():
                raise
            choice.why = str(error).split("\n")[0]
            continue
        expected = expected or result
        for got, first in zip(result, expected, strict=True):
            if torch.equal(got, first):
                continue
            choice.why = OTHER_BITS
            error = ((got.double() - first.double()).norm() / first.double().norm()).item()
            limit = 1e-5 if got.dtype == torch.float32 else 1e-3  # a bfloat16 may round to its neighbour
            if not error < limit:
                raise AssertionError(f"{op} under {name}: off by {error:.1e}, limit {limit}")
        ways.append(Timed(name, call, prepare))
    for name, timing in compare(ways, rounds, warmup=1, clock=device.clock).items():
        choices[name].median_ms = timing.median_ms()[0]
    return list(choices.values())
