"""Hidden states and heads for the tests of `linear_grpo_loss`."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from tests.loss.batches import VALUE_ERROR, Batch, assert_gradient_near, assert_near, fitting, random_batch

LENGTHS = (3, 0, 7, 4, 5)

# Logits are rounded to the dtype before the loss sees them, and so is their gradient: the relative error in
# norm that gradients of hidden states and head may have, against float64 on the same hidden states and head.
HEAD_ERROR = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float64: 1e-11}


@dataclass
class Head:
    """hidden [N, H], weight [V, H], bias [V] or None, and the batch of their logits."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    batch: Batch

    def double(self) -> "Head":
        bias = None if self.bias is None else self.bias.double()
        return Head(self.hidden.double(), self.weight.double(), bias, self.batch.double())

    def tensors(self) -> list[Tensor]:
        return [x for x in (self.hidden, self.weight, self.bias) if x is not None]

    def leaves(self) -> "Head":
        hidden, weight, bias = (
            None if x is None else x.detach().clone().requires_grad_()
            for x in (self.hidden, self.weight, self.bias)
        )
        assert hidden is not None
        assert weight is not None
        return replace(self, hidden=hidden, weight=weight, bias=bias)


def random_head(
    dtype: torch.dtype = torch.float32,
    *,
    lengths: tuple[int, ...] = LENGTHS,
    groups: tuple[int, ...] = (2, 3),
    vocab: int = 101,
    width: int = 16,
    bias: bool = False,
    seed: int = 0,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> Head:
    """Ratios as `random_batch` makes them, for the logits of a random head."""
    generator = torch.Generator().manual_seed(seed + 100)
    hidden = torch.randn(sum(lengths), width, generator=generator).to(dtype)
    weight = (torch.randn(vocab, width, generator=generator) * 3 / width**0.5).to(dtype)
    offset = torch.randn(vocab, generator=generator).to(dtype) if bias else None
    logits = linear(hidden, weight, offset)
    options: dict[str, Any] = {"temperature": temperature, "softcap": softcap, "logits": logits}
    batch = random_batch(dtype, lengths=lengths, groups=groups, vocab=vocab, seed=seed, **options)
    return Head(hidden, weight, offset, batch)


def run(op: Any, head: Head, **options: Any) -> tuple[Any, list[Tensor]]:
    """The output, and the gradients of `.loss` on hidden, weight and, if there is one, bias."""
    leaves = head.leaves()
    batch = head.batch
    keywords = {**batch.keywords(), "bias": leaves.bias}
    keywords |= {k: getattr(batch, k) if v is ... else v for k, v in fitting(**options).items()}
    output = op(leaves.hidden, leaves.weight, *batch.positional(batch.logits)[1:], **keywords)
    return output, list(torch.autograd.grad(output.loss, leaves.tensors()))


def assert_same_results(got: Any, expected: Any, value_error: float, gradient_error: float) -> None:
    """Two results of `run`: every output in absolute terms, every gradient relative in norm."""
    for name in got[0]._fields:
        assert_near(getattr(got[0], name).detach(), getattr(expected[0], name).detach(), value_error, name)
    for one, other in zip(got[1], expected[1], strict=True):
        assert_gradient_near(one, other, gradient_error)


def value_error(dtype: torch.dtype) -> float:
    """Of outputs computed from rounded logits of size about 10."""
    return {torch.bfloat16: 6e-2, torch.float16: 8e-3}.get(dtype, VALUE_ERROR[dtype])
