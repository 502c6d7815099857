"""Text for reading."""

from dataclasses import replace

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


def heads(rows: list[Row]) -> list[str]:
    return [head for head in table(rows).splitlines()[0].split("  ") if head]


def test_further_columns_stand_only_where_there_is_something_to_show(rows: list[Row]) -> None:
    plain = {head.strip() for head in heads(rows)}
    assert not plain & {"data", "pass@1", "answered", "leakage", "ungraded"}
    first, *others = rows
    for change, head in (
        ({"data": "another"}, "data"),
        ({"pass_at_k": {"1": 0.1, "4": 0.25}}, "pass@4"),
        ({"answered": 0.75}, "answered"),
        ({"leakage": 1.5}, "leakage"),
        ({"ungraded": 2}, "ungraded"),
    ):
        found = {found.strip() for found in heads([replace(first, **change), *others])}
        assert found - plain == {head}


def test_pass_at_k_stands_in_the_order_of_k_with_a_dash_where_a_row_has_none(rows: list[Row]) -> None:
    first = replace(rows[0], pass_at_k={"16": 0.5, "1": 0.06, "2": 0.125})
    text = table([first, rows[1]])
    assert text.splitlines()[0].index("pass@2") < text.splitlines()[0].index("pass@16")
    with_values, without = [line.split() for line in text.splitlines() if "vanilla" in line]
    assert with_values[8:10] == ["12.5%", "50.0%"]
    assert without[8:10] == ["-", "-"]


def test_sets_stand_one_below_the_other_in_the_order_they_came(rows: list[Row]) -> None:
    both = [row for name in ("z", "a") for row in (replace(row, data=name) for row in rows)]
    names = [line.split()[0] for line in table(both).splitlines()[2:] if not line.startswith("---")]
    assert names == ["z"] * len(rows) + ["a"] * len(rows)


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
