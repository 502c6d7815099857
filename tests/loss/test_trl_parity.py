"""Parity with TRL 1.16: `GRPOTrainer._compute_loss`, unbound, on a stub that only hands out logprobs.

Values, gradients on the logits, and metrics, for every loss type TRL has in common with SPEC section 5. TRL
pads and the op packs; the same completions go into both, with forced tokens in TRL's `tool_mask`.

Where TRL differs from the table, on purpose or not:

* gspo is loss type "grpo" with `importance_sampling_level="sequence"`; its clip metric counts rows, ours
  tokens.
* TRL's entropy bonus is a mean over tokens whatever the loss; ours is aggregated like the loss, so that
  accumulating micro-batches stays exact. They agree for bnpo, dapo and cispo; for the others a test shows
  that the aggregation is all that differs.
* TRL knows the k3 estimator only.
* TRL's sapo temperatures are float32 numbers, also in float64: 1.05 is 1.0499999523162842 there.
"""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from trl import GRPOTrainer

from elastic import ops
from tests.loss.batches import Batch, assert_gradient_near, fitting, loss_and_gradient, random_batch

LENGTHS = (3, 1, 7, 4)
LONGEST = 9  # one more than any: TRL also sees a column of padding only
PER_TOKEN_BONUS = ("bnpo", "dapo", "cispo")


def padded(batch: Batch, x: torch.Tensor, filling: float = 0.0) -> torch.Tensor:
    """[N, ...] packed to [R, T, ...] padded."""
    out = x.new_full((len(LENGTHS), LONGEST, *x.shape[1:]), filling)
    for row, (a, b) in enumerate(zip(batch.row_offsets, batch.row_offsets[1:], strict=False)):
        out[row, : b - a] = x[a:b]
    return out


class Trainer(SimpleNamespace):
    """As much of a GRPOTrainer as `_compute_loss` looks at."""

    def __init__(self, batch: Batch, logits: torch.Tensor, loss: str, **options):
        arguments = {"delta": None, "sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05}
        arguments |= {"use_bias_correction_kl": False, "steps_per_generation": 1}
        given = {k: options.pop(k) for k in list(options) if k in arguments}
        super().__init__(
            aux_loss_enabled=False,
            top_entropy_quantile=1.0,
            off_policy_mask_threshold=None,
            importance_sampling_level="sequence" if loss == "gspo" else "token",
            loss_type="grpo" if loss == "gspo" else loss,
            beta=options.pop("beta", 0.0),
            epsilon_low=options.pop("epsilon_low", 0.2),
            epsilon_high=options.pop("epsilon_high", 0.2),
            max_completion_length=LONGEST,
            use_vllm=options.pop("use_vllm", False),
            vllm_importance_sampling_correction=True,
            current_gradient_accumulation_steps=1,
            _entropy_bonus_enabled=options.get("entropy_coef", 0.0) != 0,
            use_adaptive_entropy=False,
            entropy_coef=options.pop("entropy_coef", 0.0),
            args=SimpleNamespace(**{**arguments, **given}),
            model=SimpleNamespace(training=True),
            accelerator=SimpleNamespace(
                num_processes=1, sync_gradients=True, gather=lambda x: x, reduce=lambda x, reduction: x
            ),
            _metrics={"train": defaultdict(list)},
        )
        assert not options, f"not understood: {options}"
        self.batch, self.logits = batch, logits

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        logprobs = torch.log_softmax(self.logits, -1)
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        picked = logprobs.gather(1, self.batch.targets[:, None])[:, 0]
        return padded(self.batch, picked), padded(self.batch, entropy), None


def trl_loss(batch: Batch, advantages: torch.Tensor, loss: str, inputs=None, **options):
    """TRL's loss, its gradient on the packed logits, and its metrics."""
    logits = batch.logits.clone().requires_grad_()
    trainer = Trainer(batch, logits, loss, **options)
    ones = padded(batch, torch.ones_like(batch.targets))
    given = {
        "prompt_ids": torch.zeros(len(LENGTHS), 2, dtype=torch.int64),
        "prompt_mask": torch.ones(len(LENGTHS), 2, dtype=torch.int64),
        "completion_ids": padded(batch, batch.targets),
        "completion_mask": ones,
        "tool_mask": padded(batch, batch.mask.long()),
        "advantages": advantages,
        "old_per_token_logps": padded(batch, batch.old_logprobs),
        "ref_per_token_logps": padded(batch, batch.ref_logprobs),
        "num_items_in_batch": batch.mask.sum(),
        **(inputs or {}),
    }
    value = GRPOTrainer._compute_loss(trainer, None, given)
    (gradient,) = torch.autograd.grad(value, logits)
    return value, gradient, trainer._metrics["train"]


def case():
    batch = random_batch(torch.float64, lengths=LENGTHS, groups=(2, 2), vocab=53, seed=11)
    return batch, torch.tensor([1.0, -0.5, 0.7, -1.3], dtype=torch.float64)


def our_loss(
    batch: Batch, advantages: torch.Tensor, loss: str, tau_positive=1.0, tau_negative=1.05, **options
):
    if loss == "sapo":
        tau = torch.tensor([tau_positive, tau_negative], dtype=torch.float32).tolist()
        options |= {"tau_positive": tau[0], "tau_negative": tau[1]}
    return loss_and_gradient(
        ops.grpo_loss,
        *batch.positional(batch.logits),
        advantages,
        mask=batch.mask,
        **fitting(LONGEST, loss=loss, **options),
    )


def assert_same(ours, theirs):
    (output, gradient), (value, expected, _) = ours, theirs
    assert output.loss.item() == pytest.approx(value.item(), abs=1e-12)
    assert_gradient_near(gradient, expected, 1e-12)


@pytest.mark.parametrize("loss", ["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo"])
def test_plain_loss(loss):
    batch, advantages = case()
    assert_same(our_loss(batch, advantages, loss), trl_loss(batch, advantages, loss))


@pytest.mark.parametrize("loss", ["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "sapo"])
@pytest.mark.parametrize("weighted", [False, True])
def test_with_kl(loss, weighted):
    batch, advantages = case()
    options = {"kl_coef": 0.3, "kl_weighted": weighted, "ref_logprobs": batch.ref_logprobs}
    ours = our_loss(batch, advantages, loss, **options)
    theirs = trl_loss(batch, advantages, loss, beta=0.3, use_bias_correction_kl=weighted)
    assert_same(ours, theirs)
    assert ours[0].kl.item() == pytest.approx(theirs[2]["kl"][0], abs=1e-12)


@pytest.mark.parametrize("loss", ["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo"])
@pytest.mark.parametrize(("low", "high", "delta"), [(0.1, 0.35, None), (0.2, 0.2, 1.5), (0.05, 0.05, 0.9)])
def test_with_other_bounds(loss, low, high, delta):
    batch, advantages = case()
    ours = our_loss(batch, advantages, loss, clip_low=low, clip_high=high, delta=delta)
    assert_same(ours, trl_loss(batch, advantages, loss, epsilon_low=low, epsilon_high=high, delta=delta))


def test_sapo_temperatures():
    batch, advantages = case()
    ours = our_loss(batch, advantages, "sapo", tau_positive=0.7, tau_negative=2.0)
    theirs = trl_loss(batch, advantages, "sapo", sapo_temperature_pos=0.7, sapo_temperature_neg=2.0)
    assert_same(ours, theirs)


@pytest.mark.parametrize("loss", PER_TOKEN_BONUS)
def test_entropy_bonus_where_both_average_over_tokens(loss):
    batch, advantages = case()
    ours = our_loss(batch, advantages, loss, entropy_coef=0.05)
    assert_same(ours, trl_loss(batch, advantages, loss, entropy_coef=0.05))


@pytest.mark.parametrize("loss", ["grpo", "sapo", "dr_grpo"])
def test_entropy_bonus_differs_by_its_aggregation_alone(loss):
    batch, advantages = case()
    output, _ = our_loss(batch, advantages, loss, entropy_coef=0.05)
    value, _, _ = trl_loss(batch, advantages, loss, entropy_coef=0.05)
    mean_over_tokens = 0.05 * (output.entropy.sum() / batch.mask.sum())
    lengths = batch.row_offsets.diff()
    row = torch.repeat_interleave(torch.arange(4), lengths)
    count = torch.zeros(4).double().index_add(0, row, batch.mask.double()).clamp(min=1)
    scale = {"dr_grpo": torch.full((4,), 1 / LONGEST).double()}.get(loss, 1 / count) / 4
    like_the_loss = 0.05 * (output.entropy * scale[row]).sum()
    assert (output.loss + like_the_loss).item() == pytest.approx((value + mean_over_tokens).item(), abs=1e-8)


@pytest.mark.parametrize("loss", ["grpo", "dapo", "gspo", "cispo", "sapo"])
@pytest.mark.parametrize("mode", ["truncate", "mask"])
@pytest.mark.parametrize("level", ["token", "row"])
def test_engine_weights(loss, mode, level):
    """TRL computes these weights where it generates, by the formula below; the loss multiplies before KL."""
    batch, advantages = case()
    mask = padded(batch, batch.mask.double())
    mismatch = padded(batch, batch.old_logprobs - batch.engine_logprobs) * mask
    ratio = (mismatch.sum(-1, keepdim=True) if level == "row" else mismatch).exp()
    low, high = 0.6, 1.7
    kept = ratio.clamp(low, high)
    dropped = ratio.masked_fill((ratio < low) | (ratio > high), 0.0)
    inputs = {"importance_sampling_ratio": kept if mode == "truncate" else dropped}
    ours = our_loss(
        batch,
        advantages,
        loss,
        engine_logprobs=batch.engine_logprobs,
        engine_mode=mode,
        engine_level=level,
        engine_low=low,
        engine_high=high,
        kl_coef=0.1,
        ref_logprobs=batch.ref_logprobs,
    )
    assert_same(ours, trl_loss(batch, advantages, loss, inputs=inputs, beta=0.1, use_vllm=True))


def test_metrics():
    batch, advantages = case()
    output, _ = our_loss(batch, advantages, "dapo")
    _, _, metrics = trl_loss(batch, advantages, "dapo")
    assert output.clip_fraction.item() == pytest.approx(metrics["clip_ratio/region_mean"][0], abs=1e-6)
    entropy = output.entropy.sum().item() / batch.mask.sum().item()
    assert entropy == pytest.approx(metrics["entropy"][0], abs=1e-12)
    output, _ = our_loss(batch, advantages, "cispo", clip_high=1.1)
    _, _, metrics = trl_loss(batch, advantages, "cispo", epsilon_high=1.1)
    assert output.clip_fraction.item() == pytest.approx(metrics["cispo_clip_ratio"][0], abs=1e-6)


def test_number_of_tokens_of_the_whole_step():
    batch, advantages = case()
    ours = our_loss(batch, advantages, "dapo", num_tokens=50)
    assert_same(ours, trl_loss(batch, advantages, "dapo", inputs={"num_items_in_batch": torch.tensor(50)}))
