"""Methods against each other, on the problems that both answered."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from elastic.evaluate.sample import Sample
from elastic.evaluate.statistics import Estimate, curve_pair, paired_difference
from elastic.evaluate.statistics.curves import CurvePair
from elastic.evaluate.statistics.intervals import plain_fields
from elastic.evaluate.statistics.problems import BudgetKey, by_budget, mean_over_problems


@dataclass(frozen=True)
class BudgetComparison:
    """Two methods under one budget.

    Attributes:
        thinking: thinking budget of the method in question, in tokens; None as in `Row`.
        solution: its solution budget.
        total: its one cap.
        tokens: its mean tokens per answer.
        tokens_against: those of the other method.
        difference: its accuracy less the other's, paired by problem.
        at_equal_tokens: the same where the other's curve takes `tokens` too; None where it does not reach
            them.
    """

    thinking: int | None
    solution: int | None
    total: int | None
    tokens: float
    tokens_against: float
    difference: Estimate
    at_equal_tokens: Estimate | None


@dataclass(frozen=True)
class MethodComparison:
    """Two methods on one set.

    Attributes:
        data: the set.
        of: the method in question.
        against: the other.
        budgets: one by one, those that both were evaluated under.
        reach: mean tokens per answer that both curves cover, from and to; None where there are none.
        area: accuracy less the other's, mean over `reach`; None likewise.
    """

    data: str
    of: str
    against: str
    budgets: tuple[BudgetComparison, ...]
    reach: tuple[float, float] | None
    area: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON writes it; an estimate is a dict of its value, low and high."""
        return plain_fields(self) | {"budgets": [plain_fields(item) for item in self.budgets]}


def comparisons(samples: Iterable[Sample], of: str, against: Sequence[str]) -> list[MethodComparison]:
    """A method against others: at every common budget, at equal tokens and over all tokens.

    Two budgets are common where they are equal, or where one is the cap that the other's phases add up to.

    Args:
        samples: of all these methods, to the same problems.
        of: the method in question.
        against: the others.

    Returns:
        One record per set and other method, sets in order of first appearance.

    Raises:
        ValueError: no samples of a method on a set, or methods with other problems.
    """
    by_method: dict[str, dict[str, list[Sample]]] = {}
    for sample in samples:
        by_method.setdefault(sample.data, {}).setdefault(sample.method, []).append(sample)
    if not by_method:
        raise ValueError("comparisons: samples must not be empty")
    for data, found in by_method.items():
        if missing := [name for name in (of, *against) if name not in found]:
            raise ValueError(
                f"comparisons: '{data}' has no samples of {', '.join(missing)}, only of {', '.join(found)}"
            )
    return [_comparison(found[of], found[other]) for found in by_method.values() for other in against]


def _comparison(of: Sequence[Sample], against: Sequence[Sample]) -> MethodComparison:
    mine, others = by_budget(of), by_budget(against)
    curves = curve_pair(of, against)
    items = [
        _at_budget(mine[budget], others[other], curves)
        for budget in mine
        for other in others
        if _is_common(budget, other)
    ]
    return MethodComparison(
        data=of[0].data,
        of=of[0].method,
        against=against[0].method,
        budgets=tuple(items),
        reach=curves.reach,
        area=curves.area_difference(),
    )


def _at_budget(of: Sequence[Sample], against: Sequence[Sample], curves: CurvePair) -> BudgetComparison:
    tokens, theirs = (mean_over_problems(found, lambda sample: sample.tokens) for found in (of, against))
    return BudgetComparison(
        *of[0].budget,
        tokens=tokens,
        tokens_against=theirs,
        difference=paired_difference(of, against),
        at_equal_tokens=curves.difference_at(tokens),
    )


def _is_common(a: BudgetKey, b: BudgetKey) -> bool:
    return a == b or _one_cap(a) == b or a == _one_cap(b)


def _one_cap(budget: BudgetKey) -> BudgetKey:
    """The cap that two phases add up to; two splits of one sum stay two budgets."""
    thinking, solution, _ = budget
    return budget if thinking is None or solution is None else (None, None, thinking + solution)
