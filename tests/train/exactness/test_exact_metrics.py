"""The metrics of the policy against the one that drew the tokens, on values worked out by hand."""

import math
import warnings
from dataclasses import replace

import pytest
import torch

from elastic.train.collect.experience import Experience
from elastic.train.config.updates import LossConfig
from elastic.train.update.ratios import mismatch_means, mismatch_sums, quantile, ratio_sums, say_mismatch
from elastic.train.update.updates import Updates
from tests.train.tiny_run import build_config, lines, run

# Two rows of 3 and 2 tokens; the second token of the first row was forced.
EXPERIENCE = Experience(
    prompts=[[1]],
    prompt_of=[0, 0],
    completions=[torch.tensor([5, 6, 7]), torch.tensor([8, 9])],
    mask=[torch.tensor([True, False, True]), torch.tensor([True, True])],
    rollout_logprobs=[torch.tensor([-1.0, 0.0, -2.0]), torch.tensor([-3.0, -4.0])],
    advantages=torch.tensor([-1.0, 2.0]),
    old_logprobs=[torch.tensor([-1.5, 0.0, -2.5]), torch.tensor([-3.0, -3.5])],
)
LOGPROBS = torch.tensor([-1.5, 7.0, -2.0, -3.25, -4.0])
# Against the rollout: -0.5, 0, -0.25, 0; against old: 0, 0.5, -0.25, -0.5.


def test_the_mismatch_is_that_of_the_tokens_that_carry_loss():
    found = mismatch_means(mismatch_sums(LOGPROBS, EXPERIENCE))
    assert found["mismatch_mean"] == pytest.approx(-0.75 / 4)
    assert found["mismatch_abs"] == pytest.approx(0.75 / 4)
    k3 = (math.exp(-0.5) - 1 + 0.5) + (math.exp(-0.25) - 1 + 0.25)
    assert found["mismatch_kl"] == pytest.approx(k3 / 4)
    assert 0.5 <= found["mismatch_max"] < 0.5 * 1.024
    assert found["mismatch_p99"] == found["mismatch_max"]  # of four tokens


def test_sums_of_micro_batches_are_those_of_the_whole():
    rows = [
        mismatch_sums(LOGPROBS[:3], EXPERIENCE.select([0])),
        mismatch_sums(LOGPROBS[3:], EXPERIENCE.select([1])),
    ]
    whole = mismatch_sums(LOGPROBS, EXPERIENCE)
    for name, value in whole.items():
        torch.testing.assert_close(rows[0][name] + rows[1][name], value)


def test_a_percentile_is_at_most_a_fortieth_too_large():
    """A thousand tokens with |log ratio| 0.001, 0.002, ... 1: the 99th percentile is 0.990."""
    experience = replace(
        EXPERIENCE.select([0]),
        completions=[torch.zeros(1000, dtype=torch.int64)],
        mask=[torch.ones(1000, dtype=torch.bool)],
        rollout_logprobs=[torch.zeros(1000)],
    )
    values = -torch.arange(1, 1001) / 1000 + 1e-6
    found = mismatch_means(mismatch_sums(values, experience))
    assert 0.989 <= found["mismatch_p99"] <= 0.99 * 1.024
    histogram = mismatch_sums(values, experience)["mismatch_histogram"]
    assert quantile(histogram, 0.5) == pytest.approx(0.5, rel=0.024)


@pytest.mark.parametrize(("value", "read"), [(0.0, 0.0), (5e-9, 0.0), (-500.0, 100.0), (-math.inf, 100.0)])
def test_what_is_off_the_scale_reads_as_its_end(value, read):
    logprobs = torch.full((5,), value) + torch.cat(EXPERIENCE.rollout_logprobs)
    rollout = [row.double() for row in EXPERIENCE.rollout_logprobs]
    sums = mismatch_sums(logprobs.double(), replace(EXPERIENCE, rollout_logprobs=rollout))
    assert quantile(sums["mismatch_histogram"], 0.99) == read


@pytest.mark.parametrize(
    ("loss", "low"),
    # Row by row: 0 and 0.5 with A = -1, so none below; the second row has A = 2.
    [({"loss": "grpo"}, 0), ({"loss": "cispo", "clip_high": 5}, 0)],
)
def test_ratios_are_taken_against_the_old_logprobs(loss, low):
    found = ratio_sums(LOGPROBS, EXPERIENCE, LossConfig(**loss))
    ratios = [1, math.exp(0.5), math.exp(-0.25), math.exp(-0.5)]
    assert found["ratio"].item() == pytest.approx(sum(ratios))
    assert found["update_kl"].item() == pytest.approx(sum(ratios) - 4 - (0 + 0.5 - 0.25 - 0.5))
    assert found["clipped_low"].item() == low


def test_a_token_is_clipped_below_where_its_advantage_is_negative():
    """With A < 0 in the second row: e^-0.25 = 0.78 and e^-0.5 = 0.61 are below 0.8."""
    turned = replace(EXPERIENCE, advantages=torch.tensor([2.0, -1.0]))
    assert ratio_sums(LOGPROBS, turned, LossConfig(loss="grpo"))["clipped_low"] == 2
    assert ratio_sums(LOGPROBS, turned, LossConfig(loss="sapo"))["clipped_low"] == 0
    # gspo: the row's ratio is e^-0.375 = 0.687.
    assert ratio_sums(LOGPROBS, turned, LossConfig(loss="gspo", clip_low=0.31))["clipped_low"] == 2
    assert ratio_sums(LOGPROBS, turned, LossConfig(loss="gspo", clip_low=0.32))["clipped_low"] == 0


@pytest.mark.parametrize("loss", ["dapo", "gspo"])
def test_clips_below_and_above_are_all_clips_and_both_occur(tmp_path, loss):
    config = build_config(
        tmp_path,
        train={"steps": 3, "epochs_per_batch": 4},
        loss={"loss": loss, "clip_low": 0.02, "clip_high": 0.02},
        optim={"lr": 3e-2},
    )
    run(config)
    records = lines(tmp_path / "metrics.jsonl")
    for record in records:
        parts = record["clip_low_fraction"], record["clip_high_fraction"]
        assert sum(parts) == pytest.approx(record["clip_fraction"], abs=1e-6)
        assert min(parts) >= 0
    assert all(max(record[f"clip_{side}_fraction"] for record in records) > 0 for side in ("low", "high"))


class Nudged(Updates):
    """Weights move between rollout and update; what that does to the logprobs is measured beside it."""

    nudge = 0.0

    def run(self, experience, step, update):
        with torch.no_grad():
            for parameter in self._policy.model.parameters():
                parameter.mul_(1 + self.nudge)
        self.experience = experience
        self.by_hand = torch.cat(self._policy.logprobs(experience)).double()
        return super().run(experience, step, update)


@pytest.mark.parametrize(
    ("correction", "level"),
    [("none", "token"), ("truncate", "token"), ("truncate", "row"), ("mask", "token"), ("mask", "row")],
)
def test_weights_that_change_between_rollout_and_update_show_in_the_metric(
    tmp_path, monkeypatch, correction, level
):
    monkeypatch.setattr("elastic.train.trainer.Updates", Nudged)
    monkeypatch.setattr(Nudged, "nudge", 0.05)
    loss = {"old_logprobs": "recompute", "skip_zero_advantage": False, "engine_correction": correction}
    if correction != "none":
        loss |= {"engine_level": level, "engine_low": 0.9, "engine_high": 1.1}
    config = build_config(tmp_path, train={"steps": 1}, loss=loss)
    with pytest.warns(UserWarning, match="mismatch_p99 of the first update is"):
        updates = run(config)._updates
    mask = torch.cat(updates.experience.mask)
    d = (updates.by_hand - torch.cat(updates.experience.rollout_logprobs))[mask]
    (record,) = lines(tmp_path / "metrics.jsonl")
    assert d.abs().mean() > 0.005
    assert record["mismatch_mean"] == pytest.approx(d.mean().item(), rel=1e-4)
    assert record["mismatch_abs"] == pytest.approx(d.abs().mean().item(), rel=1e-4)
    assert record["mismatch_kl"] == pytest.approx((d.exp() - 1 - d).mean().item(), rel=1e-3)
    ordered = d.abs().sort().values
    p99 = ordered[math.ceil(0.99 * len(ordered)) - 1].item()
    assert p99 <= record["mismatch_p99"] <= p99 * 1.024
    assert record["ratio_mean"] == pytest.approx(1, abs=1e-12), "recomputed: the ratio itself is 1"


def test_a_first_update_within_rounding_gives_no_warning(tmp_path):
    config = build_config(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say_mismatch(0.009, config, False)
        say_mismatch(0.6, config, True)
        say_mismatch(0.6, build_config(tmp_path, train={"mixed_precision": "bf16"}), False)


@pytest.mark.parametrize(
    ("tables", "narrow", "named"),
    [
        ({}, False, "more than the 0.01 .* a layer that behaves differently"),
        ({"train": {"mixed_precision": "bf16"}}, False, "more than the 0.7 .* 16-bit rounding"),
        ({"rollout": {"engine": "vllm"}}, False, "rollout.engine = 'vllm'"),
        ({}, True, "16-bit rounding.*loss.old_logprobs = 'recompute'"),
    ],
)
def test_a_large_mismatch_names_its_likely_causes(tmp_path, tables, narrow, named):
    with pytest.warns(UserWarning, match=named):
        say_mismatch(0.9, build_config(tmp_path, **tables), narrow)
