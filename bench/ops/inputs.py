"""Inputs of the loss benches, lean eager baselines, and exact answers for a sample of tokens.

N tokens, V vocabulary, R completions. Everything an eager baseline can have beforehand is made beforehand:
the advantage and the weight of each token.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bench.harness.device import Device

COMPLETIONS = 8
LOW, HIGH = 0.8, 1.2
CHUNK = 512  # tokens whose logits are held in float64 at a time
# Relative error of a gradient in norm. bfloat16: each element is rounded to 8 bits. torch.compile and
# Triton use faster exponentials in float32.
GRADIENT_LIMIT = {torch.bfloat16: 5e-3, torch.float16: 1e-3, torch.float32: 1e-4, torch.float64: 1e-10}
VALUE_LIMIT = 2e-4


@dataclass
class Inputs:
    """One packed batch under the default clipped objective, mean over completions of each one's mean.

    Attributes:
        logits: [N, V]. targets: [N]. old_logprobs: [N]. row_offsets: [R + 1]. advantages: [R].
        advantage, weight: [N] float32, of each token.
    """

    logits: Tensor
    targets: Tensor
    old_logprobs: Tensor
    row_offsets: Tensor
    advantages: Tensor
    advantage: Tensor
    weight: Tensor

    @classmethod
    def random(cls, tokens: int, vocab: int, dtype: torch.dtype, device: Device, seed: int) -> "Inputs":
        generator = torch.Generator(device.torch).manual_seed(seed)
        on = {"device": device.torch, "generator": generator}
        logits = torch.randn(tokens, vocab, dtype=dtype, **on).mul_(3)
        targets = torch.randint(vocab, (tokens,), **on)
        old = exact_logprobs(logits, targets)[0].float() + 0.1 * torch.randn(tokens, **on)
        return cls.around(logits, targets, old, torch.randn(COMPLETIONS, **on))

    @classmethod
    def around(cls, logits: Tensor, targets: Tensor, old: Tensor, advantages: Tensor) -> "Inputs":
        tokens, rows = len(targets), len(advantages)
        bounds = [tokens * r // rows for r in range(rows + 1)]
        lengths = torch.tensor([b - a for a, b in pairwise(bounds)], device=old.device)
        return cls(
            logits,
            targets,
            old,
            torch.tensor(bounds, device=old.device),
            advantages,
            advantages.repeat_interleave(lengths),
            (1 / (lengths * rows)).float().repeat_interleave(lengths),
        )

    def sample(self) -> Tensor:
        """Indices of tokens that are checked; the last among them, whose offset is the largest."""
        tokens = len(self.targets)
        return torch.linspace(0, tokens - 1, min(16, tokens), device=self.targets.device).long()


def clipped_loss(logprobs: Tensor, old: Tensor, advantage: Tensor, weight: Tensor) -> Tensor:
    ratio = torch.exp(logprobs - old)
    return -(torch.minimum(ratio * advantage, ratio.clamp(LOW, HIGH) * advantage) * weight).sum()


def eager_loss(logits: Tensor, inputs: Inputs) -> Tensor:
    """As lean as eager gets: log_softmax in float32, gather, the clipped objective."""
    logprobs = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    chosen = logprobs.gather(1, inputs.targets[:, None])[:, 0]
    return clipped_loss(chosen, inputs.old_logprobs, inputs.advantage, inputs.weight)


def eager_logprobs(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logprob of each target and entropy of each row."""
    logprobs = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


def exact_logprobs(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logprobs and entropies [N] float64, a chunk of tokens at a time."""
    parts = []
    for first in range(0, len(targets), CHUNK):
        logprobs = torch.log_softmax(logits[first : first + CHUNK].double(), dim=-1)
        chosen = logprobs.gather(1, targets[first : first + CHUNK, None])[:, 0]
        parts.append((chosen, -(logprobs.exp() * logprobs).sum(-1)))
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def slope(logprobs: Tensor, inputs: Inputs) -> Tensor:
    """[N] float64: derivative of the loss with respect to each token's logprob."""
    logprobs = logprobs.detach().double().requires_grad_()
    rest = (inputs.old_logprobs.double(), inputs.advantage.double(), inputs.weight.double())
    return torch.autograd.grad(clipped_loss(logprobs, *rest), logprobs)[0]


@dataclass
class Exact:
    """The loss of a batch, and the gradient at the logits of its sampled tokens, in float64."""

    inputs: Inputs
    loss: Tensor
    gradient: Tensor

    @classmethod
    def of(cls, inputs: Inputs) -> "Exact":
        logprobs, _ = exact_logprobs(inputs.logits, inputs.targets)
        rest = (inputs.old_logprobs.double(), inputs.advantage.double(), inputs.weight.double())
        at = inputs.sample()
        gradient = -torch.softmax(inputs.logits[at].double(), dim=-1)
        gradient[torch.arange(len(at), device=at.device), inputs.targets[at]] += 1
        gradient *= slope(logprobs, inputs)[at, None]
        return cls(inputs, clipped_loss(logprobs, *rest), gradient)

    def check(self, loss: Tensor, gradient: Tensor) -> None:
        """Args: gradient: [N, V], as the candidate made it.

        Raises:
            AssertionError: loss or gradient are off by more than rounding, or hold a NaN.
        """
        got = gradient[self.inputs.sample()].double()
        error = ((got - self.gradient).norm() / self.gradient.norm()).item()
        limit = GRADIENT_LIMIT[gradient.dtype]
        # The complements of < hold for NaN, too.
        assert error < limit, f"gradient off by {error:.1e}, expected less than {limit:.0e}"
        assert_near("loss", loss, self.loss)


def assert_near(name: str, got: Tensor, expected: Tensor, limit: float = VALUE_LIMIT) -> None:
    """Raises AssertionError where values differ by more than `limit`, absolute, or relative above 1."""
    error = ((got.double() - expected).abs() / expected.abs().clamp(min=1)).max().item()
    assert error < limit, f"{name} off by {error:.1e}, expected less than {limit:.0e}"
