"""Which budgets the groups of a step get: fixed, random or on a curriculum."""

from collections.abc import Sequence
from dataclasses import replace

from elastic.budget import Budget
from elastic.train.collect.seeds import RandomStream, generator
from elastic.train.config.budget import BudgetConfig


class BudgetDraw:
    """Budgets of a step, a function of (seed, step, group) alone: a checkpoint need not hold them.

    `smallest` and `largest` bound them in both phases; `final` is the configured budget, at which a
    curriculum arrives.

    Raises:
        ValueError: the smallest or largest budget of the configuration is impossible (SPEC R14, R17).
    """

    def __init__(self, config: BudgetConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        self.final = config.budget()
        self.smallest, self.largest = config.bounds()

    def draw(self, step: int, groups: Sequence[int]) -> list[Budget]:
        """Budgets of some of a step's groups.

        Args:
            step: from 0.
            groups: numbers among all groups of the step, over all processes.
        """
        config, budget = self._config, self.final
        if config.draw == "fixed":
            return [budget] * len(groups)
        if config.draw == "curriculum":
            assert config.thinking_start is not None
            assert config.curriculum_steps is not None
            share = min(1.0, step / config.curriculum_steps)
            between = _geometric if config.curriculum == "exponential" else _linear
            thinking = between(config.thinking_start, budget.thinking or 0, share)
            solution = budget.solution
            if config.solution_start is not None and solution is not None:
                solution = between(config.solution_start, solution, share)
            return [replace(budget, thinking=thinking, solution=solution)] * len(groups)
        budgets = []
        for group in groups:
            rng = generator(self._seed, RandomStream.BUDGETS, step, group)
            thinking = rng.randint(config.thinking_low, budget.thinking or 0)
            solution = budget.solution
            if config.solution_low is not None and solution is not None:
                solution = rng.randint(config.solution_low, solution)
            budgets.append(replace(budget, thinking=thinking, solution=solution))
        return budgets


def _linear(start: int, end: int, share: float) -> int:
    return round(start + (end - start) * share)


def _geometric(start: int, end: int, share: float) -> int:
    return round(start * (end / start) ** share)
