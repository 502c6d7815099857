"""Rows and verdicts as plain text."""

from collections.abc import Mapping, Sequence

from elastic.evaluate import Row, Verdict

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
_OUTCOMES = {"better": "better", "worse": "worse", "open": "open, the intervals overlap"}


def budget_label(row: Row) -> str:
    """The row's budget in a few characters: `40 + 64`, `c = 104` for one cap, `none` without limits."""
    if row.is_unlimited:
        return "none"
    if row.total is not None:
        return f"c = {row.total}"
    return f"{_limit(row.thinking)} + {_limit(row.solution)}"


def table(rows: Sequence[Row]) -> str:
    """One line a row, sorted by what a budget allows in all, so that equal totals stand together.

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


def verdict_text(result: Verdict, labels: Mapping[str, str]) -> str:
    """The verdict in sentences: for each other method first a summary, then a line a budget.

    Args:
        result: the comparisons.
        labels: what a method is called, by its name.
    """
    lines: list[str] = []
    for other in dict.fromkeys(item.against for item in result.comparisons):
        items = result.against(other)
        lines.append(f"{result.method} against {other} ({labels[other]}), 95 % intervals:")
        for outcome, words in _OUTCOMES.items():
            budgets = [_at(item.thinking) for item in items if item.outcome == outcome]
            lines.append(f"  {words}: {', '.join(budgets) or 'nowhere'}")
        for item in items:
            change = (
                "" if item.thinking_percent is None else f", thinking tokens {item.thinking_percent:+.0f} %"
            )
            accuracies = f"{item.before:.1%} -> {item.after:.1%}, {item.points:+.1f} points"
            lines.append(f"    {_at(item.thinking)}: {accuracies}{change}, {item.outcome}")
    return "\n".join(lines)


def _at(thinking: int | None) -> str:
    return "no budget" if thinking is None else f"t = {thinking}"


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
