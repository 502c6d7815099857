"""A policy differs from itself by nothing: ratio 1 and KL 0 in an update that has the weights of the rollout.

A learning rate of 1e-30 changes no weight, so every minibatch of the step is such an update. Sums over the
step's tokens of exp(d) - 1 - d are 0 only where every log ratio is: its terms are not negative.
"""

import pytest
import torch

from tests.train.adapters.runs import adapted
from tests.train.tiny_run import build_config, build_model, lines, run

STILL = {"lr": 1e-30}
SPLITS = [
    {"minibatches": 1},
    {"minibatches": 2, "accumulation_steps": 2},
    {"minibatches": 3, "micro_batch_tokens": 60},
]


def records(output, **tables):
    train = {"steps": 2} | tables.pop("train", {})
    model = build_model(initializer_range=0.3)  # logits far enough apart that rounding shows
    run(build_config(output, train=train, optim=STILL, **tables), model=model)
    return lines(output / "metrics.jsonl")


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("linear", ["on", "off"])
@pytest.mark.parametrize("split", SPLITS)
def test_recomputed_ratios_are_one_to_the_bit(tmp_path, own_accelerate_state, precision, linear, split):
    found = records(
        tmp_path,
        train={"mixed_precision": precision} | split,
        loss={"old_logprobs": "recompute", "linear": linear},
        rollout={"top_p": 0.9, "top_k": 12},
    )
    for record in found:
        assert record["ratio_mean"] == 1.0
        assert record["update_kl"] == 0.0
        assert record["clip_fraction"] == 0.0
    assert found[0]["mismatch_p99"] > 0, "the rollout's forward is another one"


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("linear", ["on", "off"])
@pytest.mark.parametrize("split", SPLITS)
def test_the_kl_to_the_starting_model_is_zero_to_the_bit(
    tmp_path, own_accelerate_state, precision, linear, split
):
    found = records(
        tmp_path,
        train={"mixed_precision": precision} | split,
        loss={"kl_coef": 0.1, "kl": "k3", "linear": linear},
    )
    assert [record["kl"] for record in found] == [0.0, 0.0]


@pytest.mark.parametrize(("precision", "most"), [("no", 2e-5), ("bf16", 0.2)])
def test_ratios_to_the_rollout_are_one_up_to_its_rounding(tmp_path, own_accelerate_state, precision, most):
    (record, _) = records(tmp_path, train={"mixed_precision": precision, "minibatches": 2})
    assert 0 < record["mismatch_max"] < most
    assert abs(record["ratio_mean"] - 1) < most


def test_sixteen_bit_weights_with_masters_are_the_policy_that_drew(tmp_path, own_accelerate_state):
    model = build_model(initializer_range=0.3).to(torch.bfloat16)
    config = build_config(
        tmp_path,
        train={"steps": 1, "minibatches": 2},
        optim=STILL,
        loss={"old_logprobs": "recompute", "kl_coef": 0.1},
    )
    run(config, model=model)
    (record,) = lines(tmp_path / "metrics.jsonl")
    assert (record["ratio_mean"], record["update_kl"], record["kl"]) == (1.0, 0.0, 0.0)
    assert 0 < record["mismatch_max"] < 0.2


ADAPTER = {"rank": 4, "alpha": 8}
LINEAR_LOSS = {"old_logprobs": "recompute", "kl_coef": 0.1}


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("rollouts", ["adapter", "merged"])
def test_an_adapter_that_adds_nothing_yet_is_its_base(tmp_path, own_accelerate_state, precision, rollouts):
    train = {"mixed_precision": precision, "minibatches": 2}
    adapter = ADAPTER | {"rollouts": rollouts}
    for record in records(tmp_path, train=train, adapter=adapter, loss=LINEAR_LOSS):
        assert (record["ratio_mean"], record["update_kl"], record["kl"]) == (1.0, 0.0, 0.0)
        assert 0 < record["mismatch_max"] < (2e-5 if precision == "no" else 0.2)


@pytest.mark.parametrize("rollouts", ["adapter", "merged"])
def test_an_adapter_that_was_trained_before_is_its_own_reference(tmp_path, rollouts):
    config = build_config(
        tmp_path,
        train={"steps": 1, "minibatches": 2},
        optim=STILL,
        adapter={"rollouts": rollouts},
        loss=LINEAR_LOSS,
    )
    run(config, model=adapted(build_model(initializer_range=0.3), fill=0.2))
    (record,) = lines(tmp_path / "metrics.jsonl")
    assert (record["ratio_mean"], record["update_kl"], record["kl"]) == (1.0, 0.0, 0.0)
    assert 0 < record["mismatch_max"] < 2e-5
