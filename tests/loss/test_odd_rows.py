"""Rows of logits near the ends of their dtype, far from 0, mixed with -inf: against float64."""

import pytest
import torch
from torch import Tensor

from elastic import ops, reference
from tests.loss.batches import DTYPES, GRADIENT_ERROR, VALUE_ERROR, fitting, offsets

pytestmark = pytest.mark.usefixtures("kernels")

# Below one vector; several vectors and a rest; a block of 4,096, which may hold only -inf, and a rest.
VOCABULARIES = (5, 301, 4199)
OPTIONS = (
    {},
    {"temperature": 0.1},
    {"temperature": 10.0},
    {"softcap": 5.0},
    {"softcap": 30.0, "temperature": 0.1},
)


def odd_rows(dtype: torch.dtype, vocab: int) -> tuple[Tensor, Tensor]:
    """Logits and targets: of every row its last id, which is at the maximum in the first half."""
    low, high = torch.finfo(dtype).min, torch.finfo(dtype).max
    noise = 2 * torch.randn(vocab, generator=torch.Generator().manual_seed(vocab), dtype=torch.float64)
    even = torch.arange(vocab) % 2 == 0
    lowest = torch.full_like(noise, low)
    gone = torch.full_like(noise, -torch.inf)
    last = torch.arange(vocab) == vocab - 1

    def ending(row: Tensor, target: float) -> Tensor:
        return torch.where(last, target, row)

    rows = [
        noise + 1e5,
        noise - 1e5,
        noise / 50 + 1e7,
        torch.full_like(noise, 1e7),
        torch.full_like(noise, -1e30),
        torch.full_like(noise, 1e30),
        torch.full_like(noise, high),
        lowest,
        torch.where(even, -1e30, -1.1e30),
        noise * 1e30,
        torch.where(even, low, gone),  # the lowest float is the maximum
        ending(gone, low),
        ending(gone, -1e30),
        ending(gone, -300.0),  # a first block of nothing, then one far below 0
        torch.where(torch.arange(vocab) >= vocab - 3, noise - 200, gone),
        ending(lowest, high),
        ending(lowest, 0.0),
        # the target has next to no probability
        ending(noise, low),
        ending(noise, -1e30),
        ending(noise + 1e5, low),
        ending(torch.full_like(noise, high), low),
        ending(torch.full_like(noise, -1e30), low),
        ending(noise, -torch.inf),
        ending(lowest, -torch.inf),
    ]
    logits = torch.stack(rows)
    logits = torch.where(logits.isinf(), logits, logits.clamp(low, high)).to(dtype)
    return logits, torch.full((len(rows),), vocab - 1)


def exact(x: Tensor, options: dict) -> tuple[Tensor, dict]:
    """The same distributions in float64, without the offset that a division by the temperature would round.

    Halves, because the lowest float64 minus the largest is infinite.
    """
    x = x.double()
    if "softcap" in options:
        return x, options
    return x / 2 - x.detach().amax(1, keepdim=True) / 2, {"temperature": options.get("temperature", 1.0) / 2}


def assert_rows_near(got: Tensor, expected: Tensor, error: float, what: str) -> None:
    """Each row within `error` of its norm, or of 1 where that is larger; infinities in the same places."""
    expected = expected.to(got.dtype).double()  # a logprob of -1e39 is -inf in float32
    got = got.double()
    assert torch.equal(got.isfinite(), expected.isfinite()), f"{what}: infinite or NaN elsewhere"
    off = torch.where(expected.isfinite(), got - expected, 0.0).flatten(1).norm(dim=1)
    size = torch.where(expected.isfinite(), expected, 0.0).flatten(1).norm(dim=1).clamp(min=1)
    worst = int((off / size).argmax())
    assert off[worst] <= error * size[worst], (
        f"{what}: row {worst} is off by {off[worst]:.1e} of {size[worst]:.1e}"
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", VOCABULARIES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_token_logprobs_of_odd_rows_match_float64(dtype, vocab, options):
    logits, targets = odd_rows(dtype, vocab)

    def run(op, x, leaf, options):
        logprobs, entropy = op(x, targets, **options)
        plain = torch.autograd.grad(logprobs.sum(), leaf, retain_graph=True)[0]
        with_entropy = torch.autograd.grad((logprobs - 0.5 * entropy).sum(), leaf)[0]
        return logprobs.detach()[:, None], entropy.detach()[:, None], plain, with_entropy

    leaf, wide = logits.clone().requires_grad_(), logits.double().requires_grad_()
    got = run(ops.token_logprobs, leaf, leaf, options)
    x, its_options = exact(wide, options)
    expected = run(reference.token_logprobs, x, wide, its_options)
    hotter = max(1.0, 1 / options.get("temperature", 1.0))
    assert_rows_near(got[0], expected[0], hotter * VALUE_ERROR[dtype], "logprobs")
    assert_rows_near(got[1], expected[1], hotter * VALUE_ERROR[dtype], "entropy")
    assert_rows_near(got[2], expected[2], hotter * GRADIENT_ERROR[dtype], "gradient of the logprobs")
    assert_rows_near(got[3], expected[3], hotter * GRADIENT_ERROR[dtype], "gradient with the entropy")


OBJECTIVES = ({}, {"entropy_coef": 0.5}, {"loss": "gspo"}, {"loss": "cispo"}, {"loss": "sapo"})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", VOCABULARIES[1:])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_grpo_loss_of_odd_rows_matches_float64(dtype, vocab, options, objective):
    logits, targets = odd_rows(dtype, vocab)
    n = len(targets)
    wide = logits.double().requires_grad_()
    x, its_options = exact(wide, options)
    logprobs, _ = reference.token_logprobs(x.detach(), targets, **its_options)
    noise = 0.1 * torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    old = (logprobs.clamp(min=-50) + noise).float().double()
    advantages = 1.0 - 2 * (torch.arange(n) % 2).double()
    count = "num_tokens" if objective.get("loss") == "cispo" else "num_rows"
    whole = fitting(clip_high=5.0, **objective, **{count: 1})  # the sum over rows of one token

    def run(op, x, leaf, options):
        output = op(x, targets, old, offsets((1,) * n), advantages, **fitting(**whole, **options))
        return output.loss.detach().reshape(1, 1), torch.autograd.grad(output.loss, leaf)[0]

    expected = run(reference.grpo_loss, x, wide, its_options)
    leaf = logits.clone().requires_grad_()
    got = run(ops.grpo_loss, leaf, leaf, options)
    hotter = max(1.0, 1 / options.get("temperature", 1.0))
    assert_rows_near(got[0], expected[0], n * hotter * VALUE_ERROR[dtype], "loss")
    assert_rows_near(got[1], expected[1], hotter * GRADIENT_ERROR[dtype], "gradient")
    in_place = run(ops.grpo_loss, leaf * 1, leaf, {**options, "inplace": True})
    assert torch.equal(in_place[1], got[1])
