"""The claims a demo makes, computed from its rows."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from elastic.evaluate.row import Row


@dataclass(frozen=True)
class Gain:
    """Accuracy of the trained model over the untrained one, both under the same two budgets.

    Attributes:
        thinking: the thinking budget, in tokens.
        before: accuracy of the untrained model.
        after: accuracy of the trained one.
        ratio: `after / before`; None where `before` is 0 (JSON has no infinity).
        intervals_apart: whether the two 95 % intervals have no point in common.
    """

    thinking: int
    before: float
    after: float
    ratio: float | None
    intervals_apart: bool


@dataclass(frozen=True)
class Verdict:
    """What training under one pair of budgets bought, and what it cost without any.

    Attributes:
        trained_thinking: t*, the thinking budget of the rollouts.
        gains: one an evaluated budget from half to one and a half t*, ascending.
        unlimited_accuracy_points: change of accuracy without budgets, in percentage points.
        unlimited_thinking_percent: change of the mean thinking tokens without budgets, in percent.
            None where the untrained model did not think.
    """

    trained_thinking: int
    gains: tuple[Gain, ...]
    unlimited_accuracy_points: float
    unlimited_thinking_percent: float | None

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON writes it."""
        return asdict(self)


def verdict(
    rows: Sequence[Row], trained_thinking: int, before: str = "separate", after: str = "e1"
) -> Verdict:
    """Compares two methods at equal budgets.

    Args:
        rows: of both methods, at the same budgets; one of each without limits.
        trained_thinking: t*.
        before: method of the untrained model.
        after: method of the trained model.

    Raises:
        ValueError: a row of either method has no partner, or the rows without limits are missing.
    """
    base, trained = _by_budget(rows, before), _by_budget(rows, after)
    if base.keys() != trained.keys():
        raise ValueError(f"verdict: {before} and {after} were evaluated at different budgets")
    if (None, None) not in base:
        raise ValueError(f"verdict: no row of {before} without limits")
    gains = [
        _gain(base[key], trained[key])
        for key in base
        if key[0] is not None and trained_thinking <= 2 * key[0] <= 3 * trained_thinking
    ]
    free_before, free_after = base[None, None], trained[None, None]
    change = _ratio(free_after.thinking_tokens, free_before.thinking_tokens)
    return Verdict(
        trained_thinking=trained_thinking,
        gains=tuple(sorted(gains, key=lambda gain: gain.thinking)),
        unlimited_accuracy_points=100 * (free_after.accuracy - free_before.accuracy),
        unlimited_thinking_percent=None if change is None else 100 * (change - 1),
    )


def _by_budget(rows: Iterable[Row], method: str) -> dict[tuple[int | None, int | None], Row]:
    return {(row.thinking, row.solution): row for row in rows if row.method == method}


def _gain(before: Row, after: Row) -> Gain:
    assert before.thinking is not None
    return Gain(
        thinking=before.thinking,
        before=before.accuracy,
        after=after.accuracy,
        ratio=_ratio(after.accuracy, before.accuracy),
        intervals_apart=not before.interval.overlaps(after.interval),
    )


def _ratio(after: float, before: float) -> float | None:
    return after / before if before > 0 else None
