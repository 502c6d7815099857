"""`grpo_loss` where numbers end: -inf, NaN and overflow, nothing to learn from, nothing at all."""

import pytest
import torch

from elastic import ops, reference
from tests.loss.batches import (
    DTYPES,
    LOSSES,
    assert_matches_reference,
    assert_near,
    fitting,
    loss_and_gradient,
    random_batch,
)
from tests.loss.heads import random_head, run

pytestmark = pytest.mark.usefixtures("kernels")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("entropy_coef", [0.0, 0.01])
def test_ids_of_probability_zero_get_no_gradient(dtype, loss, entropy_coef):
    batch = random_batch(dtype)
    batch.logits[:, ::4] = -torch.inf
    batch.targets = batch.targets // 4 * 4 + 1
    assert_matches_reference(batch, loss=loss, entropy_coef=entropy_coef)
    _, gradient = loss_and_gradient(
        ops.grpo_loss,
        *batch.positional(batch.logits),
        **batch.keywords(),
        **fitting(loss=loss),
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
    logits = leaf * 1
    loss = ops.grpo_loss(
        *batch.positional(logits), **batch.keywords(), entropy_coef=entropy_coef, inplace=inplace
    )
    (gradient,) = torch.autograd.grad(loss.loss, leaf)
    assert (gradient[:, :4096] == 0).all()
    assert (gradient[:, 8192:12_288] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_may_rise_steeply_from_block_to_block(dtype):
    batch = random_batch(dtype, vocab=12_400)  # blocks of 4,096, whose maxima are far apart
    batch.logits[:, 5000] += 12
    batch.logits[:, 12_399] += 24
    batch.targets = torch.tensor([17, 5000, 12_399])[torch.arange(len(batch.targets)) % 3]
    logprobs, _ = reference.token_logprobs(batch.logits.double(), batch.targets)
    batch.old_logprobs = logprobs.to(batch.old_logprobs.dtype)
    assert_matches_reference(batch)
    _, expected = loss_and_gradient(ops.grpo_loss, *batch.positional(batch.logits), **batch.keywords())
    leaf = batch.logits.clone().requires_grad_()
    output = ops.grpo_loss(*batch.positional(leaf * 1), **batch.keywords(), inplace=True)
    (gradient,) = torch.autograd.grad(output.loss, leaf)
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_kl_that_is_only_watched_does_not_touch_the_loss(loss):
    batch = random_batch()
    plain = loss_and_gradient(
        ops.grpo_loss, *batch.positional(batch.logits), **batch.keywords(), **fitting(loss=loss)
    )
    batch.ref_logprobs[batch.mask.nonzero()[0]] = -torch.inf  # an infinite KL
    watched = loss_and_gradient(
        ops.grpo_loss,
        *batch.positional(batch.logits),
        **batch.keywords(),
        **fitting(loss=loss),
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
            **fitting(loss=loss),
            kl_coef=0.1,
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
        **fitting(loss=loss),
        kl_coef=0.1,
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
        ops.grpo_loss, *batch.positional(batch.logits), **batch.keywords(), **fitting(loss=loss)
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
        ops.grpo_loss, *batch.positional(batch.logits), **batch.keywords(), **fitting(loss=loss)
    )
    assert output.loss.item() == 0
    assert (gradient == 0).all()
    expected = reference.token_logprobs(batch.logits.double(), batch.targets)
    assert_near(output.logprobs[batch.mask], expected[0][batch.mask], 1e-5, "logprobs")
    assert_near(output.entropy[batch.mask], expected[1][batch.mask], 1e-5, "entropy")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    ("advantage", "dtype"),
    [
        (1.0, torch.float32),
        (-1.0, torch.float32),
        (0.0, torch.float32),
        (1.0, torch.bfloat16),
        (1.0, torch.half),
    ],
)
def test_nan_logits_make_the_loss_nan_and_stay_in_their_token(loss, bad, advantage, dtype):
    batch = random_batch(dtype)
    token = int(batch.mask.nonzero()[3])
    batch.logits[token, 7] = bad
    output, gradient = loss_and_gradient(
        ops.grpo_loss,
        *batch.positional(batch.logits),
        torch.full((5,), advantage),
        mask=batch.mask,
        **fitting(loss=loss),
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
        **fitting(loss=loss),
    )
    assert output.loss.isfinite()
    assert gradient.isfinite().all()
    if loss != "cispo":  # whose clipped tokens keep their gradient
        assert (gradient == 0).all()


def strided(tensor):
    """The same values with others between them."""
    return torch.stack([tensor, tensor.logical_not()], dim=-1)[..., 0]


def test_what_is_only_read_may_have_any_strides():
    batch = random_batch()
    plain, gradient = loss_and_gradient(
        ops.grpo_loss, *batch.positional(batch.logits), **batch.keywords(), temperature=torch.full((19,), 0.9)
    )
    _, *others = batch.positional(batch.logits)
    sliced, its_gradient = loss_and_gradient(
        ops.grpo_loss,
        batch.logits,
        *map(strided, others),
        **{name: strided(value) for name, value in batch.keywords().items()},
        temperature=torch.tensor([0.9]).expand(19),
    )
    assert torch.equal(sliced.loss, plain.loss)
    assert torch.equal(its_gradient, gradient)
    advantages = ops.group_advantage(strided(batch.rewards), strided(batch.group_offsets))
    assert torch.equal(advantages, plain.advantages)
    logprobs, _ = ops.token_logprobs(batch.logits, strided(batch.targets))
    assert torch.equal(logprobs, ops.token_logprobs(batch.logits, batch.targets)[0])


def test_a_strided_bias_gets_its_gradient():
    head = random_head(bias=True)
    expected = run(ops.linear_grpo_loss, head)
    leaves = head.leaves()
    pairs = torch.stack([leaves.bias.detach(), leaves.bias.detach()], dim=1).requires_grad_()
    output = ops.linear_grpo_loss(
        leaves.hidden,
        leaves.weight,
        *head.batch.positional(head.batch.logits)[1:],
        **head.batch.keywords(),
        bias=pairs[:, 0],
    )
    output.loss.backward()
    assert torch.equal(pairs.grad[:, 0], expected[1][2])
    assert not pairs.grad[:, 1].any()
