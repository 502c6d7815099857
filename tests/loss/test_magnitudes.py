"""Temperatures, soft caps and rewards near the ends of their range: right, or refused by name."""

import math

import pytest
import torch

import elastic.ops
from tests.loss.batches import DTYPES, assert_near, loss_and_gradient, offsets

LOGITS = [math.log(p) for p in (1, 2, 3, 4)]
LN_02, ENTROPY = -1.6094379124341003, 1.2798542258336676  # of 0.1, 0.2, 0.3, 0.4
GRADIENT = [-0.1, 0.8, -0.3, -0.4]  # of the second one's logprob

FACTORS = [1e-30, 1e-10, 1e10, 1e30]


@pytest.mark.parametrize("temperature", FACTORS)
@pytest.mark.parametrize("per_token", [False, True])
def test_extreme_temperatures_divide_extreme_logits(ops, temperature, per_token):
    logits = torch.tensor([LOGITS], dtype=torch.float64).mul(temperature).to(ops.dtype).requires_grad_()
    given = torch.tensor([temperature], dtype=ops.dtype) if per_token else temperature
    logprobs, entropy = ops.token_logprobs(logits, torch.tensor([1]), given)
    (gradient,) = torch.autograd.grad(logprobs.sum(), logits)
    assert logprobs.item() == pytest.approx(LN_02, abs=ops.error)
    assert entropy.item() == pytest.approx(ENTROPY, abs=ops.error)
    assert (gradient.double() * temperature)[0].tolist() == pytest.approx(GRADIENT, abs=ops.error)


@pytest.mark.parametrize("temperature", FACTORS)
def test_extreme_temperatures_of_ordinary_logits(ops, temperature):
    """Cold: the largest takes all. Hot: all the same."""
    logprobs, entropy = ops.token_logprobs(
        torch.tensor([LOGITS], dtype=ops.dtype), torch.tensor([3]), temperature
    )
    expected = (0.0, 0.0) if temperature < 1 else (-math.log(4), math.log(4))
    assert logprobs.item() == pytest.approx(expected[0], abs=2e-9 + ops.error)
    assert entropy.item() == pytest.approx(expected[1], abs=2e-9 + ops.error)


@pytest.mark.parametrize("softcap", [1e10, 1e30])
def test_a_huge_soft_cap_caps_nothing(ops, softcap):
    logits = torch.tensor([LOGITS], dtype=ops.dtype, requires_grad=True)
    logprobs, entropy = ops.token_logprobs(logits, torch.tensor([1]), softcap=softcap)
    (gradient,) = torch.autograd.grad(logprobs.sum(), logits)
    assert logprobs.item() == pytest.approx(LN_02, abs=ops.error)
    assert entropy.item() == pytest.approx(ENTROPY, abs=ops.error)
    assert gradient[0].tolist() == pytest.approx(GRADIENT, abs=ops.error)


def test_a_tiny_soft_cap_makes_all_ids_alike(ops):
    logits = torch.tensor([[3.0, -2.0, 0.0, 1e30]], dtype=ops.dtype, requires_grad=True)
    logprobs, entropy = ops.token_logprobs(logits, torch.tensor([1]), softcap=1e-30)
    (gradient,) = torch.autograd.grad(logprobs.sum(), logits)
    assert logprobs.item() == pytest.approx(-math.log(4), abs=ops.error)
    assert entropy.item() == pytest.approx(math.log(4), abs=ops.error)
    assert gradient[0].tolist() == pytest.approx([0.0, 0.0, -0.25, 0.0], abs=ops.error)


OUTSIDE = [9e-31, 1.1e30, 3e38, 1e39, 1e308, 1e-38, 1e-45, 5e-324]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["temperature", "softcap"])
@pytest.mark.parametrize("value", OUTSIDE)
def test_factors_beyond_the_range_are_refused_by_name(dtype, name, value):
    logits = torch.zeros(1, 4, dtype=dtype)
    message = f"{name}: expected a value from 1e-30 to 1e30, got "
    with pytest.raises(ValueError, match=f"token_logprobs: {message}"):
        elastic.ops.token_logprobs(logits, torch.tensor([0]), **{name: value})
    with pytest.raises(ValueError, match=f"grpo_loss: {message}"):
        elastic.ops.grpo_loss(
            logits, torch.tensor([0]), torch.zeros(1), offsets((1,)), torch.ones(1), **{name: value}
        )


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("value", [0.0, -1.0, 1e-38, 3e38, math.inf, math.nan])
def test_temperatures_of_tokens_beyond_the_range_are_refused_or_show(request, value):
    """On the CPU the token is named; on a device, where contents are not read back, it is NaN."""
    logits, targets = torch.tensor([LOGITS] * 3), torch.tensor([1, 1, 1])
    temperature = torch.tensor([1.0, value, 1.0])
    if request.node.callspec.params["kernels"] == "cpu":
        with pytest.raises(ValueError, match=r"temperature: expected values from 1e-30 .* at token 1"):
            elastic.ops.token_logprobs(logits, targets, temperature)
        return
    for values in elastic.ops.token_logprobs(logits, targets, temperature):
        assert values.isnan().tolist() == [False, True, False]
    output, gradient = loss_and_gradient(
        elastic.ops.grpo_loss,
        logits,
        targets,
        torch.zeros(3),
        offsets((3,)),
        torch.ones(1),
        temperature=temperature,
    )
    assert output.loss.isnan()
    assert gradient.isnan().all(dim=1).tolist() == [False, True, False]


HALF = 0.7071067811865475
REWARDS = [  # kind, rewards, group sizes, options, advantages
    ("group", [1.5e308, -1.5e308], (2,), {}, [HALF, -HALF]),
    ("group", [1.7e308, 1.7e308, 0.0, 0.0], (4,), {}, [0.8660254037844386] * 2 + [-0.8660254037844386] * 2),
    ("group", [1e200, -1e200], (2,), {}, [HALF, -HALF]),
    ("group", [3e-200, 1e-200], (2,), {"eps": 0.0}, [HALF, -HALF]),
    ("group", [1e-310, 0.0], (2,), {"eps": 0.0}, [HALF, -HALF]),
    ("group", [1e-200, 0.0], (2,), {}, [0.0, 0.0]),
    ("batch", [1.5e308, -1.5e308, 2.0, 1.0], (2, 2), {}, [1.224744871391589, -1.224744871391589, 0.0, 0.0]),
    ("batch", [3e-200, 1e-200], (2,), {"eps": 0.0}, [HALF, -HALF]),
    ("maxrl", [1.5e308, 0.5e308], (2,), {}, [0.5, -0.5]),
    ("maxrl", [1.7e308, 1.7e308, 0.0], (3,), {}, [0.5, 0.5, -1.0]),
    ("passk", [1.7e308, 1.7e308, 0.0, 0.0, 0.0], (5,), {}, [0.0, 0.0, 0.0, 0.0, 0.0]),
]


# CUDA kernels take float32 rewards, whose squares no double overflows: they do not run these.
WIDE = pytest.mark.parametrize("dtype", [torch.float64])


@WIDE
@pytest.mark.parametrize(("kind", "rewards", "groups", "options", "expected"), REWARDS)
def test_advantages_of_huge_and_tiny_rewards(ops, dtype, kind, rewards, groups, options, expected):
    rewards = torch.tensor(rewards, dtype=dtype)
    got = ops.group_advantage(rewards, offsets(groups), kind, **options)
    assert got.tolist() == pytest.approx(expected, abs=1e-12)


@WIDE
@pytest.mark.parametrize(
    ("kind", "rewards", "expected"),
    [
        ("none", [1.5e308, 0.5e308], [0.5, -0.5]),
        ("none", [1.7e308, 1.7e308, 1.4e308], [0.1, 0.1, -0.2]),
        ("rloo", [1.0e308, 0.5e308], [0.5, -0.5]),
        ("rloo", [1.7e308, 1.7e308, 1.4e308], [0.15, 0.15, -0.3]),
    ],
)
def test_advantages_in_units_of_the_reward(ops, dtype, kind, rewards, expected):
    got = ops.group_advantage(torch.tensor(rewards, dtype=dtype), offsets((len(rewards),)), kind)
    assert (got / 1e308).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["group", "batch"])
@pytest.mark.parametrize("size", [3e38, 1e30, 1e-30, 1e-44])
def test_advantages_of_huge_and_tiny_float32_rewards(ops, kind, size):
    got = ops.group_advantage(torch.tensor([size, -size]), offsets((2,)), kind, 0.0)
    assert_near(got, torch.tensor([HALF, -HALF]), 1e-6, kind)


@WIDE
def test_rewards_near_the_largest_float_reach_the_loss(ops, dtype):
    output, _ = loss_and_gradient(
        ops.grpo_loss,
        torch.tensor([LOGITS, LOGITS], dtype=dtype),
        torch.tensor([1, 1]),
        torch.full((2,), LN_02, dtype=dtype),
        offsets((1, 1)),
        rewards=torch.tensor([1.5e308, -1.5e308], dtype=dtype),
        group_offsets=offsets((2,)),
    )
    assert output.advantages.tolist() == pytest.approx([HALF, -HALF], abs=1e-12)
    assert output.loss.item() == pytest.approx(0.0, abs=1e-12)
