"""Parity with Liger 0.8.5: `LigerFusedLinearGRPOFunction.ppo_loss_fn`, a pure function of logprobs.

Values, gradients on the logits, and both metrics, for every loss type Liger shares with SPEC section 5. gspo
is Liger's "grpo" with `importance_sampling_level="sequence"`. Liger has no entropy bonus and no KL but k3. It
agrees with the table everywhere else; even its clip metric for gspo counts tokens, as ours does.
"""

from itertools import pairwise

import pytest
import torch
from liger_kernel.chunked_loss.grpo_loss import LigerFusedLinearGRPOFunction

from elastic import ops
from tests.loss.batches import Batch, assert_gradient_near, fitting, loss_and_gradient, random_batch

LENGTHS = (3, 1, 7, 4)
LONGEST = 9
LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo")


def padded(batch: Batch, x: torch.Tensor) -> torch.Tensor:
    """[N] packed to [R, T] padded."""
    out = x.new_zeros(len(LENGTHS), LONGEST)
    for row, (a, b) in enumerate(pairwise(batch.row_offsets.tolist())):
        out[row, : b - a] = x[a:b]
    return out


def liger_loss(batch: Batch, advantages: torch.Tensor, loss: str, **options):
    logits = batch.logits.clone().requires_grad_()
    logprobs = torch.log_softmax(logits, -1).gather(1, batch.targets[:, None])[:, 0]
    mask = padded(batch, batch.mask.double())
    value, metrics = LigerFusedLinearGRPOFunction.ppo_loss_fn(
        per_token_logps=padded(batch, logprobs),
        attention_mask=mask,
        advantages=advantages,
        full_attention_mask=mask,
        old_per_token_logps=padded(batch, batch.old_logprobs),
        ref_per_token_logps=padded(batch, batch.ref_logprobs),
        beta=options.pop("beta", 0.0),
        loss_type="grpo" if loss == "gspo" else loss,
        importance_sampling_level="sequence" if loss == "gspo" else "token",
        max_completion_length=LONGEST,
        **options,
    )
    (gradient,) = torch.autograd.grad(value, logits)
    return value, gradient, metrics


def our_loss(batch: Batch, advantages: torch.Tensor, loss: str, **options):
    return loss_and_gradient(
        ops.grpo_loss,
        *batch.positional(batch.logits),
        advantages,
        mask=batch.mask,
        **fitting(LONGEST, loss=loss, **options),
    )


def case():
    batch = random_batch(torch.float64, lengths=LENGTHS, groups=(2, 2), vocab=53, seed=12)
    return batch, torch.tensor([1.0, -0.5, 0.7, -1.3], dtype=torch.float64)


# Liger's normaliser and counts are float32: what it divides by is exact, what it averages good to 6e-8.
def assert_same(ours, theirs):
    (output, gradient), (value, expected, metrics) = ours, theirs
    assert output.loss.item() == pytest.approx(value.item(), abs=1e-12)
    assert_gradient_near(gradient, expected, 1e-12)
    assert output.clip_fraction.item() == pytest.approx(metrics[-1].item(), abs=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
def test_plain_loss(loss):
    batch, advantages = case()
    assert_same(our_loss(batch, advantages, loss), liger_loss(batch, advantages, loss))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_with_kl(loss, weighted):
    batch, advantages = case()
    options = {"kl_coef": 0.3, "kl_weighted": weighted, "ref_logprobs": batch.ref_logprobs}
    ours = our_loss(batch, advantages, loss, **options)
    theirs = liger_loss(batch, advantages, loss, beta=0.3, use_bias_correction_kl=weighted)
    assert_same(ours, theirs)
    assert ours[0].kl.item() == pytest.approx(theirs[2][0].item(), abs=1e-7)


@pytest.mark.parametrize("loss", ["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo"])
@pytest.mark.parametrize(("low", "high", "delta"), [(0.1, 0.35, None), (0.2, 0.2, 1.5), (0.05, 0.05, 0.9)])
def test_with_other_bounds(loss, low, high, delta):
    batch, advantages = case()
    ours = our_loss(batch, advantages, loss, clip_low=low, clip_high=high, delta=delta)
    assert_same(ours, liger_loss(batch, advantages, loss, epsilon_low=low, epsilon_high=high, delta=delta))


def test_sapo_temperatures():
    batch, advantages = case()
    ours = our_loss(batch, advantages, "sapo", tau_positive=0.7, tau_negative=2.0)
    assert_same(
        ours, liger_loss(batch, advantages, "sapo", sapo_temperature_pos=0.7, sapo_temperature_neg=2.0)
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_engine_weights(loss):
    batch, advantages = case()
    weights = padded(batch, (batch.old_logprobs - batch.engine_logprobs).exp().clamp(0.6, 1.7))
    ours = our_loss(
        batch,
        advantages,
        loss,
        engine_logprobs=batch.engine_logprobs,
        engine_low=0.6,
        engine_high=1.7,
        kl_coef=0.1,
        ref_logprobs=batch.ref_logprobs,
    )
    assert_same(ours, liger_loss(batch, advantages, loss, beta=0.1, vllm_is_ratio=weights))


@pytest.mark.parametrize("loss", ["dapo", "cispo"])
def test_number_of_tokens_of_the_whole_step(loss):
    batch, advantages = case()
    ours = our_loss(batch, advantages, loss, num_tokens=50)
    assert_same(ours, liger_loss(batch, advantages, loss, num_items_in_batch=50))
