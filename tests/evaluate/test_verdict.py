"""The demo's claims, from rows made up by hand."""

import json

import pytest

from elastic.evaluate import Row, verdict


def row(
    method: str, thinking: int | None, accuracy: float, *, width: float = 0.02, tokens: float = 10.0
) -> Row:
    solution = None if thinking is None else 16
    return Row(
        method=method,
        thinking=thinking,
        solution=solution,
        total=None,
        problems=100,
        accuracy=accuracy,
        low=accuracy - width,
        high=accuracy + width,
        tokens=tokens + 5,
        thinking_tokens=tokens,
        solution_tokens=4.0,
        cut=0.0,
    )


ROWS = [
    row("vanilla", None, 0.1),
    row("separate", 19, 0.10),
    row("separate", 20, 0.20),
    row("separate", 40, 0.50, width=0.2),
    row("separate", 60, 0.0),
    row("separate", 61, 0.70),
    row("separate", None, 0.90, tokens=80.0),
    row("e1", 19, 0.30),
    row("e1", 20, 0.60),
    row("e1", 40, 0.75, width=0.06),
    row("e1", 60, 0.90),
    row("e1", 61, 0.90),
    row("e1", None, 0.885, tokens=30.0),
]


def test_gains_cover_half_to_one_and_a_half_of_the_trained_budget_ends_included() -> None:
    assert [gain.thinking for gain in verdict(ROWS, 40).gains] == [20, 40, 60]


def test_a_gain_is_the_ratio_of_two_accuracies_at_the_same_budget() -> None:
    first, second, _ = verdict(ROWS, 40).gains
    assert (first.before, first.after) == (0.20, 0.60)
    assert first.ratio == pytest.approx(3.0)
    assert second.ratio == pytest.approx(1.5)


def test_intervals_are_apart_only_when_they_share_no_point() -> None:
    # 0.20 +- 0.02 and 0.60 +- 0.02; 0.50 +- 0.20 and 0.75 +- 0.06
    assert [gain.intervals_apart for gain in verdict(ROWS, 40).gains] == [True, False, True]


def test_a_gain_from_nothing_has_no_ratio_and_stays_valid_json() -> None:
    result = verdict(ROWS, 40)
    assert result.gains[2].ratio is None
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["gains"][2]["ratio"] is None


def test_changes_without_budgets_are_in_points_and_percent() -> None:
    result = verdict(ROWS, 40)
    assert result.unlimited_accuracy_points == pytest.approx(-1.5)
    assert result.unlimited_thinking_percent == pytest.approx(-62.5)


def test_methods_at_different_budgets_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different budgets"):
        verdict(ROWS[:-2], 40)


def test_a_verdict_needs_rows_without_limits() -> None:
    limited = [item for item in ROWS if item.thinking is not None]
    with pytest.raises(ValueError, match="no row of separate without limits"):
        verdict(limited, 40)
