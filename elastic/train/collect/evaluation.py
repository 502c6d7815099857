"""Accuracy under several budgets while training goes on."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from elastic.budget import Budget
from elastic.data import Problem
from elastic.models.threads import threads_for
from elastic.rewards.combined import Rewards
from elastic.rollout import RolloutBatch
from elastic.rollout.record.measure import measure
from elastic.sampling import Sampling, sample_seeds
from elastic.train.collect.engines import Engine
from elastic.train.collect.first_rank import takes_part
from elastic.train.collect.prompts import Prompts
from elastic.train.collect.rescue import batch_of_failure
from elastic.train.config.loop import EvalConfig

_MEANS = ("accuracy", "thinking_tokens", "solution_tokens", "cut_share")


class Evaluation:
    """The same problems, seeds and grading rule every time, so that only the model differs.

    Args:
        config: what is evaluated.
        accelerator: knows the processes, over which problems are distributed.
        engine: over the trained model.
        prompts: renders problems, by the rule of their own source.
        problems: the evaluated ones.
        rewards: the one of them that says what is correct.
        training_budget: gives everything but (t, s): closing, rules, grace.
        max_new_tokens: engine limit for unlimited budgets.
    """

    def __init__(
        self,
        config: EvalConfig,
        accelerator: Any,
        engine: Engine,
        prompts: Prompts,
        problems: Sequence[Problem],
        rewards: Rewards,
        training_budget: Budget,
        max_new_tokens: int | None,
    ) -> None:
        self._config, self._accelerator, self._engine = config, accelerator, engine
        self._rewards, self._max_new_tokens = rewards, max_new_tokens
        self._rows = range(accelerator.process_index, len(problems), accelerator.num_processes)
        self._problems = [problems[row] for row in self._rows]
        # The same lengths every time, drawn as those that the model is trained on.
        lengths = prompts.lengths(0, self._rows)
        self._prompts = prompts.render(self._problems, lengths)
        self._special = prompts.add_special_tokens
        self._phases = prompts.phases(self._prompts, engine)
        self._budgets = evaluation_budgets(config, training_budget)

    def run(self) -> dict[str, float]:
        """``eval/t40_s64/accuracy`` and the like: means over the problems, each the mean over its answers.

        ``accuracy`` is that of graded answers, of which there are ``graded``, and ``accuracy_stderr`` its
        standard error; NaN where there are none. `elastic eval` gives the same numbers of the same weights.
        """
        record = dict[str, float]()
        for name, budget in self._budgets.items():
            sums = torch.zeros(8, dtype=torch.float64)
            needed = takes_part(self._engine, self._prompts)
            batch = self._answer(budget) if needed else None
            with batch_of_failure(batch, "evaluation", together=self._accelerator):
                if batch is not None and self._prompts:
                    sums = self._sums(batch)
            sums = self._accelerator.reduce(sums.float().to(self._accelerator.device), "sum")
            record |= {f"eval/{name}/{label}": value for label, value in _means(sums.tolist()).items()}
        return record

    def _answer(self, budget: Budget) -> RolloutBatch:
        config = self._config
        seeds = sample_seeds(config.seed, self._rows, config.samples)  # those of `elastic eval`
        with threads_for(self._engine.model, min(self._engine.max_rows, max(1, len(seeds)))):
            return self._engine.generate(
                self._prompts,
                budget=budget,
                samples_per_prompt=config.samples,
                sampling=Sampling(config.temperature, top_p=config.top_p),
                max_new_tokens=None if budget.max_sampled is not None else self._max_new_tokens,
                seeds=seeds,
                progress=False,
                add_special_tokens=self._special,
                phase=self._phases,
            ).to("cpu")

    def _sums(self, batch: RolloutBatch) -> Tensor:
        """[8] of this process's answers, for `_means`."""
        grades, rows = self._rewards.correctness(batch, self._problems), measure(batch)
        used = (rows.thinking_tokens, rows.solution_tokens, rows.thinking_cut)
        graded = sum(value is not None for value in grades)
        counts = [*(column.sum().item() for column in used), len(batch), graded]
        return torch.cat([_moments(grades, self._config.samples), torch.tensor(counts, dtype=torch.float64)])


def _moments(grades: Sequence[float | None], samples: int) -> Tensor:
    """[3]: problems with a graded answer, and the sums of their means and of the squares of these."""
    groups = [grades[first : first + samples] for first in range(0, len(grades), samples)]
    graded = [[value for value in group if value is not None] for group in groups]
    means = torch.tensor([sum(group) / len(group) for group in graded if group], dtype=torch.float64)
    return torch.stack(
        [torch.tensor(float(means.numel()), dtype=torch.float64), means.sum(), (means**2).sum()]
    )


def _means(sums: Sequence[float]) -> dict[str, float]:
    """The metrics of one budget. The standard error is over problems: their samples are not independent."""
    problems, total, squares, *used, answers, graded = sums
    accuracy = total / problems if problems else math.nan
    spread = max(0.0, squares - problems * accuracy**2) if problems else 0.0
    error = math.sqrt(spread / (problems - 1) / problems) if problems > 1 else math.nan
    means = [accuracy, *(value / answers if answers else math.nan for value in used)]
    return dict(zip(_MEANS, means, strict=True)) | {"accuracy_stderr": error, "graded": graded}


def metric_names(config: EvalConfig, training: Budget) -> list[str]:
    """The metrics of an evaluation, as ``eval/t40_s64/accuracy``."""
    return [f"eval/{name}/{label}" for name in evaluation_budgets(config, training) for label in _MEANS]


def evaluation_budgets(config: EvalConfig, training: Budget) -> dict[str, Budget]:
    """Name, as ``t40_s64``, of each evaluated budget; ``inf`` for unlimited.

    All but the two limits is taken from the training budget, so that both run under the same rules. Options
    that a tighter limit would never reach (a notice, a minimum) are left out.
    """
    pairs = [tuple(None if n < 0 else n for n in pair) for pair in config.budgets]
    budgets = {}
    for thinking, solution in pairs or [(training.thinking, training.solution)]:
        name = f"t{'inf' if thinking is None else thinking}_s{'inf' if solution is None else solution}"
        most = math.inf if thinking is None else thinking
        least = training.min_thinking if thinking is None else min(training.min_thinking, thinking)
        budgets[name] = replace(
            training,
            thinking=thinking,
            solution=solution,
            total=None if pairs else training.total,
            grace=0 if thinking is None else training.grace,
            boundary=None if thinking is None else training.boundary,
            min_thinking=least,
            max_extensions=training.max_extensions if least else 0,
            notices=tuple(notice for notice in training.notices if notice[0] < most),
        )
    return budgets
