"""`group_advantage`: advantages of K groups of G completions each, from their rewards."""

from collections.abc import Callable

import torch
from torch import Tensor

from bench.harness.case import Case, Variant
from bench.harness.device import Device
from bench.ops.inputs import assert_near
from elastic import ops

CALLS = 50
EPS = 1e-4


def case(device: Device, groups: int, size: int) -> Case:
    generator = torch.Generator(device.torch).manual_seed(size)
    rewards = [
        torch.rand(groups * size, device=device.torch, generator=generator).gt(0.6).float() for _ in range(2)
    ]
    offsets = torch.arange(groups + 1, device=device.torch) * size

    def eager(x: Tensor) -> Tensor:
        grouped = x.view(groups, size)
        return ((grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + EPS)).view(-1)

    def fused(x: Tensor) -> Tensor:
        return ops.group_advantage(x, offsets, eps=EPS)

    def many(advantage: Callable[[Tensor], Tensor]) -> Callable[[int], Tensor]:
        def run(_: int) -> Tensor:
            for call in range(CALLS):
                result = advantage(rewards[call % 2])
            return result

        return run

    def check(result: Tensor) -> None:
        assert_near("advantages", result, eager(rewards[1].double()))

    variants = [
        Variant("eager", lambda: many(eager), check, repeats=CALLS),
        Variant("elastic", lambda: many(fused), check, repeats=CALLS),
    ]
    return Case("group_advantage", f"K={groups} G={size}", "float32", variants)
