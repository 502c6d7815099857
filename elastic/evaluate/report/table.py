"""Rows as plain text."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from elastic.evaluate.comparisons import BudgetComparison
from elastic.evaluate.row import Row


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        head: its heading.
        cell: what it says of a row.
        is_text: whether it is set flush left.
    """

    head: str
    cell: Callable[[Row], str]
    is_text: bool = False


def budget_label(row: Row | BudgetComparison) -> str:
    """The row's budget in a few characters: `40 + 64`, `c = 104` for one cap, `none` without limits."""
    if row.total is not None:
        return f"c = {row.total}"
    if row.thinking is None and row.solution is None:
        return "none"
    return f"{_limit(row.thinking)} + {_limit(row.solution)}"


def table(rows: Sequence[Row]) -> str:
    """One line per row, sorted by set and by the tokens that the budget allows in total.

    Sets and methods keep the order in which they first appear. `tokens`, `thinking` and `solution` are means
    over the answers, in tokens; `right if cut` is the accuracy on the answers whose thought was cut. Further
    columns stand where there is something to show: the set where there are several, `pass@k` for k above 1,
    `answered` where an answer never came to its solution, `ungraded` answers, and `leakage` (see
    `elastic.evaluate.statistics.leakage`) where it is defined.
    """
    methods = {row.method: index for index, row in reversed(list(enumerate(rows)))}
    sets = {row.data: index for index, row in reversed(list(enumerate(rows)))}
    ordered = sorted(rows, key=lambda row: (sets[row.data], row.allowance, methods[row.method]))
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in ordered:
        groups.setdefault((row.data, row.allowance), []).append(row)
    columns = _columns(rows)
    return aligned(
        [column.head for column in columns],
        [[[column.cell(row) for column in columns] for row in group] for group in groups.values()],
        texts=sum(column.is_text for column in columns),
    )


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


def _columns(rows: Sequence[Row]) -> list[Column]:
    """Those that always stand, and those that have something to show in these rows."""
    columns = [
        Column("budget t + s", budget_label, is_text=True),
        Column("method", lambda row: row.method, is_text=True),
        Column("accuracy", lambda row: f"{row.accuracy:.1%}"),
        Column("95 % interval", lambda row: f"{row.low:.1%} - {row.high:.1%}"),
        *(_pass_at(k) for k in sorted({k for row in rows for k in row.pass_at_k} - {"1"}, key=int)),
        Column("tokens", lambda row: f"{row.tokens:.1f}"),
        Column("thinking", lambda row: f"{row.thinking_tokens:.1f}"),
        Column("solution", lambda row: f"{row.solution_tokens:.1f}"),
        Column("cut thoughts", lambda row: f"{row.cut:.0%}"),
        Column("right if cut", lambda row: or_dash(row.accuracy_cut, ".1%")),
    ]
    if len({row.data for row in rows}) > 1:
        columns.insert(0, Column("data", lambda row: row.data, is_text=True))
    if any(row.answered < 1 for row in rows):
        columns.append(Column("answered", lambda row: f"{row.answered:.1%}"))
    if any(row.leakage is not None for row in rows):
        columns.append(Column("leakage", lambda row: or_dash(row.leakage, ".2f")))
    if any(row.ungraded for row in rows):
        columns.append(Column("ungraded", lambda row: str(row.ungraded)))
    return columns


def _pass_at(k: str) -> Column:
    return Column(f"pass@{k}", lambda row: or_dash(row.pass_at_k.get(k), ".1%"))


def or_dash(value: float | None, form: str) -> str:
    """The number in that format; a dash for what is undefined."""
    return "-" if value is None else format(value, form)
