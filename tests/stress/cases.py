"""Which calls a seed and a number make, and running them on the CPU kernels or on CUDA's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType

from tests.cuda_on_cpu.launch_shapes import DIRECT, RING, TABLE
from tests.stress import advantages, budgets, losses, sampling
from tests.stress.draw import Draw

# As often as their weight: what can go wrong in most ways most often.
OPS: dict[Callable[[Draw], None], int] = {
    losses.token_logprobs: 3,
    losses.grpo_loss: 5,
    losses.linear_grpo_loss: 3,
    losses.linear_token_logprobs: 2,
    advantages.group_advantage: 1,
    sampling.sample: 2,
    budgets.budget_ops: 3,
}


LAUNCHES = (TABLE, RING, DIRECT)  # of CUDA's kernels, case by case


def chooses(shim: ModuleType, stack: ExitStack) -> Callable[[int], None]:
    """What makes a case's launch the shim's; the table's own is put back with the stack."""
    stack.callback(shim.set_logits_launch, *TABLE)

    def choose(case: int) -> None:
        shim.set_logits_launch(*LAUNCHES[case % len(LAUNCHES)])

    return choose


def check(seed: int, kernels: str, case: int) -> None:
    """Makes one call, or those of a few rows' life under budgets, and compares.

    Raises:
        Fault: a result is not the reference's.
    """
    draw = Draw(f"{seed}/{kernels}/{case}", small=kernels != "cpu")
    (op,) = draw.choices(list(OPS), list(OPS.values()))
    op(draw)
