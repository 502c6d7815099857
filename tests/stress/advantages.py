"""Random calls of `group_advantage`."""

import torch
from torch import Tensor

from elastic import reference
from tests.stress.call import Call
from tests.stress.compare import MOVED, UNIT, check_near
from tests.stress.draw import Draw, laid_out, offsets

KINDS = ("group", "none", "batch", "rloo", "maxrl", "passk")


def group_advantage(draw: Draw) -> None:
    groups = [draw.pick(0, 1, 2, 3, 4, 8, 16, 70) for _ in range(draw.randint(0, 6))]
    dtype = draw.pick(torch.float32, torch.bfloat16, *([] if draw.small else [torch.float64]))
    rewards = rewards_of(draw, sum(groups), dtype)
    kind = draw.choice(KINDS)
    arguments = {"rewards": laid_out(draw, rewards), "group_offsets": laid_out(draw, offsets(groups))}
    arguments["kind"] = kind
    if kind in ("group", "batch"):
        arguments["eps"] = draw.pick(1e-4, 1e-6, 1.0)
    if kind == "passk":
        arguments["pass_k"] = draw.pick(1, 2, 4, 100)
    call = Call("group_advantage", arguments)
    got, _ = call.run()
    exact, options = rewards.double(), {k: v for k, v in arguments.items() if k != "rewards"}
    moved = [reference.group_advantage(x, **options) for x in moved_rewards(draw, exact)]
    check_near(call, "advantages", got, reference.group_advantage(exact, **options), moved, torch.tensor(0.0))


def rewards_of(draw: Draw, rows: int, dtype: torch.dtype) -> Tensor:
    most = torch.finfo(dtype).max
    kind = draw.pick("right", "right", "normal", "offset", "huge", "tiny", "few")
    noise = draw.normal(rows)
    if kind == "right":
        return draw.integers(2, rows).to(draw.pick(dtype, dtype, torch.int64, torch.bool))
    if kind == "normal":
        return noise.to(dtype)
    if kind == "offset":
        return (noise + draw.pick(1e3, -1e6)).to(dtype)
    if kind == "huge":
        return (noise.tanh() * draw.pick(most, most / 4, 1e30)).to(dtype)
    if kind == "tiny":
        return (noise * draw.pick(1e-30, 1e-40)).to(dtype)
    values = torch.tensor([0.1, 0.1, 0.7, draw.pick(most, -most, 1e-3, 0.5)], dtype=torch.float64)
    return values[draw.integers(4, rows)].to(dtype)


def moved_rewards(draw: Draw, exact: Tensor) -> list[Tensor]:
    """Rewards in float64, in which the op computes, moved by a few roundings; equal ones stay equal."""
    values, place = exact.unique(return_inverse=True)
    far = [draw.uniform_tensor(len(values)) * 2 - 1 for _ in range(3)]
    return [(values * (1 + sign * MOVED * UNIT[torch.float64] * x))[place] for x in far for sign in (1, -1)]
