"""From graded answers to rows, and from rows' answers to comparisons."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from elastic.evaluate.row import Row
from elastic.evaluate.sample import Sample
from elastic.evaluate.statistics import (
    Estimate,
    bootstrap_mean,
    curve_pair,
    leakage,
    leakage_slope,
    mean_pass_at_k,
    paired_difference,
)
from elastic.evaluate.statistics.curves import CurvePair
from elastic.evaluate.statistics.leakage import solution_lengths
from elastic.evaluate.statistics.problems import BudgetKey, by_budget, by_problem, grades, mean, shares


def rows_of(samples: Iterable[Sample], ks: Sequence[int] = (1,)) -> list[Row]:
    """One row per (data, method, budget), in order of first appearance.

    Args:
        samples: graded answers, in any order.
        ks: the k of `pass_at_k`.

    Raises:
        ValueError: no samples, a row without a graded answer, or a k above its answers per problem.
    """
    groups: dict[tuple[str, str, BudgetKey], list[Sample]] = {}
    methods: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.data, sample.method, sample.budget), []).append(sample)
        methods.setdefault((sample.data, sample.method), []).append(sample)
    if not groups:
        raise ValueError("rows_of: samples must not be empty")
    return [_row(group, methods[key[:2]], ks) for key, group in groups.items()]


def _row(samples: Sequence[Sample], of_method: Sequence[Sample], ks: Sequence[int]) -> Row:
    """The row of answers under one budget; `of_method`: under all budgets."""
    first = samples[0]
    problems = by_problem(samples)
    correct = shares(samples)
    if not correct:
        raise ValueError(f"rows_of: no graded answer of {first.method} on '{first.data}' at {first.budget}")
    accuracy = bootstrap_mean(list(correct.values()))

    def over_problems(value: Callable[[Sample], float]) -> float:
        return _over_problems(samples, value)

    leaked = leakage(samples, of_method)
    return Row(
        method=first.method,
        thinking=first.thinking,
        solution=first.solution,
        total=first.total,
        problems=len(problems),
        accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        accuracy_cut=_mean_or_none(grades(sample for sample in samples if sample.cut)),
        tokens=over_problems(lambda sample: sample.tokens),
        thinking_tokens=over_problems(lambda sample: sample.thinking_tokens),
        solution_tokens=over_problems(lambda sample: sample.solution_tokens),
        cut=over_problems(lambda sample: sample.cut),
        data=first.data,
        samples=max(map(len, problems.values())),
        ungraded=sum(sample.correct is None for sample in samples),
        answered=over_problems(lambda sample: sample.answered),
        pass_at_k={str(k): mean_pass_at_k(samples, k).value for k in ks},
        solution_tokens_cut=_mean_or_none(solution_lengths(samples, cut=True)),
        solution_tokens_whole=_mean_or_none(solution_lengths(samples, cut=False)),
        leakage=None if leaked is None else leaked.value,
    )


@dataclass(frozen=True)
class MethodLeakage:
    """What cutting thoughts does to the solutions of a method on one set, over all its budgets.

    Attributes:
        data: the set.
        method: the method.
        ratio: solution tokens behind cut thoughts over those behind whole ones of the same problems.
        slope: change of the solution's tokens as the share of the thought that was seen goes from 0 to 1.
            Both are defined in `elastic.evaluate.statistics.leakage`, and None where undefined.
    """

    data: str
    method: str
    ratio: Estimate | None
    slope: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON writes it."""
        return _plain_fields(self)


def leakages(samples: Iterable[Sample]) -> list[MethodLeakage]:
    """One record per (data, method), in order of first appearance.

    Raises:
        ValueError: no samples.
    """
    methods: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        methods.setdefault((sample.data, sample.method), []).append(sample)
    if not methods:
        raise ValueError("leakages: samples must not be empty")
    return [
        MethodLeakage(*key, ratio=leakage(found, found), slope=leakage_slope(found))
        for key, found in methods.items()
    ]


def _mean_or_none(values: Sequence[float]) -> float | None:
    return mean(values) if values else None


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
        return _plain_fields(self) | {"budgets": [_plain_fields(item) for item in self.budgets]}


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
    tokens, tokens_against = (_over_problems(found, lambda sample: sample.tokens) for found in (of, against))
    return BudgetComparison(
        *of[0].budget,
        tokens=tokens,
        tokens_against=tokens_against,
        difference=paired_difference(of, against),
        at_equal_tokens=curves.difference_at(tokens),
    )


def _is_common(a: BudgetKey, b: BudgetKey) -> bool:
    return a == b or _one_cap(a) == b or a == _one_cap(b)


def _one_cap(budget: BudgetKey) -> BudgetKey:
    """The cap that two phases add up to; two splits of one sum stay two budgets."""
    thinking, solution, _ = budget
    return budget if thinking is None or solution is None else (None, None, thinking + solution)


def _over_problems(samples: Iterable[Sample], value: Callable[[Sample], float]) -> float:
    """Mean over problems of the mean over each one's answers."""
    return mean([mean([value(sample) for sample in found]) for found in by_problem(samples).values()])


def _plain_fields(record: Any) -> dict[str, Any]:
    """The fields of a record for JSON, estimates as dicts."""
    return {
        key: value._asdict() if isinstance(value, Estimate) else value for key, value in vars(record).items()
    }
