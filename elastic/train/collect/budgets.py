"""Which budgets the groups of a step get: fixed, random, on a curriculum, or those of their problems."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from elastic.budget import Budget
from elastic.data import Problem
from elastic.data.columns import kept_name
from elastic.train.collect.seeds import RandomStream, generator
from elastic.train.config.budget import BudgetConfig


class BudgetDraw:
    """Budgets of a step, a function of (seed, step, group, problem) alone: a checkpoint need not hold them.

    `smallest` and `largest` bound them in both phases; `final` is the configured budget, at which a
    curriculum arrives, and which no problem's may exceed.

    Args:
        config: of the run.
        seed: of the run.
        problems: all of them, where they have budgets of their own.

    Raises:
        ValueError: the smallest or largest budget of the configuration is impossible (SPEC R14, R17), or a
            problem has none, one above the configured one, or an impossible one.
    """

    def __init__(self, config: BudgetConfig, seed: int, problems: Sequence[Problem] = ()) -> None:
        self._config = config
        self._seed = seed
        self.final = config.budget()
        self.smallest, self.largest = config.bounds()
        if config.draw == "problem" and problems:
            own = [self._of(problem) for problem in problems]
            least: dict[str, Any] = {
                name: min(getattr(budget, name) for budget in own) for name in config.columns
            }
            self.smallest = replace(self.final, **least)

    def draw(self, step: int, groups: Sequence[int], problems: Sequence[Problem] = ()) -> list[Budget]:
        """Budgets of some of a step's groups.

        Args:
            step: from 0.
            groups: numbers among all groups of the step, over all processes.
            problems: of these groups; needed where they have budgets of their own.
        """
        config, budget = self._config, self.final
        if config.draw == "fixed":
            return [budget] * len(groups)
        if config.draw == "problem":
            return [self._of(problem) for _, problem in zip(groups, problems, strict=True)]
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

    def _of(self, problem: Problem) -> Budget:
        """The problem's own budget."""
        columns = self._config.columns
        limits: dict[str, Any] = {
            name: self._limit(problem, name, kept_name(column)) for name, column in columns.items()
        }
        try:
            return replace(self.final, **limits)
        except ValueError as error:
            raise ValueError(f"budget.draw: problem '{problem.id}' has {limits}: {error}") from error

    def _limit(self, problem: Problem, name: str, column: str) -> int:
        key, most = f"budget.{name}_column", getattr(self.final, name)
        if column not in problem.columns:
            has = ", ".join(sorted(problem.columns)) or "none"
            raise ValueError(f"{key}: problem '{problem.id}' has no column '{column}', it has {has}")
        value = problem.columns[column]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        whole = number and float(value).is_integer()
        if not whole or not 0 <= value <= most:
            raise ValueError(
                f"{key}: problem '{problem.id}' has {value!r}, expected a whole number of tokens up to "
                f"budget.{name} = {most}"
            )
        return int(value)


def _linear(start: int, end: int, share: float) -> int:
    return round(start + (end - start) * share)


def _geometric(start: int, end: int, share: float) -> int:
    return round(start * (end / start) ** share)
