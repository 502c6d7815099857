"""Graded groups of a step, and dynamic sampling: groups without a signal are replaced by others."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from elastic.budget import Budget
from elastic.data import Problem
from elastic.rollout import RolloutBatch


@dataclass(frozen=True)
class GradedGroups:
    """Groups of equal size with their completions and rewards; a group's rows follow each other.

    Attributes:
        problems: K, one per group.
        batch: the rollout record of R rows.
        correct: [R] float64 correctness; NaN where the reward function gave None, or none says it.
        rewards: [R] float32, with the length term if there is one; NaN where no function gave a number.
        parts: [R, F] float64, what each of the reward functions gave, unweighted; NaN likewise.
        budgets: K, one per group; empty where all steps have the same.
        sampled_tokens: tokens generated for these groups and for those that they replaced.
        rollout_seconds: spent generating, likewise.
        reward_seconds: spent grading, likewise.
        part_seconds: [F] float64, of these in each function.
    """

    problems: list[Problem]
    batch: RolloutBatch
    correct: Tensor
    rewards: Tensor
    parts: Tensor
    budgets: list[Budget]
    sampled_tokens: int
    rollout_seconds: float
    reward_seconds: float
    part_seconds: Tensor

    def group(self, index: int) -> "GradedGroups":
        """One of the groups; tokens and times stay those of all."""
        size = len(self.batch) // len(self.problems)
        rows = slice(index * size, (index + 1) * size)
        return replace(
            self,
            problems=[self.problems[index]],
            batch=self.batch[rows],
            correct=self.correct[rows],
            rewards=self.rewards[rows],
            parts=self.parts[rows],
            budgets=self.budgets[index : index + 1],
        )


def have_signal(rewards: Tensor) -> Tensor:
    """[K] bool of rewards [K, n]: whether a group's rewards, NaN left out, are not all equal."""
    highest = rewards.nan_to_num(-torch.inf).amax(1)
    lowest = rewards.nan_to_num(torch.inf).amin(1)
    return highest > lowest


def sample_dynamically(
    first: GradedGroups,
    draw: Callable[[list[int]], GradedGroups | None],
    gather: Callable[[Tensor], Tensor],
    places: range,
    count: int,
    max_batches: int,
) -> tuple[GradedGroups, int]:
    """Replaces groups whose rewards are all equal by groups further along the data order.

    A place of the step keeps its first group with a signal, and its first group where none has one. The
    groups of a step are numbered in the order in which they are drawn: those of the first batch by their
    places, then one for each place that is still without a signal, in the places' order. So the number of
    processes changes nothing.

    Source: DAPO (arXiv 2503.14476), section 3.2; also part of DLER (arXiv 2510.15110). Their code draws whole
    batches again and drops surplus groups.

    Args:
        first: this process's groups of the first batch, in the order of `places`.
        draw: completes and grades the groups of these numbers; called by every process, perhaps with none,
            for which it gives None.
        gather: joins equally long tensors of all processes in their order.
        places: of this process, among all of the step.
        count: of the places of the step.
        max_batches: most batches drawn, the first included.

    Returns:
        One group per place, and how many were drawn over all processes.
    """
    size = len(first.batch) // len(places)
    chosen = [first.group(index) for index in range(len(places))]
    parts, taken = [first], count
    for _ in range(max_batches - 1):
        signals = have_signal(gather(torch.cat([group.rewards for group in chosen])).view(-1, size))
        missing = (~signals).nonzero().flatten().tolist()
        if not missing:
            break
        own = {place: taken + index for index, place in enumerate(missing) if place in places}
        taken += len(missing)
        further = draw(list(own.values()))
        if further is None:
            continue
        parts.append(further)
        for index, place in enumerate(own):
            group = further.group(index)
            if have_signal(group.rewards[None]).item():
                chosen[place - places.start] = group
    joined = GradedGroups(
        problems=[group.problems[0] for group in chosen],
        batch=RolloutBatch.cat(group.batch for group in chosen),
        correct=torch.cat([group.correct for group in chosen]),
        rewards=torch.cat([group.rewards for group in chosen]),
        parts=torch.cat([group.parts for group in chosen]),
        budgets=[budget for group in chosen for budget in group.budgets],
        sampled_tokens=sum(part.sampled_tokens for part in parts),
        rollout_seconds=sum(part.rollout_seconds for part in parts),
        reward_seconds=sum(part.reward_seconds for part in parts),
        part_seconds=torch.stack([part.part_seconds for part in parts]).sum(0),
    )
    return joined, taken
