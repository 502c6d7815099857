"""`linear_grpo_loss`: from hidden states and the head to the loss and both gradients.

N tokens, H hidden, V vocabulary. The floor is arithmetic: three matrix products, timed bare beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.harness.case import COMPILED, Case, Variant, compiler_for, name_of
from bench.harness.device import Device
from bench.harness.models import MODELS, model_of
from bench.ops.grpo_loss import fused_loss
from bench.ops.inputs import (
    COMPLETIONS,
    Inputs,
    assert_near,
    clipped_loss,
    eager_loss,
    slope,
)
from bench.ops.linear_rivals import Loss, rivals
from elastic import ops

DEFAULT_CHUNK = 4096  # tokens, of other ways in chunks where the op chooses its own
PRODUCTS = "three bare products"
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


def case(
    device: Device,
    tokens: int,
    size: int,
    vocab: int,
    dtype: torch.dtype,
    chunks: Sequence[int | None] = (DEFAULT_CHUNK,),
    model: str | None = None,
    names: Sequence[str] | None = None,
    baseline: str = "eager",
) -> Case:
    """Args:
    chunks: `chunk_tokens` of the op, a variant each; the first one also of the other ways in chunks. None is
        the op's own choice, beside bare products of all tokens at once.
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

    def fused(chunk: int | None) -> Callable[[], Callable[[int], Any]]:
        def loss(hidden: Tensor, weight: Tensor) -> Tensor:
            rest = (batch.targets, batch.old_logprobs, batch.row_offsets, batch.advantages)
            return ops.linear_grpo_loss(hidden, weight, *rest, chunk_tokens=chunk).loss

        return lambda: differentiate(loss)

    variants = [
        Variant("eager", lambda: differentiate(eager), check),
        Variant(COMPILED, compiled, check, needs=compiler_for(device)),
        *rivals(device, batch, chunks[0] or DEFAULT_CHUNK, differentiate, check),
        Variant("elastic, all logits", lambda: differentiate(all_logits), check),
    ]
    for chunk in chunks:
        several = f", chunks of {chunk}" if chunk is not None and len(chunks) > 1 else ""
        variants += floors(heads, chunk or tokens, several)
        variants.append(Variant(f"elastic{several}", fused(chunk), check))
    if names is not None:
        variants = [variant for variant in variants if variant.name in names]
    shape = f"N={tokens} H={size} V={vocab}" + (
        f" chunk={chunks[0]}" if len(chunks) == 1 and chunks[0] not in (None, DEFAULT_CHUNK) else ""
    )
    known = model_of(vocab)
    own = known if known and MODELS[known].hidden == size else None
    return Case("linear_grpo_loss", shape, name_of(dtype), variants, baseline=baseline, model=model or own)


def floors(heads: Heads, chunk: int, of: str) -> list[Variant]:
    """The three matrix products in chunks, and nothing else.

    Where a GPU sums the head's gradient over 16-bit chunks, also with the sum in float32: the op's products
    as they are, beside the fastest of these shapes.
    """
    hidden, weight = heads.hidden, heads.weight
    parts = hidden.split(chunk)

    def products(_: int) -> list[Tensor]:
        made = []
        for part in parts:
            logits = part @ weight.T
            made = [logits, logits @ weight, logits.T @ part]
        return made

    def summed(_: int) -> list[Tensor]:
        made, sum_ = [], torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
        for number, part in enumerate(parts):
            logits = part @ weight.T
            beta = 0 if number == 0 else 1
            torch.addmm(sum_, logits.T, part, out_dtype=torch.float32, beta=beta, out=sum_)
            made = [logits, logits @ weight, sum_]
        return made

    found = [Variant(f"{PRODUCTS}{of}", lambda: products, floor=True)]
    if len(parts) > 1 and weight.is_cuda and weight.element_size() == 2:
        found.append(Variant(f"{PRODUCTS}{of}, summed", lambda: summed, floor=True))
    return found
