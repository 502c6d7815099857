"""Accuracy against tokens: one point a budget, straight lines between them.

A point is (mean tokens per answer, accuracy) under one budget, both as means over problems. Points are sorted
by tokens and taken as they are: a curve may fall, and no envelope hides that. Of budgets with equal tokens
the last in that order counts.

N problems, B budgets; K lists of how often each problem counts, [K, N]: those of resamples, or once each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from elastic.evaluate.sample import Sample
from elastic.evaluate.statistics.bootstrap import Array, bootstrap
from elastic.evaluate.statistics.intervals import Estimate
from elastic.evaluate.statistics.paired import DIFFERENCE
from elastic.evaluate.statistics.problems import (
    BudgetKey,
    Key,
    by_budget,
    by_problem,
    mean,
    one_method,
    same_problems,
    shares,
)

SHARE = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Curve:
    """A method's points, problem by problem.

    Attributes:
        tokens: [N, B] float64, mean tokens of each problem's answers under each budget.
        accuracy: [N, B] float64, share of correct answers.
    """

    tokens: Array
    accuracy: Array

    @property
    def reach(self) -> tuple[float, float]:
        """The least and the greatest mean tokens of a budget."""
        means = self.tokens.mean(axis=0)
        return float(means.min()), float(means.max())

    def points(self) -> list[tuple[float, float]]:
        """(mean tokens, accuracy), ascending in tokens."""
        x, y = self._lines(np.ones((1, len(self.tokens))))
        return list(zip(x[0].tolist(), y[0].tolist(), strict=True))

    def at(self, counts: Array, tokens: float) -> Array:
        """[K], accuracy at so many tokens; beyond a resample's ends its end point's."""
        return np.array([np.interp(tokens, x, y) for x, y in zip(*self._lines(counts), strict=True)])

    def area(self, counts: Array, low: float, high: float) -> Array:
        """[K], mean accuracy over [low, high]: the exact area under the lines, divided by the range."""
        x, y = self._lines(counts)
        first, last = np.full((len(x), 1), low), np.full((len(x), 1), high)
        # The corners in between; those outside fall onto the ends and add nothing.
        corners = np.hstack([first, np.clip(x, low, high), last])
        heights = np.array([np.interp(*row) for row in zip(corners, x, y, strict=True)])
        slices = np.diff(corners) * (heights[:, 1:] + heights[:, :-1]) / 2
        return np.asarray(slices.sum(axis=1) / (high - low))

    def _lines(self, counts: Array) -> tuple[Array, Array]:
        """Both coordinates of the points, [K, B] each, sorted by tokens."""
        x, y = (counts @ values / len(values) for values in (self.tokens, self.accuracy))
        order = np.argsort(x, axis=1, kind="stable")
        return np.take_along_axis(x, order, axis=1), np.take_along_axis(y, order, axis=1)


@dataclass(frozen=True, eq=False)
class CurvePair:
    """Two methods' curves over the same problems in one order, so that these are resampled jointly.

    Attributes:
        a: the method in question.
        b: the other.
    """

    a: Curve
    b: Curve

    @property
    def reach(self) -> tuple[float, float] | None:
        """The range of mean tokens that both curves cover; None where there is none."""
        (a_low, a_high), (b_low, b_high) = self.a.reach, self.b.reach
        low, high = max(a_low, b_low), min(a_high, b_high)
        return (low, high) if low < high else None

    def difference_at(self, tokens: float) -> Estimate | None:
        """Accuracy of `a` less that of `b` at so many tokens; None where one does not reach them."""
        if not all(curve.reach[0] <= tokens <= curve.reach[1] for curve in (self.a, self.b)):
            return None
        return self._difference(lambda curve, counts: curve.at(counts, tokens))

    def area_difference(self) -> Estimate | None:
        """Mean accuracy of `a` less that of `b` over `reach`; None where there is none."""
        if (reach := self.reach) is None:
            return None
        return self._difference(lambda curve, counts: curve.area(counts, *reach))

    def _difference(self, value: Callable[[Curve, Array], Array]) -> Estimate:
        return bootstrap(
            lambda counts: value(self.a, counts) - value(self.b, counts), len(self.a.tokens), DIFFERENCE
        )


def accuracy_curve(samples: Sequence[Sample]) -> Curve:
    """The curve of one method.

    Args:
        samples: its answers under all budgets, to the same problems under each.

    Raises:
        ValueError: no samples, several methods, a problem without answers under one budget (named), or no
            problem with a graded answer under every budget.
    """
    return _curves(samples)[0]


def curve_pair(a: Sequence[Sample], b: Sequence[Sample]) -> CurvePair:
    """The curves of two methods.

    Args:
        a: the answers of one method under all its budgets.
        b: those of the other, to the same problems.

    Raises:
        ValueError: as `accuracy_curve`, or the methods' problems differ.
    """
    return CurvePair(*_curves(a, b))


def difference_at_equal_tokens(a: Sequence[Sample], b: Sequence[Sample], tokens: float) -> Estimate | None:
    """Accuracy of ``a`` less that of ``b`` where both take so many tokens a mean answer.

    Args:
        a: the answers of one method under all its budgets.
        b: those of the other, to the same problems.
        tokens: mean tokens per answer.

    Returns:
        The difference, with an interval from resampling the problems of both jointly; None where one of the
        curves does not reach `tokens`.

    Raises:
        ValueError: as `curve_pair`.
    """
    return curve_pair(a, b).difference_at(tokens)


def area_under_curve(samples: Sequence[Sample], low: float, high: float) -> Estimate:
    """Mean accuracy of a method over a range of tokens: the area under its curve, divided by the range.

    Args:
        samples: as in `accuracy_curve`.
        low: where the range begins, in mean tokens per answer.
        high: where it ends.

    Raises:
        ValueError: as `accuracy_curve`, ``low`` not below ``high``, or the curve does not reach both.
    """
    curve = accuracy_curve(samples)
    least, most = curve.reach
    if not least <= low < high <= most:
        raise ValueError(
            f"area_under_curve: low < high must lie in the curve's [{least:.1f}, {most:.1f}] tokens, "
            f"got {low} and {high}"
        )
    return bootstrap(lambda counts: curve.area(counts, low, high), len(curve.tokens), SHARE)


def _curves(*methods: Sequence[Sample]) -> list[Curve]:
    """Curves over the problems that have a graded answer under every budget of every method, in one order."""
    names = ("a", "b") if len(methods) > 1 else ("samples",)
    budgets = []
    for name, samples in zip(names, methods, strict=True):
        one_method("accuracy curve", samples, name)
        budgets.append(by_budget(samples))
    expected = by_problem(methods[0])
    for name, found in zip(names, budgets, strict=True):
        for budget, samples in found.items():
            same_problems("accuracy curve", expected, by_problem(samples), (names[0], f"{name} at {budget}"))
    graded = [[shares(samples) for samples in found.values()] for found in budgets]
    kept = [key for key in expected if all(key in column for columns in graded for column in columns)]
    if not kept:
        raise ValueError("accuracy curve: no problem has a graded answer under every budget")
    return [_curve(found, columns, kept) for found, columns in zip(budgets, graded, strict=True)]


def _curve(
    budgets: dict[BudgetKey, list[Sample]], graded: Sequence[dict[Key, float]], kept: Sequence[Key]
) -> Curve:
    answers = [by_problem(samples) for samples in budgets.values()]
    tokens = [[mean([sample.tokens for sample in found[key]]) for found in answers] for key in kept]
    return Curve(np.array(tokens), np.array([[column[key] for column in graded] for key in kept]))
