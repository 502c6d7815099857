"""Text for reading."""

from elastic.evaluate import Row, verdict
from elastic.report.table import table, verdict_text


def test_rows_of_equal_totals_stand_together_with_their_methods_in_order(rows: list[Row]) -> None:
    groups = table(rows).split("---\n")[1:]
    first_columns = [[line[:13].rstrip() for line in group.splitlines() if "%" in line] for group in groups]
    assert first_columns[0] == ["c = 16", "0 + 16", "0 + 16"]
    assert first_columns[1] == ["c = 56", "40 + 16", "40 + 16"]
    assert first_columns[2] == ["none", "none", "none"]


def test_a_line_holds_accuracy_interval_tokens_and_the_share_of_cut_thoughts(rows: list[Row]) -> None:
    (line,) = [line for line in table(rows).splitlines() if line.startswith("40 + 16") and " e1 " in line]
    assert line.split() == [
        "40",
        "+",
        "16",
        "e1",
        "80.0%",
        "75.0%",
        "-",
        "85.0%",
        "38.0",
        "3.0",
        "4.0",
        "50%",
    ]


def test_lines_are_aligned(rows: list[Row]) -> None:
    assert len({len(line) for line in table(rows).splitlines()}) == 1


def test_the_verdict_names_ratio_interval_and_unlimited_change(rows: list[Row]) -> None:
    text = verdict_text(verdict(rows, 40))
    assert "t = 40: 30.0% -> 80.0%, 2.67 times, intervals apart" in text
    assert "accuracy +0.0 points, thinking tokens +0 %" in text
