"""`grpo_loss` against the float64 reference over every loss, KL, advantage and dtype; odd rows and empty
batches."""

import itertools

import pytest
import torch

from elastic import ops, reference

from .batches import (
    DTYPES,
    GRADIENT_ERROR,
    LOSSES,
    VALUE_ERROR,
    Batch,
    assert_gradient_near,
    assert_matches_reference,
    assert_near,
    loss_and_gradient,
    random_batch,
)

ADVANTAGES = ("group", "none", "batch", "rloo", "maxrl", "passk")


def assert_matches_reference(batch: Batch, **options) -> None:
    """Every output and the gradient, against the reference in float64 on the same values."""
    dtype = batch.logits.dtype
    exact = batch.double()

    def run(op, b):
        given = {k: getattr(b, k) if v is ... else v for k, v in options.items()}
        return loss_and_gradient(op.grpo_loss, *b.positional(b.logits), **{**b.keywords(), **given})

    expected, expected_gradient = run(reference, exact)
    got, gradient = run(ops, batch)
    for name in got._fields:
        assert_near(getattr(got, name).detach(), getattr(expected, name).detach(), VALUE_ERROR[dtype], name)
    assert gradient.dtype == dtype
    assert_gradient_near(gradient, expected_gradient, GRADIENT_ERROR[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_every_loss_and_advantage_matches_float64(loss, advantage, dtype):
    batch = random_batch(dtype, seed=3)
    assert_matches_reference(batch, loss=loss, advantage=advantage, pass_k=2, max_length=9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kl", ["k1", "k2", "k3"])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_loss_and_kl_matches_float64(loss, kl, weighted, dtype):
    batch = random_batch(dtype, seed=4)
    options = {"kl": kl, "kl_coef": 0.1, "kl_weighted": weighted, "ref_logprobs": ...}
    assert_matches_reference(batch, loss=loss, max_length=9, **options)


OPTIONS = [
    {"entropy_coef": 0.02},
    {"temperature": 0.7},
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
    {"tau_positive": 0.8, "tau_negative": 1.4},
    {"ref_logprobs": ..., "kl_coef": 0.1, "kl_weighted": True, "entropy_coef": 0.02, "temperature": 1.3}
    | {"engine_logprobs": ..., "delta": 1.3, "dual_clip": 1.2},
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o))
def test_every_option_matches_float64(loss, options, dtype):
    batch = random_batch(dtype, seed=5, temperature=options.get("temperature", 1.0))
    assert_matches_reference(batch, loss=loss, max_length=9, **options)


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
def test_strided_rows_are_used_where_they_lie(dtype, inplace):
    batch = random_batch(dtype)
    n, v = batch.logits.shape
    padded = torch.full((n, v + 7), 5.0, dtype=dtype)
    padded[:, 3 : v + 3] = batch.logits
    window = padded[:, 3 : v + 3]
    _, expected = loss_and_gradient(ops.grpo_loss, *batch.positional(batch.logits), **batch.keywords())
    grown = window.detach().requires_grad_()
    output = ops.grpo_loss(*batch.positional(grown.view(grown.shape)), **batch.keywords(), inplace=inplace)
    (gradient,) = torch.autograd.grad(output.loss, grown)
    assert torch.equal(gradient, expected)
    outside = torch.cat([padded[:, :3], padded[:, v + 3 :]], 1)
    assert (outside == 5.0).all(), "wrote outside the rows"
    assert torch.equal(window, expected if inplace else batch.logits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("entropy_coef", [0.0, 0.01])
def test_ids_of_probability_zero_get_no_gradient(dtype, loss, entropy_coef):
    batch = random_batch(dtype)
    batch.logits[:, ::4] = -torch.inf
    batch.targets = batch.targets // 4 * 4 + 1
    assert_matches_reference(batch, loss=loss, max_length=9, entropy_coef=entropy_coef)
    _, gradient = loss_and_gradient(
        ops.grpo_loss,
        *batch.positional(batch.logits),
        **batch.keywords(),
        loss=loss,
        max_length=9,
        entropy_coef=entropy_coef,
    )
    assert (gradient[:, ::4] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("entropy_coef", [0.0, 0.01])
@pytest.mark.parametrize("inplace", [False, True])
def test_whole_blocks_of_probability_zero_get_no_gradient(dtype, entropy_coef, inplace):
    batch = random_batch(dtype, vocab=12_400)  # blocks of 4,096: the first and the third hold nothing
    batch.logits[:, :4096] = -torch.inf
    batch.logits[:, 8192:12_288] = -torch.inf
    batch.targets = 4096 + batch.targets % 4096
    assert_matches_reference(batch, entropy_coef=entropy_coef)
    leaf = batch.logits.clone().requires_grad_()
    logits = leaf.view(leaf.shape)
    loss = ops.grpo_loss(
        *batch.positional(logits), **batch.keywords(), entropy_coef=entropy_coef, inplace=inplace
    )
    (gradient,) = torch.autograd.grad(loss.loss, leaf)
    assert (gradient[:, :4096] == 0).all()
    assert (gradient[:, 8192:12_288] == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_kl_that_is_only_watched_does_not_touch_the_loss(loss):
    batch = random_batch()
    plain = loss_and_gradient(
        ops.grpo_loss, *batch.positional(batch.logits), **batch.keywords(), loss=loss, max_length=9
    )
    batch.ref_logprobs[batch.mask.nonzero()[0]] = -torch.inf  # an infinite KL
    watched = loss_and_gradient(
        ops.grpo_loss,
        *batch.positional(batch.logits),
        **batch.keywords(),
        loss=loss,
        max_length=9,
        ref_logprobs=batch.ref_logprobs,
    )
    assert watched[0].kl.item() == torch.inf
    assert torch.equal(watched[0].loss, plain[0].loss)
    assert torch.equal(watched[1], plain[1])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_empty_batch_is_a_loss_of_zero(loss, dtype):
    empty = torch.zeros(0)
    for rows in (0, 3):
        output, gradient = loss_and_gradient(
            ops.grpo_loss,
            torch.zeros(0, 11, dtype=dtype),
            torch.zeros(0, dtype=torch.int64),
            empty,
            torch.zeros(rows + 1, dtype=torch.int64),
            torch.ones(rows),
            ref_logprobs=empty,
            loss=loss,
            kl_coef=0.1,
            max_length=5,
        )
        assert output.loss.item() == output.kl.item() == output.clip_fraction.item() == 0
        assert gradient.shape == (0, 11)
        assert output.logprobs.shape == output.entropy.shape == (0,)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_masked_is_a_loss_of_zero_and_no_gradient(loss, dtype):
    batch = random_batch(dtype)
    batch.mask[:] = False
    output, gradient = loss_and_gradient(
        ops.grpo_loss,
        *batch.positional(batch.logits),
        **batch.keywords(),
        ref_logprobs=batch.ref_logprobs,
        loss=loss,
        kl_coef=0.1,
        max_length=5,
        entropy_coef=0.1,
    )
    assert output.loss.item() == output.kl.item() == output.clip_fraction.item() == 0
    assert (gradient == 0).all()
    assert (output.logprobs == 0).all()
    assert (output.entropy == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_one_row_of_one_token(loss):
    batch = random_batch(lengths=(1,), groups=(1,))
    batch.mask[:] = True
    output, gradient = loss_and_gradient(
        ops.grpo_loss, *batch.positional(batch.logits), **batch.keywords(), loss=loss, max_length=5
    )
    assert output.advantages.tolist() == [0.0]  # a group of one
    assert output.loss.item() == 0
    assert (gradient == 0).all()
    assert output.logprobs.item() < 0, "metrics are still reported"


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_rewards_give_no_gradient_but_logprobs(loss):
    batch = random_batch()
    batch.rewards[:] = 0.1
    output, gradient = loss_and_gradient(
        ops.grpo_loss, *batch.positional(batch.logits), **batch.keywords(), loss=loss, max_length=5
    )
    assert output.loss.item() == 0
    assert (gradient == 0).all()
    expected = reference.token_logprobs(batch.logits.double(), batch.targets)
    assert_near(output.logprobs[batch.mask], expected[0][batch.mask], 1e-5, "logprobs")
    assert_near(output.entropy[batch.mask], expected[1][batch.mask], 1e-5, "entropy")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_logits_make_the_loss_nan_and_stay_in_their_token(loss, bad):
    batch = random_batch()
    token = int(batch.mask.nonzero()[3])
    batch.logits[token, 7] = bad
    output, gradient = loss_and_gradient(
        ops.grpo_loss, *batch.positional(batch.logits), **batch.keywords(), loss=loss, max_length=5
    )
    assert output.loss.isnan()
    assert gradient[token].isnan().all()
    # gspo's tokens share a ratio, so its whole row is lost; the other rows never are
    row = int(torch.searchsorted(batch.row_offsets, token, right=True)) - 1
    others = torch.ones(len(batch.targets), dtype=torch.bool)
    if loss == "gspo":
        others[batch.row_offsets[row] : batch.row_offsets[row + 1]] = False
    else:
        others[token] = False
    assert gradient[others].isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_ratio_that_overflows_is_clipped_not_nan(loss):
    # ratio exp(200) is inf in float32: a positive advantage is clipped, a zero one ignored.
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    output, gradient = loss_and_gradient(
        ops.grpo_loss,
        logits,
        torch.tensor([1, 1]),
        torch.tensor([-200.0, -200.0]),
        torch.tensor([0, 1, 2]),
        torch.tensor([1.0, 0.0]),
        loss=loss,
        max_length=5,
    )
    assert output.loss.isfinite()
    assert gradient.isfinite().all()
    if loss != "cispo":  # whose clipped tokens keep their gradient
        assert (gradient == 0).all()


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
        return ops.grpo_loss(
            *batch.positional(x), **batch.keywords(), loss=loss, max_length=4, **options
        ).loss

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
