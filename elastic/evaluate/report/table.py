"""Rows as plain text."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from elastic.evaluate.comparisons import BudgetComparison
from elastic.evaluate.row import Row
from elastic.evaluate.statistics import Interval


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        head: its heading.
        value: what it says of a row; None for what is undefined.
        form: how a number is written, as `format` reads it; empty for text, which is set flush left.
    """

    head: str
    value: Callable[[Row], Any]
    form: str = ""

    def cell(self, row: Row) -> str:
        """What it says, as text."""
        return or_dash(self.value(row), self.form)


def budget_label(row: Row | BudgetComparison) -> str:
    """The row's budget in a few characters; see `limits_label`."""
    return limits_label(row.thinking, row.solution, row.total)


def limits_label(thinking: int | None, solution: int | None, total: int | None) -> str:
    """A budget in a few characters: `40 + 64`, `c = 104` for one cap, `none` without limits."""
    if total is not None:
        return f"c = {total}"
    if thinking is None and solution is None:
        return "none"
    return f"{_limit(thinking)} + {_limit(solution)}"


def table(rows: Sequence[Row]) -> str:
    """One line per row, sorted by set and by the tokens that the budget allows in total.

    Sets and methods keep the order in which they first appear. `tokens`, `thinking` and `solution` are means
    over the answers, in tokens; `right if cut` is the accuracy on the answers whose thought was cut. Further
    columns stand where there is something to show: the set where there are several, `pass@k` for k above 1,
    `answered` where an answer never came to its solution, `ungraded` answers, and `leakage` (see
    `elastic.evaluate.statistics.leakage`) where it is defined.
    """
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in in_order(rows):
        groups.setdefault((row.data, row.allowance), []).append(row)
    columns = columns_of(rows)
    return aligned(
        [column.head for column in columns],
        [[[column.cell(row) for column in columns] for row in group] for group in groups.values()],
        texts=sum(not column.form for column in columns),
    )


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Sorted by set, tokens allowed and method; sets and methods in order of first appearance."""
    methods = {row.method: index for index, row in reversed(list(enumerate(rows)))}
    sets = {row.data: index for index, row in reversed(list(enumerate(rows)))}
    return sorted(rows, key=lambda row: (sets[row.data], row.allowance, methods[row.method]))


def aligned(heads: Sequence[str], groups: Sequence[Sequence[Sequence[str]]], *, texts: int) -> str:
    """Cells in columns, a rule below the heading and below each group.

    Args:
        heads: one a column.
        groups: lists of lines, a line being as many cells.
        texts: how many columns, from the first, are set flush left; the others are numbers.
    """
    lines = [heads, *(line for group in groups for line in group)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))

    def join(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if index < texts else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    text = [join(heads), rule]
    for group in groups:
        text += [*map(join, group), rule]
    return "\n".join(text)


def _limit(tokens: int | None) -> str:
    return "no limit" if tokens is None else str(tokens)


def columns_of(rows: Sequence[Row]) -> list[Column]:
    """Those that always stand, and those that have something to show in these rows."""
    columns = [
        Column("budget t + s", budget_label),
        Column("method", lambda row: row.method),
        Column("accuracy", lambda row: row.accuracy, ".1%"),
        Column("95 % interval", lambda row: row.interval, ".1%"),
        *(_pass_at(k) for k in sorted({k for row in rows for k in row.pass_at_k} - {"1"}, key=int)),
        Column("tokens", lambda row: row.tokens, ".1f"),
        Column("thinking", lambda row: row.thinking_tokens, ".1f"),
        Column("solution", lambda row: row.solution_tokens, ".1f"),
        Column("cut thoughts", lambda row: row.cut, ".0%"),
        Column("right if cut", lambda row: row.accuracy_cut, ".1%"),
    ]
    if len({row.data for row in rows}) > 1:
        columns.insert(0, Column("data", lambda row: row.data))
    if any(row.answered < 1 for row in rows):
        columns.append(Column("answered", lambda row: row.answered, ".1%"))
    if any(row.leakage is not None for row in rows):
        columns.append(Column("leakage", lambda row: row.leakage, ".2f"))
    if any(row.ungraded for row in rows):
        columns.append(Column("ungraded", lambda row: row.ungraded, "d"))
    return columns


def _pass_at(k: str) -> Column:
    return Column(f"pass@{k}", lambda row: row.pass_at_k.get(k), ".1%")


def or_dash(value: Any, form: str) -> str:
    """The value in that format, both ends of an interval; a dash for what is undefined."""
    if isinstance(value, Interval):
        return " - ".join(format(end, form) for end in value)
    return "-" if value is None else format(value, form)
