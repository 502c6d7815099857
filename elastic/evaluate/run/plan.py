"""What an evaluation decodes: tasks that several rows share, cut into chunks in a fixed order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from elastic.budget import Budget
from elastic.evaluate.methods import BudgetPair, Method, PolicyOptions
from elastic.evaluate.run.sets import EvalSet


class Cell(NamedTuple):
    """A method at one budget: a row of the table.

    Attributes:
        method: the policy.
        pair: (t, s).
        batch: which of its task's budgets it is.
    """

    method: Method
    pair: BudgetPair
    batch: int

    @property
    def budget(self) -> tuple[int | None, int | None, int | None]:
        """(thinking, solution, total) as in `Sample`."""
        total = self.method.total(*self.pair)
        return (*self.pair, None) if total is None else (None, None, total)


@dataclass(frozen=True, eq=False)
class Task:
    """Completions of one set that are decoded once.

    Attributes:
        data: the set.
        budgets: of the rows; several where one thought is cut at each of them.
        cells: whose samples these are: methods that have the same prompts and budget share a task.
    """

    data: EvalSet
    budgets: tuple[Budget, ...]
    cells: tuple[Cell, ...]

    def prompts(self, numbers: range | None = None) -> list[str]:
        """The prompts, which all cells have."""
        return self.data.prompts(self.cells[0].method, self.cells[0].pair, numbers)

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.data.name}, {self.cells[0].method.name}"


@dataclass(frozen=True, eq=False)
class Chunk:
    """The part of a task that is decoded, graded and written in one go.

    Attributes:
        task: what is decoded.
        numbers: of the problems.
        samples: completions per problem.
    """

    task: Task
    numbers: range
    samples: int

    @property
    def completions(self) -> int:
        """Rows that are decoded."""
        return len(self.numbers) * self.samples * len(self.task.budgets)

    @property
    def keys(self) -> Iterator[tuple]:
        """(data, method, budget, problem, sample) of every line that it writes, in order."""
        ids = self.task.data.ids
        for cell in self.task.cells:
            for number in self.numbers:
                for sample in range(self.samples):
                    yield self.task.data.name, cell.method.name, cell.budget, ids[number], sample

    @property
    def lines(self) -> int:
        """How many lines that is."""
        return len(self.task.cells) * len(self.numbers) * self.samples


def tasks_of(
    sets: Sequence[EvalSet],
    methods: Sequence[Method],
    pairs: Sequence[BudgetPair],
    options: PolicyOptions,
) -> list[Task]:
    """The tasks, set by set, budget by budget, method by method, in order of first appearance."""
    tasks: dict[tuple, Task] = {}
    for number, data in enumerate(sets):
        for method in (method for method in methods if method.one_thought):
            budgets = tuple(data.spelled(method.budget(*pair, options)) for pair in pairs)
            cells = tuple(Cell(method, pair, batch) for batch, pair in enumerate(pairs))
            tasks[number, method.name] = Task(data, budgets, cells)
        for pair in pairs:
            for method in (method for method in methods if not method.one_thought):
                budget = data.spelled(method.budget(*pair, options))
                asked = None if method.length == "none" else method.total(*pair)
                key = (number, budget, asked and (method.length, asked))
                cell = Cell(method, pair, 0)
                known = tasks.get(key, Task(data, (budget,), ()))
                # Splits of one sum are one row to a method with a single cap.
                if (method, cell.budget) not in [(other.method, other.budget) for other in known.cells]:
                    tasks[key] = replace(known, cells=(*known.cells, cell))
    return list(tasks.values())


def chunks_of(tasks: Sequence[Task], samples: int, rows: int) -> list[Chunk]:
    """The chunks of all tasks, of about so many rows each; a problem's samples stay together."""
    step = max(1, rows // samples)
    return [
        Chunk(task, range(first, min(first + step, len(task.data.problems))), samples)
        for task in tasks
        for first in range(0, len(task.data.problems), step)
    ]
