"""The first half of a step with ``budget.cuts``: each thought is cut at several budgets and answered at each.

AnytimeReasoner (arXiv 2505.13438): thoughts go on to the last cut; behind every cut of a thought solutions
are drawn and graded. A thought's tokens take the rewards of the cuts that see them (`brpo`). A solution
competes with the others behind the same cut of its thought, or, where there is one per cut, with those of the
problem's other thoughts at this budget, by ``loss.advantage``.

K problems of this process, G thoughts of each, R = K * G; S cuts, M solutions behind each cut.
"""

import time
from dataclasses import replace
from typing import Any

import torch

from elastic.models.threads import threads_for
from elastic.rollout import RolloutBatch, RolloutEngine
from elastic.rollout.cuts import cut_thoughts, solutions_behind_cuts
from elastic.rollout.record.measure import measure
from elastic.train.collect.brpo import thought_advantages
from elastic.train.collect.budgets import BudgetDraw
from elastic.train.collect.collector import Collected, Collector
from elastic.train.collect.cut_experience import Answered, cut_experience
from elastic.train.collect.groups import GradedGroups
from elastic.train.collect.rescue import batch_of_failure
from elastic.train.collect.step_metrics import parts_by_name, step_metrics


class AnytimeCollector(Collector):
    """Makes the experience of any step from thoughts and their cuts; for its arguments see `Collector`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        budget = self._config.budget
        assert budget.cuts
        self._cuts, self._cut_budgets = budget.cuts, budget.cut_budgets()
        self._weights = torch.tensor(budget.cut_weights or [1.0] * len(self._cuts), dtype=torch.float64)
        # Of the thoughts: nobody looks at their own solutions.
        last = budget.cuts[-1]
        notices = tuple(notice for notice in budget.notices if notice[0] < last)
        thoughts = replace(budget, thinking=last, solution=1, total=None, notices=notices, cuts=None)
        self._budgets = BudgetDraw(thoughts, self._config.train.seed)

    def collect(self, step: int, position: int) -> Collected:
        """Generates and grades the step's thoughts and solutions, see `Collector.collect`.

        The result's batch holds all rows cut by cut, each with its thought, and its problems likewise.
        """
        start, config, samples = time.perf_counter(), self._config, self._config.rollout.samples_per_prompt
        problems = [self._order.take(position + number, 1)[0] for number in self._groups]
        lengths = self._prompts.lengths(step, self._groups)
        prompts, budgets = self._prompts.render(problems, lengths), self._budgets.draw(step, self._groups)
        answered = self._answer(self._generate(step, self._groups, prompts, budgets))
        generated = time.perf_counter()
        everywhere = problems * len(self._cuts)
        with batch_of_failure(answered.solved, "rollouts", together=self._accelerator):
            graded = self._rewards.grade(answered.solved, everywhere)
        rewards = self._rewards.total(graded.parts)
        by_cut = rewards.view(len(self._cuts), len(problems), samples, -1)  # [S, K, G, M]
        thoughts = thought_advantages(by_cut.nanmean(-1).permute(1, 2, 0), self._weights)
        behind = by_cut.transpose(0, 1)  # [K, S, G, M]
        size = behind.shape[-1] if behind.shape[-1] > 1 else samples
        solutions, signals = self._advantages(behind.flatten().float(), size)
        groups = GradedGroups(
            everywhere,
            answered.solved,
            graded.correct,
            rewards.float(),
            graded.parts,
            [],
            sampled_tokens=answered.sampled_tokens,
            rollout_seconds=generated - start,
            reward_seconds=time.perf_counter() - generated,
            part_seconds=graded.seconds,
        )
        return Collected(
            experience=cut_experience(
                answered,
                thoughts.flatten(0, 1).T,
                solutions.view(behind.shape).transpose(0, 1).reshape(answered.repeated.shape),
                by_cut.isnan().reshape(answered.repeated.shape),
                config.loss.mask_cut_solutions,
            ),
            batch=groups.batch,
            problems=groups.problems,
            rewards=groups.rewards,
            parts=parts_by_name(groups, self._rewards),
            taken=config.rollout.prompts_per_step,
            metrics=step_metrics(groups, signals, self._rewards, self._accelerator)
            | self._metrics_of_cuts(groups),
            rollout_seconds=groups.rollout_seconds,
            reward_seconds=groups.reward_seconds,
        )

    def _answer(self, thoughts: RolloutBatch) -> Answered:
        rollout, samples = self._config.rollout, self._config.budget.cut_samples
        bounded = self._cut_budgets[-1].max_sampled is not None
        rows = len(thoughts) * len(self._cuts) * samples
        assert isinstance(self._engine, RolloutEngine)  # `TrainConfig` refuses others
        with threads_for(self._engine.model, min(rollout.max_rows, rows)):
            solved = RolloutBatch.cat(
                solutions_behind_cuts(
                    self._engine,
                    thoughts,
                    self._cut_budgets,
                    samples_per_cut=samples,
                    sampling=self._config.sampling,
                    max_new_tokens=None if bounded else rollout.max_new_tokens,
                    progress=False,
                )
            ).to("cpu")
        cuts = [cut_thoughts(thoughts, budget, self._engine.tokenizer) for budget in self._cut_budgets]
        shape = (len(cuts), len(thoughts), samples)
        tokens, lengths = solved.tokens.view(*shape, -1), solved.lengths.view(shape)
        repeated = torch.zeros(shape, dtype=torch.bool)
        repeated[1:] = (tokens[1:] == tokens[:-1]).all(-1) & (lengths[1:] == lengths[:-1])
        return Answered(thoughts, torch.stack([cut.lengths for cut in cuts]), solved, repeated)

    def _metrics_of_cuts(self, groups: GradedGroups) -> dict[str, float]:
        """``anytime/t8/accuracy`` and the like: means over all processes, of each cut."""
        rows, graded = measure(groups.batch), ~groups.correct.isnan()
        columns = {
            "accuracy": (groups.correct.nan_to_num(), graded),
            "cut_share": (rows.thinking_cut, torch.ones_like(graded)),
            "solution_tokens": (rows.solution_tokens, torch.ones_like(graded)),
        }
        parts = [part.double() for pair in columns.values() for part in pair]
        sums = torch.stack([part.view(len(self._cuts), -1).sum(1) for part in parts])
        sums = self._accelerator.reduce(sums.float().to(self._accelerator.device), "sum").cpu()
        metrics = {}
        for index, cut in enumerate(self._cuts):
            for name, (total, count) in zip(columns, sums[:, index].view(-1, 2).tolist(), strict=True):
                if count:
                    metrics[f"anytime/t{cut}/{name}"] = total / count
        return metrics
