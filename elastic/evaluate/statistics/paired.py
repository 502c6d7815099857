"""Two methods on the same problems."""

from collections.abc import Sequence
from typing import NamedTuple

from elastic.evaluate.sample import Sample
from elastic.evaluate.statistics.bootstrap import bootstrap_mean
from elastic.evaluate.statistics.intervals import Estimate
from elastic.evaluate.statistics.problems import by_problem, one_method, same_problems, shares

DIFFERENCE = (-1.0, 1.0)  # of two shares


def paired_difference(a: Sequence[Sample], b: Sequence[Sample]) -> Estimate:
    """Accuracy of ``a`` less that of ``b``, problem by problem, as a share.

    Both methods find the same problems hard, so the difference of each problem varies less than two
    accuracies do, and its interval is narrower than the gap between theirs suggests. Problems without a
    graded answer on either side are left out.

    Args:
        a: the answers of one method under one budget.
        b: those of the other, to the same problems.

    Raises:
        ValueError: a list is empty or mixes methods or budgets, a problem is missing on one side (named), or
            no problem has a graded answer on both.
    """
    for samples, name in ((a, "a"), (b, "b")):
        one_method("paired_difference", samples, name, one_budget=True)
    same_problems("paired_difference", by_problem(a), by_problem(b), ("a", "b"))
    left, right = shares(a), shares(b)
    differences = [value - right[key] for key, value in left.items() if key in right]
    if not differences:
        raise ValueError("paired_difference: no problem has a graded answer on both sides")
    return bootstrap_mean(differences, DIFFERENCE)


class SeedDifferences(NamedTuple):
    """Paired differences of several trainings.

    Attributes:
        seeds: of each training alone.
        pooled: over all problems of all of them. Its interval is about problems; how much trainings differ is
            for the reader of `seeds`.
    """

    seeds: tuple[Estimate, ...]
    pooled: Estimate


def paired_per_seed(pairs: Sequence[tuple[Sequence[Sample], Sequence[Sample]]]) -> SeedDifferences:
    """`paired_difference` of each training seed and of all together.

    Args:
        pairs: the answers of both methods, one pair a seed. Problem ids differ between seeds.

    Raises:
        ValueError: no pair, a problem that two seeds share, or as `paired_difference`.
    """
    if not pairs:
        raise ValueError("paired_per_seed: pairs must not be empty")
    seen = [key for a, _ in pairs for key in by_problem(a)]
    if len(seen) > len(set(seen)):
        twice = next(key for key in seen if seen.count(key) > 1)
        raise ValueError(f"paired_per_seed: two seeds have a problem {'/'.join(twice)}")
    a, b = ([sample for pair in pairs for sample in pair[side]] for side in (0, 1))
    return SeedDifferences(tuple(paired_difference(*pair) for pair in pairs), paired_difference(a, b))
