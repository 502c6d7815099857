"""How the loss ops may be called: what is harmless is taken, None has its value, outputs are new tensors."""

from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from elastic import ops, reference
from tests.loss.batches import LOSSES, fitting, offsets, random_batch
from tests.loss.calls import GOOD, LOSS_OPS, REWARDS, H, N, V, call

pytestmark = pytest.mark.usefixtures("kernels")


def outputs(op: str, changes: dict[str, Any]) -> list[Tensor]:
    result = call(op, changes)
    return [result] if isinstance(result, Tensor) else list(result)


def assert_same(op: str, changes: dict[str, Any], plain: dict[str, Any]) -> None:
    for one, other in zip(outputs(op, changes), outputs(op, plain), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("op", [*LOSS_OPS, "token_logprobs"])
@pytest.mark.parametrize(
    "temperature",
    [
        torch.tensor(0.5),
        torch.tensor(0.5, dtype=torch.float64),
        torch.tensor(0.5, dtype=torch.bfloat16),
        torch.tensor(0.5, requires_grad=True),
        torch.full((N,), 0.5, dtype=torch.float16),
        torch.full((2 * N,), 0.5)[::2],
        torch.tensor(0.5).expand(N),
        numpy.float32(0.5),
        numpy.float64(0.5),
    ],
)
def test_one_temperature_in_any_form(op, temperature):
    targets = {"targets": torch.arange(N)}
    logits = torch.randn(N, V, generator=torch.Generator().manual_seed(0))
    given = targets if op == "linear_grpo_loss" else {**targets, "logits": logits}
    plain = torch.full((N,), 0.5) if isinstance(temperature, Tensor) else 0.5
    assert_same(op, {**given, "temperature": temperature}, {**given, "temperature": plain})


@pytest.mark.parametrize("temperature", [2, torch.tensor(2), torch.full((N,), 2), numpy.int64(2)])
def test_whole_numbers_as_temperature(temperature):
    logits = {"logits": torch.randn(N, V, generator=torch.Generator().manual_seed(0))}
    plain = torch.full((N,), 2.0) if isinstance(temperature, Tensor) else 2.0
    assert_same("token_logprobs", {**logits, "temperature": temperature}, {**logits, "temperature": plain})


@pytest.mark.parametrize("value", [1, numpy.int64(1), numpy.float32(1)])
def test_numbers_of_any_kind(value):
    assert_same("grpo_loss", {"delta": value, "softcap": value}, {"delta": 1.0, "softcap": 1.0})
    assert_same("group_advantage", {"eps": value}, {"eps": 1.0})


@pytest.mark.parametrize("op", LOSS_OPS)
def test_a_temperature_a_row_is_that_of_the_rows_tokens(op):
    lengths, temperatures = [3, 0, 4, 1, 0], [0.5, 9.0, 2.0, 0.7, 8.0]
    batch = random_batch(lengths=tuple(lengths), groups=(5,))
    by_token = torch.tensor([t for n, t in zip(lengths, temperatures, strict=True) for _ in range(n)])
    logits = {"logits": batch.logits}
    if op == "linear_grpo_loss":
        logits = {"hidden": batch.logits, "weight": torch.eye(batch.logits.shape[1])}
    rest = {"targets": batch.targets, "old_logprobs": batch.old_logprobs, "row_offsets": batch.row_offsets}
    changes = {**logits, **rest, "advantages": torch.tensor([1.0, 2, -1, 0.5, 1])}
    per_row, per_token = {"temperature": torch.tensor(temperatures)}, {"temperature": by_token}
    assert_same(op, {**changes, **per_row}, {**changes, **per_token})
    if op == "grpo_loss":
        expected = reference.grpo_loss(**changes, **per_row)
        assert torch.allclose(call(op, {**changes, **per_token}).logprobs, expected.logprobs, atol=1e-5)


@pytest.mark.parametrize("bad", [[0, 9, 6], [3, 2, 6], [-5, 2, 6], [0, 2, 2**62]])
def test_a_temperature_a_row_beside_bad_offsets_is_the_offsets_error(kernels, bad):
    changes = {"row_offsets": torch.tensor(bad), "temperature": torch.tensor([0.5, 2.0])}
    if kernels == "cpu":
        with pytest.raises(ValueError, match="grpo_loss: row_offsets: expected"):
            call("grpo_loss", changes)
    else:
        assert call("grpo_loss", changes).loss.isnan()


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.int32, torch.uint8, torch.bool]
)
def test_rewards_of_any_real_dtype(dtype):
    rewards = torch.tensor([1, 0, 0, 1]).to(dtype)
    advantages = ops.group_advantage(rewards, offsets((4,)))
    assert advantages.dtype == torch.float32
    # mean 1/2, deviation sqrt(1/3): 0.5 / (0.57735027 + 1e-4)
    assert advantages.tolist() == pytest.approx([0.8658754, -0.8658754, -0.8658754, 0.8658754], abs=1e-6)
    changes = {"rewards": rewards[:2], "group_offsets": offsets((2,)), "advantages": None}
    assert call("grpo_loss", changes).advantages.tolist() == pytest.approx([0.7070068, -0.7070068], abs=1e-6)


@pytest.mark.parametrize("op", LOSS_OPS)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_without_tokens_or_rows_divides_by_one(op, loss):
    empty = {
        "targets": torch.zeros(0, dtype=torch.int64),
        "old_logprobs": torch.zeros(0),
        "row_offsets": torch.tensor([0, 0, 0]),
        **({"logits": torch.zeros(0, V)} if op == "grpo_loss" else {"hidden": torch.zeros(0, H)}),
    }
    assert call(op, {**empty, **fitting(loss=loss, num_tokens=0, num_rows=0)}).loss.item() == 0
    zero, one = (fitting(loss=loss, num_tokens=n, num_rows=n) for n in (0, 1))
    assert_same(op, zero, one)


@pytest.mark.parametrize("op", LOSS_OPS)
@pytest.mark.parametrize("loss", LOSSES)
def test_whole_step_counts_may_be_given_to_every_loss(op, loss):
    assert call(op, fitting(loss=loss, num_tokens=7, num_rows=3)).loss.isfinite()


DEFAULTS = [
    ({}, {"clip_low": 0.2, "clip_high": 0.2}),
    ({"loss": "cispo"}, {"clip_high": 0.2}),
    ({"loss": "sapo"}, {"tau_positive": 1.0, "tau_negative": 1.05}),
    ({"ref_logprobs": torch.full((N,), -2.0), "kl_coef": 0.3}, {"kl": "k3"}),
    (
        {"engine_logprobs": torch.full((N,), -9.0)},
        {"engine_mode": "truncate", "engine_level": "token", "engine_low": 0.0, "engine_high": 2.0},
    ),
    (
        {"advantages": None, "rewards": torch.tensor([1.0, 0]), "group_offsets": torch.tensor([0, 2])},
        {"advantage": "group", "advantage_eps": 1e-4},
    ),
    (
        {**REWARDS, "rewards": torch.tensor([1.0, 0]), "advantage": "passk"},
        {"pass_k": 4},
    ),
]


@pytest.mark.parametrize("op", LOSS_OPS)
@pytest.mark.parametrize(("given", "documented"), DEFAULTS)
def test_none_stands_for_the_documented_value(op, given, documented):
    old = {"old_logprobs": torch.linspace(-5, -2, N)}
    assert_same(op, {**old, **given}, {**old, **given, **documented})
    assert_same(op, {**old, **given}, {**old, **given, **dict.fromkeys(documented)})


@pytest.mark.parametrize("op", GOOD)
def test_no_output_shares_memory_with_an_argument(op):
    given = GOOD[op]
    owned = {x.untyped_storage().data_ptr() for x in given.values()}
    assert not any(x.untyped_storage().data_ptr() in owned for x in outputs(op, {}))


def test_used_advantages_are_a_copy():
    advantages = torch.tensor([1.0, -1.0])
    output = call("grpo_loss", {"advantages": advantages})
    output.advantages.fill_(7)
    assert advantages.tolist() == [1, -1]
