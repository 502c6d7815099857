"""Which budget each group of a generation gets: one for all, drawn, of a list, or of a dataset's columns."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from elastic.budget import Budget
from elastic.sampling import row_seed


class GroupBudgets:
    """Budgets of groups, a function of seed, group and prompt alone: a resumed run draws the same.

    Args:
        budget: of all groups, or a list of which each group draws one.
        thinking_low: draw each group's thinking budget from here to `budget.thinking`, in training alone.
        solution_low: likewise for the solution.
        thinking_column: the dataset's column with each prompt's own thinking budget.
        solution_column: likewise for the solution.

    Raises:
        TypeError, ValueError: arguments that do not go together, naming them.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget],
        *,
        thinking_low: int | None = None,
        solution_low: int | None = None,
        thinking_column: str | None = None,
        solution_column: str | None = None,
    ) -> None:
        listed = [budget] if isinstance(budget, Budget) else budget
        if not isinstance(listed, Sequence) or not listed or not all(isinstance(b, Budget) for b in listed):
            raise TypeError(f"budget: expected a Budget or a list of at least one, got {budget!r}")
        self._listed = list(listed)
        self._lows = {"thinking": thinking_low, "solution": solution_low}
        columns = {"thinking": thinking_column, "solution": solution_column}
        self._columns = {name: column for name, column in columns.items() if column is not None}
        for name, low in self._lows.items():
            if low is not None:
                self._check_low(name, low)
        if self._columns and len(self._listed) > 1:
            raise ValueError("budget: expected one Budget, whose fields the columns replace, got a list")
        self._tables: dict[tuple[int, ...], tuple[Sequence[Any], dict[str, Budget]]] = {}

    def _check_low(self, name: str, low: int) -> None:
        if name in self._columns:
            raise ValueError(f"{name}_low: expected None with {name}_column, got {low}")
        if len(self._listed) > 1:
            raise ValueError(f"{name}_low: expected None with a list of budgets, got {low}")
        high = getattr(self._listed[0], name)
        if high is None:
            raise ValueError(f"{name}_low: needs a bounded budget.{name}, up to which is drawn")
        if isinstance(low, bool) or not isinstance(low, int) or low > high:
            raise ValueError(f"{name}_low: expected an integer up to budget.{name} = {high}, got {low!r}")
        smallest: dict[str, Any] = {name: low}
        replace(self._listed[0], **smallest)  # the smallest budget is legal too

    def draw(
        self,
        prompts: Sequence[Any],
        groups: Sequence[int],
        seed: int,
        training: bool,
        datasets: Sequence[Any],
    ) -> list[Budget]:
        """The budget of each row.

        Args:
            prompts: [R] as the dataset has them.
            groups: [R] each row's group among those of all processes.
            seed: of this generation.
            training: whether it is for training.
            datasets: those that the prompts come from, which have the columns.
        """
        if self._columns:
            table = self._table(datasets)
            return [self._found(table, prompt) for prompt in prompts]
        budgets = {group: self._drawn(row_seed(seed, group), training) for group in dict.fromkeys(groups)}
        return [budgets[group] for group in groups]

    def _drawn(self, seed: int, training: bool) -> Budget:
        rng = random.Random(seed)
        budget = self._listed[0] if len(self._listed) == 1 else rng.choice(self._listed)
        lows = {name: low for name, low in self._lows.items() if low is not None and training}
        drawn: dict[str, Any] = {name: rng.randint(low, getattr(budget, name)) for name, low in lows.items()}
        return replace(budget, **drawn) if drawn else budget

    def _found(self, table: dict[str, Budget], prompt: Any) -> Budget:
        budget = table.get(_key(prompt))
        if budget is None:
            names = ", ".join(self._columns.values())
            raise ValueError(f"{names}: a prompt is in no dataset of the trainer: {prompt!r}")
        return budget

    def _table(self, datasets: Sequence[Any]) -> dict[str, Budget]:
        """The budget of each prompt of some datasets; read once."""
        key = tuple(id(dataset) for dataset in datasets)
        if key not in self._tables:
            table: dict[str, Budget] = {}
            for dataset in datasets:
                self._read(dataset, table)
            self._tables[key] = datasets, table  # held, so that no other dataset gets its id
        return self._tables[key][1]

    def _read(self, dataset: Any, table: dict[str, Budget]) -> None:
        if not hasattr(dataset, "__len__"):
            raise ValueError("thinking_column, solution_column: need a dataset that is no stream")
        names = dataset.column_names
        for name, column in self._columns.items():
            if column not in names:
                raise ValueError(f"{name}_column: the dataset has no column {column!r}, only {names}")
        rows: Iterable[Any] = dataset.select_columns(["prompt", *self._columns.values()])
        for index, row in enumerate(rows):
            values = {name: row[column] for name, column in self._columns.items()}
            try:
                budget = replace(self._listed[0], **values)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{', '.join(self._columns.values())}: row {index}: {error}") from error
            if table.setdefault(_key(row["prompt"]), budget) != budget:
                raise ValueError(
                    f"{', '.join(self._columns.values())}: row {index}: an earlier row has the same prompt "
                    "and another budget, and TRL tells a rollout function the prompt alone"
                )


def _key(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str)
