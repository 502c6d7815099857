"""Comparisons and leakage as plain text."""

from collections.abc import Sequence

from elastic.evaluate.comparisons import MethodComparison
from elastic.evaluate.report.table import aligned, budget_label
from elastic.evaluate.statistics import Estimate
from elastic.evaluate.summary import MethodLeakage

_COMPARISON = ("data", "method", "against", "budget t + s", "tokens", "theirs", "points", "at equal tokens")
_LEAKAGE = ("data", "method", "times longer if cut", "tokens per whole thought")


def comparison_table(comparisons: Sequence[MethodComparison]) -> str:
    """One line per budget and one for all tokens, grouped by set and methods.

    `points` is the difference in accuracy in percentage points with its 95 % interval, paired by problem;
    `at equal tokens` reads the other method where it takes as many tokens as this one. The last line of a
    group is the mean difference over the tokens that both methods reach.
    """
    return aligned(_COMPARISON, [_comparison_lines(item) for item in comparisons], texts=4)


def leakage_table(leakages: Sequence[MethodLeakage]) -> str:
    """One line per set and method: `ratio` and `slope` of `MethodLeakage` with their 95 % intervals."""
    lines = [
        (item.data, item.method, _interval(item.ratio, ".2f"), _interval(item.slope, "+.1f"))
        for item in leakages
    ]
    return aligned(_LEAKAGE, [lines], texts=2)


def _comparison_lines(item: MethodComparison) -> list[tuple[str, ...]]:
    names = (item.data, item.of, item.against)
    lines: list[tuple[str, ...]] = [
        (
            *names,
            budget_label(budget),
            f"{budget.tokens:.1f}",
            f"{budget.tokens_against:.1f}",
            _points(budget.difference),
            _points(budget.at_equal_tokens),
        )
        for budget in item.budgets
    ]
    if item.reach is None:
        return lines
    reach = "{:.0f} - {:.0f} tokens".format(*item.reach)
    return [*lines, (*names, reach, "", "", "", _points(item.area))]


def _points(difference: Estimate | None) -> str:
    return _interval(None if difference is None else Estimate(*(100 * end for end in difference)), "+.1f")


def _interval(estimate: Estimate | None, form: str) -> str:
    if estimate is None:
        return "-"
    value, low, high = (format(number, form) for number in estimate)
    return f"{value} ({low} to {high})"
