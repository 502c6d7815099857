"""Rows as plain text."""

from collections.abc import Sequence

from elastic.evaluate.row import Row

_HEADER = (
    "budget t + s",
    "method",
    "accuracy",
    "95 % interval",
    "tokens",
    "thinking",
    "solution",
    "cut thoughts",
    "right if cut",
)


def budget_label(row: Row) -> str:
    """The row's budget in a few characters: `40 + 64`, `c = 104` for one cap, `none` without limits."""
    if row.is_unlimited:
        return "none"
    if row.total is not None:
        return f"c = {row.total}"
    return f"{_limit(row.thinking)} + {_limit(row.solution)}"


def table(rows: Sequence[Row]) -> str:
    """One line per row, sorted by the tokens that the budget allows in total.

    Methods keep the order in which they first appear. `tokens`, `thinking` and `solution` are means over
    the answers, in tokens; `right if cut` is the accuracy on the answers whose thought was cut.
    """
    order = {row.method: index for index, row in reversed(list(enumerate(rows)))}
    ordered = sorted(rows, key=lambda row: (row.allowance, order[row.method]))
    groups: list[list[tuple[str, ...]]] = []
    allowance = None
    for row in ordered:
        if row.allowance != allowance:
            allowance = row.allowance
            groups.append([])
        groups[-1].append(_cells(row))
    lines = [_HEADER, *(cells for group in groups for cells in group)]
    widths = [max(len(cells[column]) for cells in lines) for column in range(len(_HEADER))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    text = [_join(_HEADER, widths), rule]
    for group in groups:
        text += [_join(cells, widths) for cells in group]
        text.append(rule)
    return "\n".join(text)


def _limit(tokens: int | None) -> str:
    return "no limit" if tokens is None else str(tokens)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        budget_label(row),
        row.method,
        f"{row.accuracy:.1%}",
        f"{row.low:.1%} - {row.high:.1%}",
        f"{row.tokens:.1f}",
        f"{row.thinking_tokens:.1f}",
        f"{row.solution_tokens:.1f}",
        f"{row.cut:.0%}",
        "-" if row.accuracy_cut is None else f"{row.accuracy_cut:.1%}",
    )


def _join(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
    return "  ".join([*left, *right]).rstrip()
