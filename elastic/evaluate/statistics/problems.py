"""Samples by problem: the unit that all intervals count."""

from collections.abc import Callable, Iterable, Sequence

from elastic.evaluate.sample import Sample

Key = tuple[str, str]  # (data, problem)
BudgetKey = tuple[int | None, int | None, int | None]  # (thinking, solution, total)


def by_problem(samples: Iterable[Sample]) -> dict[Key, list[Sample]]:
    """The answers to each problem, problems in the order of their first answers."""
    groups: dict[Key, list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.data, sample.problem), []).append(sample)
    return groups


def by_budget(samples: Iterable[Sample]) -> dict[BudgetKey, list[Sample]]:
    """The answers under each budget, budgets in the order of their first answers."""
    groups: dict[BudgetKey, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.budget, []).append(sample)
    return groups


def grades(samples: Iterable[Sample]) -> list[float]:
    """What could be judged, in order.

    Raises:
        ValueError: a grade other than 0 and 1, which has no share and no interval.
    """
    found = [sample.correct for sample in samples if sample.correct is not None]
    for grade in found:
        if grade not in (0, 1):
            raise ValueError(f"correct: must be 0, 1 or None, got {grade}")
    return found


def shares(samples: Iterable[Sample]) -> dict[Key, float]:
    """The share of correct answers of each problem that has a graded one.

    Answers that could not be judged (None) are left out, and so are problems without any other.
    """
    graded = {key: grades(answers) for key, answers in by_problem(samples).items()}
    return {key: mean(values) for key, values in graded.items() if values}


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    if not values:
        raise ValueError("mean: there is nothing to average")
    return sum(values) / len(values)


def mean_over_problems(samples: Iterable[Sample], value: Callable[[Sample], float]) -> float:
    """The mean over problems of the mean over each one's answers."""
    return mean([mean([value(sample) for sample in found]) for found in by_problem(samples).values()])


def same_problems(what: str, first: Iterable[Key], second: Iterable[Key], names: tuple[str, str]) -> None:
    """Refuses two sets of problems that differ.

    Raises:
        ValueError: naming some of those that one side lacks.
    """
    left, right = set(first), set(second)
    for name, missing in ((names[1], left - right), (names[0], right - left)):
        if missing:
            some = ", ".join("/".join(key) for key in sorted(missing)[:5])
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise ValueError(f"{what}: {name} has no answers to {some}{more}")


def one_method(what: str, samples: Sequence[Sample], name: str, *, one_budget: bool = False) -> None:
    """Refuses an empty list and one that mixes methods, or budgets where it must hold one.

    Raises:
        ValueError: naming what was mixed.
    """
    if not samples:
        raise ValueError(f"{what}: {name} must not be empty")
    methods = dict.fromkeys(sample.method for sample in samples)
    if len(methods) > 1:
        raise ValueError(f"{what}: {name} must hold one method, got {', '.join(methods)}")
    if one_budget and len(found := by_budget(samples)) > 1:
        raise ValueError(f"{what}: {name} must hold one budget, got {', '.join(map(str, found))}")
