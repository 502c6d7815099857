"""Text for reading."""

from elastic.commands.demo.verdict import verdict, verdict_text
from elastic.evaluate import Row
from elastic.evaluate.report.table import table


def test_rows_of_equal_totals_stand_together_with_their_methods_in_order(rows: list[Row]) -> None:
    groups = table(rows).split("---\n")[1:]
    first_columns = [[line[:13].rstrip() for line in group.splitlines() if "%" in line] for group in groups]
    assert first_columns[0] == ["c = 16", "0 + 16", "0 + 16", "0 + 16"]
    assert first_columns[1] == ["c = 56", "40 + 16", "40 + 16", "40 + 16"]
    assert first_columns[2] == ["none", "none", "none", "none"]


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
        "40.0%",
    ]


def test_without_a_cut_thought_there_is_a_dash_and_no_share(rows: list[Row]) -> None:
    (line,) = [line for line in table(rows).splitlines() if line.startswith("none") and " e1 " in line]
    assert line.split()[-1] == "-"


def test_lines_are_aligned(rows: list[Row]) -> None:
    assert len({len(line) for line in table(rows).splitlines()}) == 1


def test_the_verdict_says_of_every_budget_whether_it_is_better_worse_or_open(rows: list[Row]) -> None:
    text = verdict_text(verdict(rows), {"separate": "untrained", "capped": "one cap"}).splitlines()
    first, second = text[: len(text) // 2], text[len(text) // 2 :]
    assert first == [
        "e1 against separate (untrained), 95 % intervals:",
        "  better: t = 0, t = 40",
        "  worse: nowhere",
        "  open, the intervals overlap: no budget",
        "    t = 0: 8.0% -> 25.0%, +17.0 points, thinking tokens +0 %, better",
        "    t = 40: 30.0% -> 80.0%, +50.0 points, thinking tokens +0 %, better",
        "    no budget: 90.0% -> 80.0%, -10.0 points, thinking tokens +0 %, open",
    ]
    assert second[:4] == [
        "e1 against capped (one cap), 95 % intervals:",
        "  better: t = 0",
        "  worse: no budget",
        "  open, the intervals overlap: t = 40",
    ]
