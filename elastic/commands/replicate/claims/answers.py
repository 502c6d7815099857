"""The graded answers of a replication, and differences between its arms."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from elastic.commands.replicate.claims.rule import Difference
from elastic.commands.replicate.config import BudgetPair
from elastic.evaluate.sample import Sample
from elastic.evaluate.statistics import (
    Estimate,
    accuracy_curve,
    bootstrap_mean,
    difference_at_equal_tokens,
    paired_per_seed,
)
from elastic.evaluate.statistics.problems import grades

Value = Callable[[Sample], float]


class Answers:
    """Samples by arm and seed.

    Args:
        samples: (arm, seed) to samples; problems' ids differ between seeds.
        curve: the (t, s) that make an arm's curve of accuracy against tokens; others are controls.
    """

    def __init__(
        self, samples: Mapping[tuple[str, int], Sequence[Sample]], curve: Sequence[BudgetPair]
    ) -> None:
        self._samples = dict(samples)
        self._curve = {budget for pair in curve for budget in _budgets(pair)}

    def seeds(self, *arms: str) -> list[int]:
        """The seeds that all of these arms have.

        Raises:
            ValueError: there is none.
        """
        found = [{seed for name, seed in self._samples if name == arm} for arm in arms]
        common = sorted(set.intersection(*found))
        if not common:
            raise ValueError(f"no seed has answers of {' and '.join(arms)}")
        return common

    def of(self, arm: str, seed: int) -> list[Sample]:
        """An arm's samples with one seed, under all budgets of its curve."""
        return [sample for sample in self._samples[arm, seed] if sample.budget in self._curve]

    def at(self, arm: str, seed: int, pair: BudgetPair) -> list[Sample]:
        """Those under one (t, s); of an arm with one cap, under t + s.

        Raises:
            ValueError: the arm did not answer under it.
        """
        budgets = _budgets(pair)
        found = [sample for sample in self._samples[arm, seed] if sample.budget in budgets]
        if not found:
            raise ValueError(f"{arm} has no answers under {pair}")
        return found

    def all(self) -> Iterable[Sample]:
        """Every sample, arm by arm."""
        for samples in self._samples.values():
            yield from samples

    def accuracy(
        self,
        a: str,
        b: str,
        pair: BudgetPair,
        *,
        margin: float = 0.0,
    ) -> Difference:
        """Accuracy of an arm less that of another.

        Args:
            a: the arm in question.
            b: the other.
            pair: (t, s) of both.
            margin: as in `Difference`.
        """
        pairs = [(self.at(a, seed, pair), self.at(b, seed, pair)) for seed in self.seeds(a, b)]
        found = paired_per_seed(pairs)
        seeds = tuple(estimate.value for estimate in found.seeds)
        levels = tuple(_accuracy([s for pair in pairs for s in pair[arm]]) for arm in (0, 1))
        return Difference(budget_text(pair), found.pooled, seeds, margin, levels=(levels[0], levels[1]))

    def tokens(self, a: str, b: str, pair: BudgetPair, value: Value, at: str) -> Difference:
        """A number of tokens of arm `b` less that of `a`: positive where `a` takes fewer."""
        by_seed = [
            paired_values(self.at(b, seed, pair), self.at(a, seed, pair), value) for seed in self.seeds(a, b)
        ]
        return mean_difference(at, by_seed, "tokens")

    def growth(self, arm: str, tight: BudgetPair, loose: BudgetPair, value: Value, at: str) -> Difference:
        """A number of tokens of one arm under a tight budget less that under a loose one."""
        by_seed = [
            paired_values(self.at(arm, seed, tight), self.at(arm, seed, loose), value)
            for seed in self.seeds(arm)
        ]
        return mean_difference(at, by_seed, "tokens")

    def cut_in_both(self, a: str, b: str, pair: BudgetPair) -> Difference | None:
        """Accuracy of `a` less that of `b` where both had their thought cut; None without such problems."""
        by_seed = []
        for seed in self.seeds(a, b):
            first, second = ([s for s in self.at(arm, seed, pair) if s.cut] for arm in (a, b))
            common = {sample.problem for sample in first} & {sample.problem for sample in second}
            a_kept, b_kept = ([s for s in samples if s.problem in common] for samples in (first, second))
            by_seed.append(paired_values(a_kept, b_kept, lambda sample: sample.correct or 0.0))
        if not all(by_seed):
            return None
        count = sum(map(len, by_seed))
        return mean_difference(f"{budget_text(pair)}, {count} problems", by_seed)

    def reach(self, arm: str, seed: int) -> tuple[float, float]:
        """The fewest and the most mean tokens that an arm takes under any budget."""
        return accuracy_curve(self.of(arm, seed)).reach

    def at_equal_tokens(self, a: str, b: str, tokens: float, margin: float) -> Difference:
        """Accuracy of `a` less that of `b` where both take so many tokens a mean answer.

        Raises:
            ValueError: one of them never does, in one of the seeds.
        """
        seeds = self.seeds(a, b)
        alone = [_equal(self.of(a, seed), self.of(b, seed), tokens) for seed in seeds]
        all_a, all_b = ([sample for seed in seeds for sample in self.of(arm, seed)] for arm in (a, b))
        values = tuple(estimate.value for estimate in alone)
        pooled = _equal(all_a, all_b, tokens)
        x, y = np.array(accuracy_curve(all_b).points()).T
        level = float(np.interp(tokens, x, y))
        return Difference(
            f"{tokens:.0f} tokens", pooled, values, margin, levels=(level + pooled.value, level)
        )


def _equal(a: Sequence[Sample], b: Sequence[Sample], tokens: float) -> Estimate:
    found = difference_at_equal_tokens(a, b, tokens)
    if found is None:
        raise ValueError(f"{a[0].method} and {b[0].method} do not both take {tokens:g} tokens")
    return found


def _accuracy(samples: Sequence[Sample]) -> float:
    found = grades(samples)
    return sum(found) / len(found)


def paired_values(a: Sequence[Sample], b: Sequence[Sample], value: Value) -> list[float]:
    """The value of each problem's answer in `a` less that in `b`.

    Raises:
        ValueError: the two do not answer the same problems, once each.
    """
    first, second = ({sample.problem: value(sample) for sample in samples} for samples in (a, b))
    if first.keys() != second.keys() or len(first) != len(a) or len(second) != len(b):
        raise ValueError("the two lists must hold one answer to each of the same problems")
    return [first[problem] - second[problem] for problem in first]


def mean_difference(at: str, by_seed: Sequence[Sequence[float]], unit: str = "share") -> Difference:
    """The mean of each problem's difference, over all seeds and of each alone."""
    together = [value for values in by_seed for value in values]
    limit = max(1.0, *(abs(value) for value in together))
    pooled: Estimate = bootstrap_mean(together, (-limit, limit))
    seeds = tuple(sum(values) / len(values) for values in by_seed)
    return Difference(at, pooled, seeds, unit=unit)


def _budgets(pair: BudgetPair) -> set[tuple[int | None, int | None, int | None]]:
    """A pair as samples hold it: as it is, or as one cap."""
    thinking, solution = pair
    one_cap = None if thinking is None or solution is None else (None, None, thinking + solution)
    return {(thinking, solution, None)} | ({one_cap} if one_cap else set())


def budget_text(pair: BudgetPair) -> str:
    """A budget in a table of comparisons."""
    thinking, solution = pair
    return "no budget" if thinking is None else f"({thinking}, {solution})"
