"""Metrics of a step's rollouts: means over all processes."""

import math
from typing import Any

import torch
from torch import Tensor

from elastic.rewards.combined import Rewards
from elastic.rollout.record.measure import measure
from elastic.train.collect.groups import GradedGroups
from elastic.train.collect.spread import spread


def gather(accelerator: Any, values: Tensor) -> Tensor:
    """Equally long tensors of all processes, joined in their order, on the CPU."""
    return accelerator.gather(values.to(accelerator.device)).cpu()


def step_metrics(
    groups: GradedGroups, signals: Tensor, rewards: Rewards, accelerator: Any
) -> dict[str, float]:
    """Means over all rows, those of rewards over the rows that have one.

    Args:
        groups: of this process; every process must call this.
        signals: [K] bool over all processes: whether a group's rewards differ.
        rewards: what the rows were rewarded for.
        accelerator: knows the processes.
    """
    batch, rows = groups.batch, measure(groups.batch)
    columns = {
        "reward": groups.rewards,
        "accuracy": groups.correct,
        "thinking_tokens": rows.thinking_tokens,
        "solution_tokens": rows.solution_tokens,
        "completion_tokens": rows.tokens,
        "cut_share": rows.thinking_cut,
        "stop_share": rows.stopped,
        "solution_cut_share": rows.solution_cut,
        "loss_token_share": batch.sampled.sum(1) / rows.tokens.clamp(min=1),
    }
    unknown = [int(values.isnan().sum()) for values in (groups.rewards, groups.correct)]
    counts = [len(batch), *unknown, groups.sampled_tokens]
    sums = torch.tensor([*(column.double().nansum().item() for column in columns.values()), *counts])
    *sums, count, skipped, ungraded, tokens = accelerator.reduce(sums.to(accelerator.device), "sum").tolist()
    of = dict.fromkeys(columns, count) | {"reward": count - skipped, "accuracy": count - ungraded}
    # Nothing graded has no mean: the metrics file shows null.
    metrics = {
        name: value / of[name] if of[name] else math.nan for name, value in zip(columns, sums, strict=True)
    }
    if rewards.correct is None:
        del metrics["accuracy"]
    both = gather(accelerator, torch.stack([rows.tokens.float(), groups.rewards.float()], 1))
    metrics |= spread(both[:, 0].long(), both[:, 1], len(batch) // len(groups.problems))
    equal = (~signals).float().mean().item()
    metrics |= _of_parts(groups, rewards, accelerator) | _of_budgets(groups, accelerator)
    return metrics | {"rollout_tokens": tokens, "equal_reward_groups": equal, "skipped_rows": skipped}


def parts_by_name(groups: GradedGroups, rewards: Rewards) -> dict[str, Tensor]:
    """What each reward function gave, by name; nothing where the reward itself says it all."""
    return {} if rewards.plain else dict(zip(rewards.names, groups.parts.unbind(1), strict=True))


def _of_parts(groups: GradedGroups, rewards: Rewards, accelerator: Any) -> dict[str, float]:
    """``reward/NAME/mean`` and the like of each function, unweighted."""
    metrics: dict[str, float] = {}
    for index, (name, own) in enumerate(parts_by_name(groups, rewards).items()):
        values = gather(accelerator, own.float())
        given = values[~values.isnan()]
        metrics |= {
            f"reward/{name}/mean": given.mean().item(),
            f"reward/{name}/std": given.std().item() if len(given) > 1 else math.nan,
            f"reward/{name}/none_share": 1 - len(given) / len(values),
            f"reward/{name}/seconds": gather(accelerator, groups.part_seconds[index, None].float())
            .max()
            .item(),
        }
    return metrics


def _of_budgets(groups: GradedGroups, accelerator: Any) -> dict[str, float]:
    """Means over the groups, where budgets differ from step to step or group to group."""
    if not groups.budgets:
        return {}
    pairs = [(budget.thinking, budget.solution) for budget in groups.budgets]
    limits = torch.tensor([[math.nan if limit is None else float(limit) for limit in pair] for pair in pairs])
    thinking, solution = gather(accelerator, limits).mean(0).tolist()
    return {"thinking_budget": thinking, "solution_budget": solution}
