"""`linear_grpo_loss`: from hidden states and the head to the loss and both gradients.

N tokens, H hidden, V vocabulary. The floor is arithmetic: three matrix products, timed bare beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bench.harness.case import CHUNKED_CROSS_ENTROPY, COMPILED, Case, Variant, compiler_for, name_of
from bench.harness.device import Device
from bench.harness.models import MODELS, model_of
from bench.ops.grpo_loss import fused_loss
from bench.ops.inputs import (
    COMPLETIONS,
    HIGH,
    LOW,
    Inputs,
    assert_near,
    clipped_loss,
    eager_logprobs,
    eager_loss,
    slope,
)
from elastic import ops

DEFAULT_CHUNK = 4096  # tokens, the op's own
TRL_CHUNK = 32_768  # ids a tile, TRL's own
CHUNK = 1024  # tokens whose logits are held in float32 at a time
# Logits of the variants are rounded to 8 bits before the softmax, in places to a hundredth.
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


Loss = Callable[[Tensor, Tensor], Tensor]


def case(
    device: Device,
    tokens: int,
    size: int,
    vocab: int,
    dtype: torch.dtype,
    chunks: Sequence[int] = (DEFAULT_CHUNK,),
    model: str | None = None,
    names: Sequence[str] | None = None,
    baseline: str = "eager",
) -> Case:
    """Args:
    chunks: `chunk_tokens` of the op, a variant each; the first one also of the other ways in chunks.
    model: whose sizes these are, where V and H do not say it.
    names: variants, or None for all.
    baseline: the variant that the others are compared with.
    """
    heads = Heads.random(tokens, size, vocab, dtype, device)
    batch, check = heads.batch, check_against_floats(heads)

    def differentiate(loss: Loss) -> Callable[[int], Any]:
        def run(_: int) -> tuple[Tensor, Tensor, Tensor]:
            hidden, weight = heads.hidden.detach().requires_grad_(), heads.weight.detach().requires_grad_()
            value = loss(hidden, weight)
            return value.detach(), *torch.autograd.grad(value, (hidden, weight))

        return run

    def eager(hidden: Tensor, weight: Tensor) -> Tensor:
        return eager_loss(hidden @ weight.T, batch)

    def compiled() -> Callable[[int], Any]:
        return differentiate(torch.compile(eager, dynamic=False))

    def all_logits(hidden: Tensor, weight: Tensor) -> Tensor:
        return fused_loss(hidden @ weight.T, batch, inplace=True)

    def fused(chunk: int) -> Callable[[], Callable[[int], Any]]:
        def loss(hidden: Tensor, weight: Tensor) -> Tensor:
            rest = (batch.targets, batch.old_logprobs, batch.row_offsets, batch.advantages)
            return ops.linear_grpo_loss(hidden, weight, *rest, chunk_tokens=chunk).loss

        return lambda: differentiate(loss)

    def products(_: int) -> list[Tensor]:
        """The three matrix products in chunks, and nothing else."""
        made = []
        step = chunks[0] if len(chunks) == 1 else DEFAULT_CHUNK
        for first in range(0, tokens, step):
            hidden = heads.hidden[first : first + step]
            logits = hidden @ heads.weight.T
            made = [logits, logits @ heads.weight, logits.T @ hidden]
        return made

    variants = [
        Variant("eager", lambda: differentiate(eager), check),
        Variant(COMPILED, compiled, check, needs=compiler_for(device)),
        Variant(
            "torch linear_cross_entropy",
            lambda: differentiate(torch_loss(batch)),
            check,
            needs=(CHUNKED_CROSS_ENTROPY,),
        ),
        Variant("TRL chunked head", lambda: differentiate(trl_loss(batch)), check, needs=("trl",)),
        Variant("three bare products", lambda: products, floor=True),
    ]
    if tokens % COMPLETIONS == 0:
        liger = lambda: differentiate(liger_loss(batch, compiled=device.is_cuda))  # noqa: E731
        variants.append(Variant("liger-kernel", liger, check, needs=("liger-kernel",)))
    variants += [
        Variant("checkpointed chunks", lambda: differentiate(checkpointed(batch, chunks[0])), check),
        Variant("elastic, all logits", lambda: differentiate(all_logits), check),
    ]
    for chunk in chunks:
        name = "elastic" if len(chunks) == 1 else f"elastic, chunks of {chunk}"
        variants.append(Variant(name, fused(chunk), check))
    if names is not None:
        variants = [variant for variant in variants if variant.name in names]
    shape = f"N={tokens} H={size} V={vocab}" + (
        f" chunk={chunks[0]}" if len(chunks) == 1 and chunks[0] != DEFAULT_CHUNK else ""
    )
    known = model_of(vocab)
    own = known if known and MODELS[known].hidden == size else None
    return Case("linear_grpo_loss", shape, name_of(dtype), variants, baseline=baseline, model=model or own)


def checkpointed(batch: Inputs, chunk: int) -> Loss:
    """Eager a chunk of tokens at a time, whose logits are computed again in the backward: four products."""

    def part(hidden: Tensor, weight: Tensor, at: slice) -> Tensor:
        logprobs, _ = eager_logprobs(hidden @ weight.T, batch.targets[at])
        return clipped_loss(logprobs, batch.old_logprobs[at], batch.advantage[at], batch.weight[at])

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        spans = [slice(first, first + chunk) for first in range(0, len(hidden), chunk)]
        parts = [checkpoint(part, hidden[at], weight, at, use_reentrant=False) for at in spans]
        return torch.stack(parts).sum()

    return loss


def torch_loss(batch: Inputs) -> Loss:
    """torch's chunked cross-entropy, whose per-token loss is the negative logprob."""
    options = torch.nn.LinearCrossEntropyOptions()

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        nll = F.linear_cross_entropy(hidden, weight, batch.targets, reduction="none", options=options)
        return clipped_loss(-nll.float(), batch.old_logprobs, batch.advantage, batch.weight)

    return loss


def trl_loss(batch: Inputs) -> Loss:
    """TRL's chunked logprob head, as its GRPO trainer calls it but without the entropy."""
    from trl.kernels import ChunkedLogProbFunction

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        logprobs = ChunkedLogProbFunction.apply(
            hidden, weight, None, batch.targets, 1.0, TRL_CHUNK, None, 1.0, ()
        )[0]
        return clipped_loss(logprobs, batch.old_logprobs, batch.advantage, batch.weight)

    return loss


def liger_loss(batch: Inputs, compiled: bool) -> Loss:
    """liger-kernel's fused linear loss, a completion at a time."""
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

    module = LigerFusedLinearGRPOLoss(
        beta=0.0,
        compiled=compiled,
        use_ref_model=False,
        epsilon_low=1 - LOW,
        epsilon_high=HIGH - 1,
        loss_type="grpo",
    )
    targets, old = batch.targets.view(COMPLETIONS, -1), batch.old_logprobs.view(COMPLETIONS, -1)
    mask = torch.ones_like(targets)

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        rows = hidden.view(COMPLETIONS, -1, hidden.shape[-1])
        return module(rows, weight, targets, mask, batch.advantages, old_per_token_logps=old)[0]

    return loss
