"""Where an answer stands beside those of other methods: its budget, or in a training."""

from collections.abc import Iterable
from typing import NamedTuple

from elastic.evaluate.report.payload.run import Answer
from elastic.evaluate.report.table import limits_label
from elastic.evaluate.statistics.problems import BudgetKey


class Place(NamedTuple):
    """A budget, or a training or step of one.

    Attributes:
        kind: `budget` or `training`.
        order: what places of a kind are sorted by: tokens allowed in total, or the step.
        label: what a reader sees; equal places have equal labels.
    """

    kind: str
    order: float
    label: str


class Places:
    """The places of a report.

    One cap of c tokens stands with the first pair of budgets that adds up to c, so that a method with one cap
    is seen beside the others.

    Args:
        budgets: (thinking, solution, total) of all answers.
    """

    def __init__(self, budgets: Iterable[BudgetKey]) -> None:
        known = list(dict.fromkeys(budgets))
        pairs = {allowance(budget): budget for budget in reversed(known) if budget[2] is None}
        self._places = {
            budget: _place(budget if budget[2] is None else pairs.get(budget[2], budget)) for budget in known
        }

    def of(self, answer: Answer) -> Place:
        """The place of one of the answers; rollouts of all steps share one, as their problems differ."""
        if answer.step is not None:
            return Place("training", 0, "in training")
        return self._places[answer.sample.budget]

    def of_step(self, answer: Answer) -> Place:
        """The same, with steps apart."""
        return (
            self.of(answer) if answer.step is None else Place("training", answer.step, f"step {answer.step}")
        )


def allowance(budget: BudgetKey) -> float:
    """Most tokens both phases may take together; infinite without a limit."""
    thinking, solution, total = budget
    if total is not None:
        return total
    return float("inf") if thinking is None or solution is None else thinking + solution


def _place(budget: BudgetKey) -> Place:
    return Place("budget", allowance(budget), limits_label(*budget))
