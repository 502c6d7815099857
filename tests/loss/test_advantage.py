"""`group_advantage`: hand-written values for both implementations, groups of every size, bad input."""

import pytest
import torch

import elastic.ops
import elastic.reference
from tests.loss.batches import assert_near, offsets

KINDS = ("group", "none", "batch", "rloo", "maxrl", "passk")

VALUES = [  # kind, rewards, group sizes, options, advantages
    (
        "group",
        [1, 0, 0, 1],
        (4,),
        {},
        [0.865875429760702, -0.865875429760702, -0.865875429760702, 0.865875429760702],
    ),
    ("group", [3, 1], (2,), {"eps": 0.0}, [0.707106781186548, -0.707106781186548]),
    ("none", [1, 0, 0, 1], (4,), {}, [0.5, -0.5, -0.5, 0.5]),
    ("none", [2, 5, 1, 0], (2, 2), {}, [-1.5, 1.5, 0.5, -0.5]),
    # all six: mean 2/3, variance (4/9 + 8/9) / 5, deviation 0.516397779494322
    (
        "batch",
        [1, 0, 1, 1, 1, 0],
        (2, 4),
        {},
        [0.968058372854043, -0.968058372854043, *[0.484029186427022] * 3, -1.45208755928106],
    ),
    ("rloo", [1, 0, 0, 0], (4,), {}, [1.0, -1 / 3, -1 / 3, -1 / 3]),
    ("rloo", [4, 1], (2,), {}, [3.0, -3.0]),
    ("maxrl", [1, 0, 0, 0], (4,), {}, [3.0, -1.0, -1.0, -1.0]),
    ("maxrl", [-1, 0, 0, 0], (4,), {}, [0.0, 0.0, 0.0, 0.0]),  # mean below 0
    # one right of four, pairs: half of the pairs hold it; a wrong one's partner is wrong twice in three
    ("passk", [0, 1, 0, 0], (4,), {"pass_k": 2}, [-1 / 3, 1.0, -1 / 3, -1 / 3]),
    ("passk", [1, 1, 0, 0, 0], (5,), {"pass_k": 3}, [1 / 3, 1 / 3, -2 / 9, -2 / 9, -2 / 9]),
    ("passk", [1, 1, 0, 0, 0], (5,), {"pass_k": 1}, [1.22474487139159] * 2 + [-0.816496580927726] * 3),
    ("passk", [1, 1, 1, 0], (4,), {"pass_k": 2}, [0.0] * 4),  # every pair holds a right one
    ("passk", [1, 0], (2,), {"pass_k": 8}, [0.0, 0.0]),  # k is cut to 2, and the pair holds a right one
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "rewards", "groups", "options", "expected"), VALUES)
def test_advantage_values(ops, dtype, kind, rewards, groups, options, expected):
    got = ops.group_advantage(torch.tensor(rewards, dtype=dtype), offsets(groups), kind, **options)
    assert got.dtype == dtype
    assert got.tolist() == pytest.approx(expected, abs=1e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, -3.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rewards_and_lonely_rows_give_exactly_zero(ops, kind, reward, dtype):
    # Three times 0.1 is not 0.3 in binary: the mean is off by an ulp, the advantage may not be.
    rewards = torch.full((8,), reward, dtype=dtype)
    assert torch.equal(ops.group_advantage(rewards, offsets((3, 4, 1)), kind), torch.zeros(8, dtype=dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_gives_zero_not_nan(ops, kind):
    assert ops.group_advantage(torch.tensor([0.3]), offsets((1,)), kind).tolist() == [0.0]


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_give_no_advantages(ops, kind):
    assert ops.group_advantage(torch.zeros(0), torch.tensor([0]), kind).shape == (0,)
    assert ops.group_advantage(torch.zeros(0), torch.tensor([0, 0, 0]), kind).shape == (0,)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_groups_of_any_size_match_the_reference(kind, dtype):
    sizes = (1, 8, 0, 3, 16, 2, 5, 1)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        noise = 0.5 * torch.rand(sum(sizes), generator=generator)
        rewards = torch.randint(2, (sum(sizes),), generator=generator) + noise
        if kind == "passk":
            rewards = rewards.floor()
        rewards = rewards.to(dtype)
        options = {"pass_k": 3} if kind == "passk" else {}
        expected = elastic.reference.group_advantage(rewards.double(), offsets(sizes), kind, **options)
        got = elastic.ops.group_advantage(rewards, offsets(sizes), kind, **options)
        assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert_near(got, expected, 1e-6 if dtype != torch.float64 else 1e-12, kind)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("kind", KINDS)
def test_order_inside_a_group_does_not_matter(kind):
    rewards = torch.tensor([1.0, 0, 1, 0, 0, 1, 0])
    order = torch.tensor([2, 0, 1, 6, 4, 3, 5])
    groups = offsets((3, 4))
    straight = elastic.ops.group_advantage(rewards, groups, kind)
    shuffled = elastic.ops.group_advantage(rewards[order], groups, kind)
    assert torch.equal(shuffled, straight[order])


@pytest.mark.usefixtures("kernels")
def test_opcheck():
    rewards, groups = torch.tensor([1.0, 0, 0, 1, 1]), offsets((2, 3))
    for kind in KINDS:
        torch.library.opcheck(torch.ops.elastic.group_advantage.default, (rewards, groups, kind, 1e-4, 4))


FOUR = torch.zeros(4)
ONE_GROUP = torch.tensor([0, 4])
BAD = [
    (FOUR, torch.tensor([1, 4]), {}, ValueError, "group_offsets: expected to start at 0, got 1"),
    (FOUR, torch.tensor([0, 3]), {}, ValueError, "group_offsets: expected to end at R = 4, got 3"),
    (FOUR, torch.tensor([0, 3, 2, 4]), {}, ValueError, "never to decrease, got 3 then 2 at index 2"),
    (FOUR, torch.zeros(0, dtype=torch.int64), {}, ValueError, "group_offsets: expected one dimension"),
    (FOUR, ONE_GROUP.int(), {}, TypeError, "group_offsets: .* int64 .* got .* int32"),
    (FOUR, ONE_GROUP.to("meta"), {}, ValueError, "group_offsets: .* on cpu, got one on meta"),
    (torch.zeros(2, 2), ONE_GROUP, {}, ValueError, r"rewards: expected \[R\], got \[2, 2\]"),
    (FOUR.to(torch.complex64), ONE_GROUP, {}, TypeError, "rewards: expected real numbers, got complex64"),
    ([0.0] * 4, ONE_GROUP, {}, TypeError, "rewards: expected a tensor, got list"),
    (FOUR, ONE_GROUP, {"kind": "z"}, ValueError, "kind: expected group, none, .* got 'z'"),
    (FOUR, ONE_GROUP, {"eps": -1.0}, ValueError, "eps: expected .* got -1"),
    (FOUR, ONE_GROUP, {"kind": "passk", "pass_k": 0}, ValueError, "pass_k: expected at least 1, got 0"),
    (torch.tensor([0, torch.nan]), torch.tensor([0, 2]), {}, ValueError, "rewards: .* got nan in row 1"),
]


@pytest.mark.parametrize(("rewards", "groups", "options", "error", "message"), BAD)
def test_bad_input_is_named(rewards, groups, options, error, message):
    with pytest.raises(error, match=f"group_advantage: .*{message}"):
        elastic.ops.group_advantage(rewards, groups, **options)
