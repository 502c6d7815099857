"""Batches for the loss tests, and comparisons that look at NaN placement and name the worst place."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from elastic import ops, reference

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo")

# The relative error a gradient may have in norm, and loss, logprobs, entropy in absolute terms, against
# float64. float32: an exp and a sum of a few hundred terms, each good to about 1e-7, on logprobs near -20
# (ulp 2e-6). 16 bits: outputs are rounded to 8 or 11 bits (2^-9 or 2^-12 each; float16's subnormals a little
# more); scalars are computed in float32 from the same logits.
GRADIENT_ERROR = {torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 1e-3, torch.float64: 1e-12}
VALUE_ERROR = {torch.float32: 1e-5, torch.bfloat16: 1e-5, torch.float16: 1e-5, torch.float64: 1e-12}


@dataclass
class Batch:
    """A packed batch: logits [N, V], targets, old_logprobs, ref_logprobs, engine_logprobs, mask [N],
    row_offsets [R + 1], rewards [R], group_offsets [K + 1]."""

    logits: Tensor
    targets: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    engine_logprobs: Tensor
    mask: Tensor
    row_offsets: Tensor
    rewards: Tensor
    group_offsets: Tensor

    def double(self) -> "Batch":
        """The same values, in float64."""
        floats = {k: v.double() for k, v in vars(self).items() if v.is_floating_point()}
        return replace(self, **floats)

    def positional(self, logits: Tensor) -> tuple[Tensor, ...]:
        return logits, self.targets, self.old_logprobs, self.row_offsets

    def keywords(self) -> dict[str, Any]:
        return {"rewards": self.rewards, "group_offsets": self.group_offsets, "mask": self.mask}


def random_batch(
    dtype: torch.dtype = torch.float32,
    *,
    lengths: tuple[int, ...] = (3, 0, 7, 4, 5),
    groups: tuple[int, ...] = (2, 3),
    vocab: int = 301,
    seed: int = 0,
    temperature: float = 1.0,
    softcap: float | None = None,
    logits: Tensor | None = None,
) -> Batch:
    """Ratios spread over both sides of a 0.2 clip; one row empty, a third of the tokens masked; V odd."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    if logits is None:
        logits = (torch.randn(n, vocab, generator=generator) * 3).to(dtype)
    targets = torch.randint(vocab, (n,), generator=generator)
    wide = reference.token_logprobs(logits.double(), targets, temperature, softcap=softcap)[0]
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32

    def near(x: Tensor, spread: float) -> Tensor:
        return (x + spread * torch.randn(n, generator=generator)).to(accumulator)

    old = near(wide, 0.4)
    return Batch(
        logits,
        targets,
        old,
        near(wide, 0.4),
        near(old, 0.5),
        torch.rand(n, generator=generator) > 0.3,
        offsets(lengths),
        torch.randint(2, (len(lengths),), generator=generator).to(accumulator),
        offsets(groups),
    )


def offsets(lengths: tuple[int, ...]) -> Tensor:
    return torch.tensor([sum(lengths[:i]) for i in range(len(lengths) + 1)])


CLIPPING = ("clip_low", "clip_high", "delta", "dual_clip")


def fitting(length: int = 9, **options: Any) -> dict[str, Any]:
    """The options that the loss takes: the length for dr_grpo alone, no clipping where it reads none."""
    loss = options.get("loss", "grpo")
    unread = {"sapo": CLIPPING, "cispo": ("clip_low", "delta", "dual_clip")}.get(loss, ())
    taken = {name: value for name, value in options.items() if name not in unread}
    return {**taken, "max_length": length} if loss == "dr_grpo" else taken


def computed(leaf: Tensor) -> Tensor:
    """As a matrix product leaves logits: memory of the leaf, which `inplace` may overwrite, but no view."""
    return torch.ops.aten._unsafe_view(leaf, leaf.shape)


def loss_and_gradient(op: Any, logits: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Tensor]:
    """The op's output and the logits' gradient of `.loss`."""
    leaf = logits.detach().clone().requires_grad_()
    output = op(leaf, *args, **kwargs)
    (gradient,) = torch.autograd.grad(output.loss, leaf)
    return output, gradient


def run(batch: Batch, **options) -> tuple[Any, Tensor]:
    """`grpo_loss` of the batch, and its gradient, under the options that the loss takes."""
    keywords = {**batch.keywords(), **fitting(**options)}
    return loss_and_gradient(ops.grpo_loss, *batch.positional(batch.logits), **keywords)


def assert_near(got: Tensor, expected: Tensor, error: float, what: str) -> None:
    """NaN and inf in the same places, the rest within an absolute error."""
    got, expected = got.double(), expected.double()
    assert got.shape == expected.shape, f"{what}: shape {list(got.shape)} instead of {list(expected.shape)}"
    assert torch.equal(got.isnan(), expected.isnan()), f"{what}: NaN elsewhere"
    assert torch.equal(got.isinf(), expected.isinf()), f"{what}: inf elsewhere"
    off = torch.where(expected.isfinite(), got - expected, 0.0).abs().flatten()
    if off.numel() and off.max() > error:
        worst = int(off.argmax())
        have, want = got.flatten()[worst], expected.flatten()[worst]
        raise AssertionError(f"{what}: off by {off.max():.2e} at {worst}: {have} instead of {want}")


def assert_gradient_near(got: Tensor, expected: Tensor, error: float) -> None:
    """Relative error in norm, over all elements."""
    got, expected = got.double(), expected.double()
    assert got.shape == expected.shape
    assert torch.isfinite(got).all(), "gradient: not finite"
    relative = (got - expected).norm() / expected.norm().clamp(min=1e-30)
    assert relative <= error, f"gradient: relative error {relative:.2e}, allowed {error:.0e}"


def assert_matches_reference(batch: Batch, **options) -> None:
    """Every output and the gradient, against the reference in float64 on the same values."""
    dtype = batch.logits.dtype
    exact = batch.double()

    def outcome(op, b):
        given = {k: getattr(b, k) if v is ... else v for k, v in fitting(**options).items()}
        return loss_and_gradient(op.grpo_loss, *b.positional(b.logits), **{**b.keywords(), **given})

    expected, expected_gradient = outcome(reference, exact)
    got, gradient = outcome(ops, batch)
    for name in got._fields:
        assert_near(getattr(got, name).detach(), getattr(expected, name).detach(), VALUE_ERROR[dtype], name)
    assert gradient.dtype == dtype
    assert_gradient_near(gradient, expected_gradient, GRADIENT_ERROR[dtype])
