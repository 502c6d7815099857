"""Which budgets the groups of a step get: fixed, random or on a curriculum."""

from dataclasses import replace

from elastic.budget import Budget
from elastic.train.schedule import linear
from elastic.train.sections import BudgetConfig
from elastic.train.seeds import Stream, generator


class BudgetDraw:
    """Budgets of a step as a function of (seed, step, group) alone: nothing to save, nothing to resume.

    Raises:
        ValueError: the configuration's budgets are impossible (SPEC.md R14, R17), the smallest too.
    """

    def __init__(self, config: BudgetConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        try:
            self.largest = Budget(
                _limit(config.thinking),
                _limit(config.solution),
                config.total,
                closing=config.closing,
                on_eos=config.on_eos,
                on_reopen=config.on_reopen,
                on_reclose=config.on_reclose,
                whole_characters=config.whole_characters,
                min_thinking=config.min_thinking,
                extension=config.extension,
                max_extensions=config.max_extensions,
                notices=config.notices,
                grace=config.grace,
                boundary=config.boundary,
            )
            self.smallest = self.largest
            if config.draw == "random":
                low = config.solution_low or self.largest.solution
                self.smallest = replace(self.largest, thinking=config.thinking_low, solution=low)
            elif config.draw == "curriculum":
                low = config.solution_start or self.largest.solution
                self.smallest = replace(self.largest, thinking=config.thinking_start, solution=low)
        except ValueError as error:
            raise ValueError(f"[budget]: {error}") from error

    def draw(self, step: int, groups: range) -> list[Budget]:
        """Budgets of some of a step's groups.

        Args:
            step: from 0.
            groups: indices among all groups of the step, over all processes.
        """
        config, budget = self._config, self.largest
        if config.draw == "fixed":
            return [budget] * len(groups)
        if config.draw == "curriculum":
            assert config.thinking_start is not None
            assert config.curriculum_steps is not None
            share = min(1.0, step / config.curriculum_steps)
            thinking = round(linear(config.thinking_start, budget.thinking or 0, share))
            solution = budget.solution
            if config.solution_start is not None and solution is not None:
                solution = round(linear(config.solution_start, solution, share))
            return [replace(budget, thinking=thinking, solution=solution)] * len(groups)
        budgets = []
        for group in groups:
            rng = generator(self._seed, Stream.BUDGETS, step, group)
            thinking = rng.randint(config.thinking_low, budget.thinking or 0)
            solution = budget.solution
            if config.solution_low is not None and solution is not None:
                solution = rng.randint(config.solution_low, solution)
            budgets.append(replace(budget, thinking=thinking, solution=solution))
        return budgets


def _limit(value: int | str) -> int | None:
    return None if isinstance(value, str) else value
