"""The peers written in Triton: a row a program, online softmax, then the gradient. Needs Triton.

The loss reads the logits twice and writes the gradient once. With many small programs the second read comes
from memory; with one program of 32 warps a multiprocessor, the rows in flight fit into the L2 cache of a
large GPU, and the second read comes from there.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench.ops.inputs import HIGH, LOW, Inputs


@triton.jit
def _loss_kernel(
    logits, gradient, targets, old, advantage, weight, loss, stride, vocab, low, high, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    source = logits + row * stride
    out = gradient + row * stride
    target = tl.load(targets + row)
    chosen = tl.load(source + target).to(tl.float32)
    peak = float("-inf")
    total = 0.0
    for start in range(0, vocab, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(source + at, mask=at < vocab, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(peak, tl.max(x, 0))
        total = total * tl.exp(peak - higher) + tl.sum(tl.exp(x - higher), 0)
        peak = higher
    logsumexp = peak + tl.log(total)
    a = tl.load(advantage + row)
    w = tl.load(weight + row)
    ratio = tl.exp(chosen - logsumexp - tl.load(old + row))
    plain = ratio * a
    clipped = tl.minimum(tl.maximum(ratio, low), high) * a
    tl.store(loss + row, -tl.minimum(plain, clipped) * w)
    slope = tl.where(plain <= clipped, -plain * w, 0.0)
    for start in range(0, vocab, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(source + at, mask=at < vocab, other=float("-inf")).to(tl.float32)
        g = (tl.where(at == target, 1.0, 0.0) - tl.exp(x - logsumexp)) * slope
        tl.store(out + at, g.to(out.dtype.element_ty), mask=at < vocab)


@triton.jit
def _logprobs_kernel(logits, targets, logprobs, entropy, stride, vocab, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    source = logits + row * stride
    chosen = tl.load(source + tl.load(targets + row)).to(tl.float32)
    peak = float("-inf")
    total = 0.0
    weighted = 0.0
    for start in range(0, vocab, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(source + at, mask=at < vocab, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(peak, tl.max(x, 0))
        shrink = tl.exp(peak - higher)
        e = tl.exp(x - higher)
        total = total * shrink + tl.sum(e, 0)
        weighted = weighted * shrink + tl.sum(tl.where(e > 0, e * x, 0.0), 0)
        peak = higher
    logsumexp = peak + tl.log(total)
    tl.store(logprobs + row, chosen - logsumexp)
    tl.store(entropy + row, logsumexp - weighted / total)


def loss_and_gradient(
    logits: Tensor, inputs: Inputs, *, inplace: bool, block: int, warps: int
) -> tuple[Tensor, Tensor]:
    """The loss, a scalar, and the gradient [N, V], over the logits if `inplace`."""
    gradient = logits if inplace else torch.empty_like(logits)
    terms = torch.empty_like(inputs.old_logprobs)
    _loss_kernel[(len(logits),)](
        logits,
        gradient,
        inputs.targets,
        inputs.old_logprobs,
        inputs.advantage,
        inputs.weight,
        terms,
        logits.stride(0),
        logits.shape[1],
        LOW,
        HIGH,
        BLOCK=block,
        num_warps=warps,
    )
    return terms.sum(), gradient


def logprobs_and_entropy(logits: Tensor, targets: Tensor, *, block: int, warps: int) -> tuple[Tensor, Tensor]:
    """Logprob of each target and entropy of each row, [N] float32."""
    logprobs = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    entropy = torch.empty_like(logprobs)
    _logprobs_kernel[(len(logits),)](
        logits,
        targets,
        logprobs,
        entropy,
        logits.stride(0),
        logits.shape[1],
        BLOCK=block,
        num_warps=warps,
    )
    return logprobs, entropy
