"""`grpo_loss` against the float64 reference over every loss, KL, advantage and dtype; odd rows and empty
batches."""

import itertools

import pytest
import torch

from elastic import ops, reference
from tests.loss.batches import (
    DTYPES,
    GRADIENT_ERROR,
    LOSSES,
    assert_gradient_near,
    assert_matches_reference,
    computed,
    fitting,
    loss_and_gradient,
    random_batch,
)

pytestmark = pytest.mark.usefixtures("kernels")

ADVANTAGES = ("group", "none", "batch", "rloo", "maxrl", "passk")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_every_loss_and_advantage_matches_float64(loss, advantage, dtype):
    batch = random_batch(dtype, seed=3)
    pass_k = {"pass_k": 2} if advantage == "passk" else {}
    assert_matches_reference(batch, loss=loss, advantage=advantage, **pass_k)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kl", ["k1", "k2", "k3"])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_loss_and_kl_matches_float64(loss, kl, weighted, dtype):
    batch = random_batch(dtype, seed=4)
    options = {"kl": kl, "kl_coef": 0.1, "kl_weighted": weighted, "ref_logprobs": ...}
    assert_matches_reference(batch, loss=loss, **options)


OPTIONS = [
    {"entropy_coef": 0.02},
    {"temperature": 0.7},
    {"softcap": 4.0},
    {"softcap": 4.0, "temperature": 0.7, "entropy_coef": 0.02},
    {"skip_zero_advantage": True},
    {"skip_zero_advantage": True, "ref_logprobs": ...},
    {"delta": 1.3},
    {"delta": 0.9},
    {"dual_clip": 1.1},
    {"clip_low": 0.1, "clip_high": 0.4},
    {"engine_logprobs": ..., "engine_high": 1.2, "engine_low": 0.8},
    {"engine_logprobs": ..., "engine_high": 1.2, "engine_low": 0.8, "engine_mode": "mask"},
    {"engine_logprobs": ..., "engine_high": 3.0, "engine_level": "row"},
    {"engine_logprobs": ..., "engine_high": 3.0, "engine_level": "row", "engine_mode": "mask"},
    {"num_tokens": 100, "num_rows": 12},
    {"mask": None},
    {"ref_logprobs": ..., "kl_coef": 0.1, "kl_weighted": True, "entropy_coef": 0.02, "temperature": 1.3}
    | {"engine_logprobs": ..., "delta": 1.3, "dual_clip": 1.2},
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o))
def test_every_option_matches_float64(loss, options, dtype):
    sampled = {key: options[key] for key in ("temperature", "softcap") if key in options}
    batch = random_batch(dtype, seed=5, **sampled)
    assert_matches_reference(batch, loss=loss, **options)


# One id; less than a vector; one block of 4,096; one more; several blocks and a rest.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", [1, 5, 4096, 4097, 10_001])
def test_any_vocabulary(vocab, dtype):
    for loss, entropy_coef in itertools.product(("grpo", "gspo"), (0.0, 0.01)):
        assert_matches_reference(random_batch(dtype, vocab=vocab), loss=loss, entropy_coef=entropy_coef)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_temperature_a_token(dtype):
    batch = random_batch(dtype)
    temperature = torch.rand(len(batch.targets), generator=torch.Generator().manual_seed(1)) + 0.5
    for loss in ("grpo", "gspo"):
        assert_matches_reference(batch, loss=loss, temperature=temperature)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inplace", [False, True])
def test_strided_rows_are_used_where_they_lie(kernels, dtype, inplace):
    batch = random_batch(dtype)
    n, v = batch.logits.shape
    padded = torch.full((n, v + 7), 5.0, dtype=dtype)
    padded[:, 3 : v + 3] = batch.logits
    window = padded[:, 3 : v + 3]
    _, expected = loss_and_gradient(ops.grpo_loss, *batch.positional(batch.logits), **batch.keywords())
    grown = window.detach().requires_grad_()
    output = ops.grpo_loss(*batch.positional(computed(grown)), **batch.keywords(), inplace=inplace)
    (gradient,) = torch.autograd.grad(output.loss, grown)
    if kernels == "cpu":
        assert torch.equal(gradient, expected)
    else:  # CUDA kernels sum in the order of 16-byte words, and those lie elsewhere in an odd row
        assert_gradient_near(gradient, expected, GRADIENT_ERROR[dtype])
    outside = torch.cat([padded[:, :3], padded[:, v + 3 :]], 1)
    assert (outside == 5.0).all(), "wrote outside the rows"
    assert torch.equal(window, gradient if inplace else batch.logits)


@pytest.mark.cpu_kernels  # float64
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kl_coef": 0.1, "kl": "k3"},
        {"kl_coef": 0.1, "kl": "k2", "kl_weighted": True},
        {"entropy_coef": 0.1},
    ],
    ids=lambda o: "-".join(o) or "plain",
)
def test_gradcheck(loss, options):
    batch = random_batch(torch.float64, lengths=(2, 3), groups=(2,), vocab=5, seed=1)
    # Ratios inside the clip range: finite differences must not cross a kink.
    batch.old_logprobs = reference.token_logprobs(batch.logits, batch.targets)[0] - 0.05
    batch.rewards = torch.tensor([1.0, 0.0]).double()
    if "kl" in options:
        options = options | {"ref_logprobs": batch.ref_logprobs}

    def loss_of(x):
        return ops.grpo_loss(*batch.positional(x), **batch.keywords(), **fitting(loss=loss), **options).loss

    if loss == "cispo":  # its first factor is a constant to autograd, not to finite differences
        x = batch.logits.clone().requires_grad_()
        y = batch.logits.clone().requires_grad_()
        expected = reference.grpo_loss(*batch.positional(y), **batch.keywords(), loss=loss, **options).loss
        assert_gradient_near(
            torch.autograd.grad(loss_of(x), x)[0],
            torch.autograd.grad(expected, y)[0],
            GRADIENT_ERROR[torch.float64],
        )
    else:
        assert torch.autograd.gradcheck(loss_of, batch.logits.requires_grad_())
