"""The demo's claims, from rows made up by hand."""

import json

import pytest

from elastic.commands.demo.verdict import verdict
from elastic.evaluate import Row
from tests.evaluate.rows import made_row


def row(
    method: str, thinking: int | None, accuracy: float, *, width: float = 0.02, tokens: float = 10.0
) -> Row:
    solution = None if thinking is None else 16
    limits = {"thinking": thinking, "solution": solution}
    return made_row(method, accuracy, width=width, thinking_tokens=tokens, **limits)


ROWS = [
    row("vanilla", None, 0.1),
    row("separate", 20, 0.20),
    row("separate", 0, 0.16, tokens=0.0),
    row("separate", 40, 0.50, width=0.2),
    row("separate", None, 0.90, tokens=80.0),
    row("capped", 0, 0.10, tokens=0.0),
    row("capped", 20, 0.58),
    row("capped", 40, 0.75),
    row("capped", None, 0.97, tokens=40.0),
    row("e1", 0, 0.08, tokens=0.0),
    row("e1", 20, 0.60),
    row("e1", 40, 0.81),
    row("e1", None, 0.885, tokens=30.0),
]


def test_no_budget_is_left_out_and_they_ascend() -> None:
    result = verdict(ROWS)
    for other in ("separate", "capped"):
        assert [item.thinking for item in result.against(other)] == [0, 20, 40, None]
    assert len(result.comparisons) == 8


def test_better_and_worse_need_intervals_without_a_common_point() -> None:
    result = verdict(ROWS)
    # 0.16 and 0.08; 0.20 and 0.60; 0.50 +- 0.20 and 0.81 +- 0.02; 0.90 and 0.885; all others +- 0.02
    assert [item.outcome for item in result.against("separate")] == ["worse", "better", "better", "open"]
    assert [item.outcome for item in result.against("capped")] == ["open", "open", "better", "worse"]


def test_a_comparison_has_both_accuracies_and_their_difference_in_points() -> None:
    item = verdict(ROWS).against("capped")[-1]
    assert (item.before, item.after) == (0.97, 0.885)
    assert item.points == pytest.approx(-8.5)
    assert item.thinking_percent == pytest.approx(-25.0)


def test_thinking_that_was_none_has_no_change_and_stays_valid_json() -> None:
    result = json.loads(json.dumps(verdict(ROWS).to_dict(), allow_nan=False))
    assert result["method"] == "e1"
    assert result["comparisons"][0]["thinking_percent"] is None


def test_methods_at_different_budgets_are_not_compared() -> None:
    with pytest.raises(ValueError, match="separate and e1 were evaluated at different budgets"):
        verdict(ROWS[:-1])


def test_a_verdict_needs_rows() -> None:
    with pytest.raises(ValueError, match="no row of e1"):
        verdict([])
