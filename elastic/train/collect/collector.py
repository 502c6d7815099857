"""The first half of a step: problems, budgets, completions, rewards, advantages.

Groups are distributed over processes. Every random draw is keyed by its group's number among all groups of
the step, so the number of processes does not change it.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elastic import ops
from elastic.budget import Budget
from elastic.data import Problem
from elastic.models.threads import threads_for
from elastic.rewards import l1_exact, l1_max
from elastic.rewards.combined import Rewards
from elastic.rollout import RolloutBatch
from elastic.train.collect.budgets import BudgetDraw
from elastic.train.collect.data_order import DataOrder
from elastic.train.collect.engines import Engine
from elastic.train.collect.experience import Experience
from elastic.train.collect.first_rank import takes_part
from elastic.train.collect.groups import GradedGroups, have_signal, sample_dynamically
from elastic.train.collect.prompts import Prompts
from elastic.train.collect.rescue import batch_of_failure
from elastic.train.collect.seeds import RandomStream, derive
from elastic.train.collect.step_metrics import gather, parts_by_name, step_metrics
from elastic.train.config import TrainConfig
from elastic.train.config.no_effect import effective

_SAMPLE_FIELDS = (
    *("prompt", "thinking", "solution"),
    *("thinking_tokens", "solution_tokens", "thinking_cut", "finish_reason"),
)


@dataclass(frozen=True)
class Collected:
    """One process's share of a step.

    Attributes:
        experience: rows for the update.
        batch: the rollout record.
        problems: one per group.
        rewards: [R] float32; NaN where no reward function gave a number.
        parts: what each function gave, [R] of them by name; empty where one `RewardFunction` is all there is.
        taken: problems taken from the data order, over all processes.
        metrics: means over all processes.
        rollout_seconds: spent generating.
        reward_seconds: spent grading.
    """

    experience: Experience
    batch: RolloutBatch
    problems: list[Problem]
    rewards: Tensor
    parts: dict[str, Tensor]
    taken: int
    metrics: dict[str, float]
    rollout_seconds: float
    reward_seconds: float

    def samples(self, step: int, count: int) -> list[dict[str, Any]]:
        """The first rows in readable form: texts, reward, use of the budgets."""
        rows = list(range(min(count, len(self.batch))))
        result = []
        for row, record in zip(rows, self.batch[rows].to_records(), strict=True):
            problem = self.problems[int(self.batch.prompt_index[row])]
            identity = {"step": step, "problem": problem.id, "answer": problem.answer}
            rewards: dict[str, Any] = {"reward": self.rewards[row].item()}
            if self.parts:
                rewards["rewards"] = {name: values[row].item() for name, values in self.parts.items()}
            result.append(identity | rewards | {name: record[name] for name in _SAMPLE_FIELDS})
        return result


class Collector:
    """Makes the experience of any step.

    Args:
        config: of the run.
        accelerator: knows the processes.
        engine: over the trained model.
        prompts: renders problems.
        order: of the training problems.
        budgets: of the groups.
        rewards: what completions are rewarded for.
    """

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Any,
        engine: Engine,
        prompts: Prompts,
        order: DataOrder[Problem],
        budgets: BudgetDraw,
        rewards: Rewards,
    ) -> None:
        self._config, self._accelerator, self._engine = config, accelerator, engine
        self._prompts, self._order, self._budgets, self._rewards = prompts, order, budgets, rewards
        share = config.rollout.prompts_per_step // accelerator.num_processes
        self._groups = range(share * accelerator.process_index, share * (accelerator.process_index + 1))

    def collect(self, step: int, position: int) -> Collected:
        """Generates and grades the step's completions.

        Args:
            step: from 0.
            position: problems taken so far, over all processes.
        """
        rollout = self._config.rollout
        groups, taken = self._complete(step, position, self._groups), rollout.prompts_per_step
        assert groups is not None  # every process has a share of the first batch
        if rollout.dynamic_sampling:
            groups, taken = sample_dynamically(
                groups,
                lambda numbers: self._complete(step, position, numbers),
                self._gather,
                self._groups,
                rollout.prompts_per_step,
                rollout.max_batches,
            )
        advantages, signals = self._advantages(groups.rewards, rollout.samples_per_prompt)
        metrics = step_metrics(groups, signals, self._rewards, self._accelerator)
        if rollout.dynamic_sampling:
            metrics |= {"sampled_groups": taken, "kept_groups": int(signals.sum())}
        return Collected(
            experience=Experience.from_rollout(
                groups.batch,
                advantages,
                self._config.loss.mask_cut_solutions,
                skipped=groups.rewards.isnan(),
            ),
            batch=groups.batch,
            problems=groups.problems,
            rewards=groups.rewards,
            parts=parts_by_name(groups, self._rewards),
            taken=taken,
            metrics=metrics,
            rollout_seconds=groups.rollout_seconds,
            reward_seconds=groups.reward_seconds,
        )

    def _complete(self, step: int, position: int, numbers: Sequence[int]) -> GradedGroups | None:
        """Completes and grades some of the step's groups; None for none. Every process must call it."""
        start = time.perf_counter()
        problems = [self._order.take(position + number, 1)[0] for number in numbers]
        lengths = self._prompts.lengths(step, numbers)
        prompts, budgets = (
            self._prompts.render(problems, lengths),
            self._budgets.draw(step, numbers, problems),
        )
        needed = takes_part(self._engine, numbers)
        batch = self._generate(step, numbers, prompts, budgets) if needed else None
        generated = time.perf_counter()
        with batch_of_failure(batch, "rollouts", together=self._accelerator):
            if batch is None or not numbers:
                return None
            graded = self._rewards.grade(batch, problems)
        parts = graded.parts
        if self._config.reward.length != "none":
            assert self._rewards.paid is not None  # `TrainConfig` refuses lengths without
            parts[:, self._rewards.paid] = self._with_lengths(batch, graded.correct, lengths)
        return GradedGroups(
            problems,
            batch,
            graded.correct,
            self._rewards.total(parts).float(),
            parts,
            budgets if self._config.budget.draw != "fixed" else [],
            sampled_tokens=int(batch.lengths.sum()),
            rollout_seconds=generated - start,
            reward_seconds=time.perf_counter() - generated,
            part_seconds=graded.seconds,
        )

    def _generate(
        self, step: int, numbers: Sequence[int], prompts: Sequence[str], budgets: Sequence[Budget]
    ) -> RolloutBatch:
        rollout = self._config.rollout
        samples = rollout.samples_per_prompt
        rows = [number * samples + sample for number in numbers for sample in range(samples)]
        bounded = self._budgets.largest.max_sampled is not None
        decoded = min(rollout.max_rows, len(rows))
        with threads_for(self._engine.model, decoded):
            batch = self._engine.generate(
                prompts,
                budget=budgets,
                samples_per_prompt=samples,
                sampling=self._config.sampling,
                max_new_tokens=None if bounded else rollout.max_new_tokens,
                seeds=[derive(self._config.train.seed, RandomStream.ROLLOUT, step, row) for row in rows],
                progress=False,
                add_special_tokens=self._prompts.add_special_tokens,
                phase=self._prompts.phases(prompts, self._engine),
            ).to("cpu")
        if self._config.sampling.recorded and batch.kept is None:
            raise ValueError("rollout.most_kept: this engine records no kept sets: set it to 0")
        return batch

    def _with_lengths(self, batch: RolloutBatch, correct: Tensor, lengths: Sequence[int | None]) -> Tensor:
        config = self._config.reward
        formula: Callable[..., float] = l1_exact if config.length == "l1-exact" else l1_max
        used = (batch.thinking_tokens + batch.solution_tokens).tolist()
        groups = batch.prompt_index.tolist()
        rows = zip(correct.tolist(), used, groups, strict=True)
        values = [math.nan if c != c else formula(c, lengths[k], n, config.alpha) for c, n, k in rows]
        return torch.tensor(values, dtype=torch.float64)

    def _gather(self, values: Tensor) -> Tensor:
        return gather(self._accelerator, values)

    def _advantages(self, rewards: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """Of this process's rows; and, over all processes, [K] bool: whether a group's rewards differ.

        Advantages may need the whole batch's deviation. A row without a reward has advantage 0 and takes no
        part in its group's mean.

        Args:
            rewards: problem by problem.
            samples: rows of a group.
        """
        config = self._config.loss
        everything = self._gather(rewards)
        graded = ~everything.isnan()
        offsets = torch.zeros(everything.numel() // samples + 1, dtype=torch.int64)
        torch.cumsum(graded.view(-1, samples).sum(1), 0, out=offsets[1:])
        advantages = torch.zeros_like(everything)
        read = effective(config, "advantage_eps", "pass_k")
        advantages[graded] = ops.group_advantage(
            everything[graded],
            offsets,
            config.advantage,
            read.get("advantage_eps"),
            pass_k=read.get("pass_k"),
        )
        first = self._groups.start * (rewards.numel() // len(self._groups))
        return advantages[first : first + rewards.numel()], have_signal(everything.view(-1, samples))
