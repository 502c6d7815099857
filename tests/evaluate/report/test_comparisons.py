"""Comparisons and leakage for reading."""

from elastic.evaluate.comparisons import BudgetComparison, MethodComparison
from elastic.evaluate.report.comparisons import comparison_table, leakage_table
from elastic.evaluate.statistics import Estimate
from elastic.evaluate.summary import MethodLeakage

COMPARISON = MethodComparison(
    data="set",
    of="e1",
    against="vanilla",
    budgets=(
        BudgetComparison(40, 16, None, 38.25, 50.0, Estimate(0.125, 0.05, 0.2), Estimate(0.1, -0.01, 0.2)),
        BudgetComparison(None, None, None, 60.0, 90.0, Estimate(-0.1, -0.15, -0.05), None),
    ),
    reach=(38.25, 60.0),
    area=Estimate(0.11, 0.01, 0.21),
)


def cells(text: str) -> list[list[str]]:
    return [[cell for cell in line.split("  ") if cell] for line in text.splitlines()]


def test_a_comparison_has_a_line_per_budget_and_one_for_the_tokens_that_both_reach() -> None:
    head, _, first, second, last, _ = cells(comparison_table([COMPARISON]))
    assert [cell.strip() for cell in head][-2:] == ["points", "at equal tokens"]
    assert [cell.strip() for cell in first] == [
        *("set", "e1", "vanilla", "40 + 16", "38.2", "50.0"),
        *("+12.5 (+5.0 to +20.0)", "+10.0 (-1.0 to +20.0)"),
    ]
    assert [cell.strip() for cell in second][3:] == ["none", "60.0", "90.0", "-10.0 (-15.0 to -5.0)", "-"]
    assert [cell.strip() for cell in last][3:] == ["38 - 60 tokens", "+11.0 (+1.0 to +21.0)"]


def test_without_common_tokens_there_is_no_line_for_them() -> None:
    alone = MethodComparison("set", "e1", "s1", COMPARISON.budgets[:1], None, None)
    assert len(comparison_table([alone]).splitlines()) == 4


def test_leakage_that_is_undefined_is_a_dash() -> None:
    items = [
        MethodLeakage("set", "e1", Estimate(1.5, 1.25, 2.0), Estimate(-12.0, -20.0, -4.0)),
        MethodLeakage("set", "vanilla", None, None),
    ]
    _, _, first, second, _ = cells(leakage_table(items))
    assert [cell.strip() for cell in first] == ["set", "e1", "1.50 (1.25 to 2.00)", "-12.0 (-20.0 to -4.0)"]
    assert [cell.strip() for cell in second] == ["set", "vanilla", "-", "-"]
