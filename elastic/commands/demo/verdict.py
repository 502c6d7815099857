"""The claims a demo makes, computed from its rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from elastic.evaluate.row import Row

Outcome = Literal["better", "worse", "open"]
_OUTCOMES = {"better": "better", "worse": "worse", "open": "open, the intervals overlap"}


@dataclass(frozen=True)
class Comparison:
    """Two methods under the same two budgets, or both without any.

    Attributes:
        against: the other method.
        thinking: the thinking budget, in tokens; None without budgets.
        before: accuracy of the other method.
        after: accuracy of the method in question.
        points: ``after - before`` in percentage points.
        outcome: ``better`` or ``worse`` where the two 95 % intervals have no point in common, else ``open``.
        thinking_percent: change of the mean thinking tokens, in percent; None where the other method did
            not think.
    """

    against: str
    thinking: int | None
    before: float
    after: float
    points: float
    outcome: Outcome
    thinking_percent: float | None


@dataclass(frozen=True)
class Verdict:
    """Where a method is better than others, where worse, and where the data do not tell.

    Attributes:
        method: the one in question.
        comparisons: with every other method at every budget, ascending, the one without budgets last.
    """

    method: str
    comparisons: tuple[Comparison, ...]

    def against(self, method: str) -> list[Comparison]:
        """The comparisons with one other method."""
        return [item for item in self.comparisons if item.against == method]

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON writes it."""
        return asdict(self)


def verdict(
    rows: Sequence[Row], method: str = "e1", against: Sequence[str] = ("separate", "capped")
) -> Verdict:
    """Compares a method with others at every budget.

    Args:
        rows: of all these methods, at the same budgets.
        method: the one in question.
        against: the others.

    Raises:
        ValueError: a row of one method has no partner in another, or a method has no row.
    """
    after = _by_budget(rows, method)
    comparisons: list[Comparison] = []
    for other in against:
        before = _by_budget(rows, other)
        if before.keys() != after.keys():
            raise ValueError(f"verdict: {other} and {method} were evaluated at different budgets")
        if not after:
            raise ValueError(f"verdict: no row of {method}")
        comparisons += [_comparison(other, before[key], after[key]) for key in sorted(after, key=_ascending)]
    return Verdict(method, tuple(comparisons))


def _by_budget(rows: Iterable[Row], method: str) -> dict[tuple[int | None, int | None], Row]:
    return {(row.thinking, row.solution): row for row in rows if row.method == method}


def _ascending(key: tuple[int | None, int | None]) -> tuple[float, float]:
    thinking, solution = (float("inf") if tokens is None else tokens for tokens in key)
    return thinking, solution


def _comparison(against: str, before: Row, after: Row) -> Comparison:
    outcome: Outcome = "open"
    if not before.interval.overlaps(after.interval):
        outcome = "better" if after.accuracy > before.accuracy else "worse"
    change = None
    if before.thinking_tokens > 0:
        change = 100 * (after.thinking_tokens / before.thinking_tokens - 1)
    return Comparison(
        against=against,
        thinking=before.thinking,
        before=before.accuracy,
        after=after.accuracy,
        points=100 * (after.accuracy - before.accuracy),
        outcome=outcome,
        thinking_percent=change,
    )


def verdict_text(result: Verdict, labels: Mapping[str, str]) -> str:
    """The verdict in sentences: for each other method a summary, then one line per budget.

    Args:
        result: the comparisons.
        labels: the text that stands for each method, by its name.
    """
    lines: list[str] = []
    for other in dict.fromkeys(item.against for item in result.comparisons):
        items = result.against(other)
        lines.append(f"{result.method} against {other} ({labels[other]}), 95 % intervals:")
        for outcome, words in _OUTCOMES.items():
            budgets = [_at(item.thinking) for item in items if item.outcome == outcome]
            lines.append(f"  {words}: {', '.join(budgets) or 'nowhere'}")
        for item in items:
            change = (
                "" if item.thinking_percent is None else f", thinking tokens {item.thinking_percent:+.0f} %"
            )
            accuracies = f"{item.before:.1%} -> {item.after:.1%}, {item.points:+.1f} points"
            lines.append(f"    {_at(item.thinking)}: {accuracies}{change}, {item.outcome}")
    return "\n".join(lines)


def _at(thinking: int | None) -> str:
    return "no budget" if thinking is None else f"t = {thinking}"
