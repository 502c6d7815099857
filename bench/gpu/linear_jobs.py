"""The job of `linear_grpo_loss`: from hidden states and the head to the loss and both gradients.

N tokens, H hidden, V vocabulary. The floor is arithmetic: three matrix products, timed bare beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.gpu.device import Device
from bench.gpu.inputs import COMPLETIONS, Inputs, assert_near, clipped_loss, eager_loss, slope
from bench.gpu.job import Candidate, Job
from bench.gpu.loss_jobs import name_of
from elastic import ops

CHUNK = 2048  # tokens whose logits are held in float32 at a time
# Logits of the candidates are rounded to 8 bits before the softmax, in places to a hundredth.
LIMIT = {torch.bfloat16: 5e-2, torch.float32: 1e-3}


@dataclass
class Heads:
    """hidden [N, H], weight [V, H], and the rest of a batch, whose logits are empty."""

    hidden: Tensor
    weight: Tensor
    batch: Inputs

    @classmethod
    def random(cls, tokens: int, size: int, vocab: int, dtype: torch.dtype, device: Device) -> "Heads":
        generator = torch.Generator(device.torch).manual_seed(5)
        on = {"device": device.torch, "generator": generator}
        hidden = torch.randn(tokens, size, dtype=dtype, **on)
        weight = torch.randn(vocab, size, dtype=dtype, **on).mul_(2 / size**0.5)
        targets = torch.randint(vocab, (tokens,), **on)
        logprobs = torch.cat([part for part, _ in float_chunks(hidden, weight, targets)])
        old = logprobs + 0.1 * torch.randn(tokens, **on)
        return cls(hidden, weight, Inputs.around(hidden[:0], targets, old, torch.randn(COMPLETIONS, **on)))


def float_chunks(hidden: Tensor, weight: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Logprobs and logsumexps of chunks of tokens, float32 throughout."""
    full, parts = weight.float(), []
    for first in range(0, len(targets), CHUNK):
        logits = hidden[first : first + CHUNK].float() @ full.T
        chosen = logits.gather(1, targets[first : first + CHUNK, None])[:, 0]
        lse = logits.logsumexp(-1)
        parts.append((chosen - lse, lse))
    return parts


def check_against_floats(heads: Heads) -> Callable[[tuple[Tensor, Tensor, Tensor]], None]:
    """A check of the loss, of dHidden for sampled tokens and of dWeight for sampled ids."""
    hidden, weight, batch = heads.hidden, heads.weight, heads.batch
    parts = float_chunks(hidden, weight, batch.targets)
    logprobs, lse = (torch.cat(part) for part in zip(*parts, strict=True))
    rest = (batch.old_logprobs, batch.advantage, batch.weight)
    loss = clipped_loss(logprobs, *rest).double()
    by_token = slope(logprobs, batch).float()
    tokens, ids = batch.sample(), batch.targets[batch.sample()]
    grad = -torch.exp(hidden[tokens].float() @ weight.float().T - lse[tokens, None])
    grad[torch.arange(len(tokens), device=tokens.device), batch.targets[tokens]] += 1
    d_hidden = (grad * by_token[tokens, None]) @ weight.float()
    chosen = (batch.targets[:, None] == ids).float()
    columns = (chosen - torch.exp(hidden.float() @ weight[ids].float().T - lse[:, None])) * by_token[:, None]
    d_weight = columns.T @ hidden.float()

    def check(result: tuple[Tensor, Tensor, Tensor]) -> None:
        limit = LIMIT[hidden.dtype]
        assert_near("loss", result[0], loss, limit)
        for name, got, expected in (
            ("dHidden", result[1][tokens], d_hidden),
            ("dWeight", result[2][ids], d_weight),
        ):
            error = ((got.float() - expected).norm() / expected.norm()).item()
            assert error < limit, f"{name} off by {error:.1e}, expected less than {limit:.0e}"

    return check


def linear_job(device: Device, tokens: int, size: int, vocab: int, dtype: torch.dtype) -> Job:
    heads = Heads.random(tokens, size, vocab, dtype, device)
    batch, check = heads.batch, check_against_floats(heads)

    def differentiate(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[int], Any]:
        def run(_: int) -> tuple[Tensor, Tensor, Tensor]:
            hidden, weight = heads.hidden.detach().requires_grad_(), heads.weight.detach().requires_grad_()
            value = loss(hidden, weight)
            return value.detach(), *torch.autograd.grad(value, (hidden, weight))

        return run

    def eager(hidden: Tensor, weight: Tensor) -> Tensor:
        return eager_loss(hidden @ weight.T, batch)

    def fused(chunk: int) -> Callable[[], Callable[[int], Any]]:
        def loss(hidden: Tensor, weight: Tensor) -> Tensor:
            return ops.linear_grpo_loss(
                hidden,
                weight,
                batch.targets,
                batch.old_logprobs,
                batch.row_offsets,
                batch.advantages,
                chunk_tokens=chunk,
            ).loss

        return lambda: differentiate(loss)

    def products(_: int) -> list[Tensor]:
        """The three matrix products in chunks, and nothing else."""
        made = []
        for first in range(0, tokens, 4096):
            hidden = heads.hidden[first : first + 4096]
            logits = hidden @ heads.weight.T
            made = [logits, logits @ heads.weight, logits.T @ hidden]
        return made

    candidates = [
        Candidate("eager", lambda: differentiate(eager), check),
        Candidate("three bare products", lambda: products),
        *(Candidate(f"elastic, chunks of {chunk}", fused(chunk), check) for chunk in (2048, 4096, 8192)),
    ]
    if device.is_cuda:
        compiled = Candidate(
            "torch.compile", lambda: differentiate(torch.compile(eager, dynamic=False)), check
        )
        candidates.insert(1, compiled)
    return Job("linear_grpo_loss", f"N={tokens} H={size} V={vocab}", name_of(dtype), candidates)
