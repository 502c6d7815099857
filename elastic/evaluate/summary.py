"""What graded answers say of each method: a row per budget, and what cutting thoughts does."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from elastic.evaluate.row import Row
from elastic.evaluate.sample import Sample
from elastic.evaluate.statistics import (
    Estimate,
    bootstrap_mean,
    leakage,
    leakage_slope,
    mean_pass_at_k,
)
from elastic.evaluate.statistics.intervals import plain_fields
from elastic.evaluate.statistics.leakage import solution_lengths
from elastic.evaluate.statistics.problems import (
    BudgetKey,
    by_problem,
    grades,
    mean,
    mean_over_problems,
    shares,
)


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
        return mean_over_problems(samples, value)

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
        return plain_fields(self)


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
