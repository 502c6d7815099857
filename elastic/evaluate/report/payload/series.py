"""Curves, the table and the calibration of lengths, as the report's payload has them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from elastic.evaluate.methods import METHODS
from elastic.evaluate.report.payload.places import allowance
from elastic.evaluate.report.payload.run import ReportRun
from elastic.evaluate.report.table import Column, budget_label, columns_of, in_order
from elastic.evaluate.row import Row
from elastic.evaluate.sample import Sample
from elastic.evaluate.statistics import Interval, bootstrap_mean
from elastic.evaluate.statistics.problems import by_problem, mean

Record = dict[str, Any]
_POINT = ("tokens", "accuracy", "low", "high", "thinking", "solution", "total")


def label_of(method: str, labels: Mapping[str, str]) -> str:
    """What a reader sees for a method: the run's own label, or that of the table of methods, or its name."""
    known = METHODS[method].label if method in METHODS else method
    return labels.get(method, known)


def curves(runs: Iterable[ReportRun]) -> list[Record]:
    """Accuracy against tokens used: a line per run, set and method, points ascending in tokens."""
    found: list[Record] = []
    for run in runs:
        lines: dict[tuple[str, str], list[Row]] = {}
        for row in run.rows:
            lines.setdefault((row.data, row.method), []).append(row)
        for (data, method), rows in lines.items():
            points = [_point(row) for row in sorted(rows, key=lambda row: row.tokens)]
            found.append({"data": data} | _line(run, method) | {"points": points})
    return found


def _line(run: ReportRun, method: str) -> Record:
    label = label_of(method, run.labels)
    return {"run": run.name, "method": method, "label": label, "hidden": run.hides(method)}


def _point(row: Row) -> Record:
    return {name: _short(getattr(row, name)) for name in _POINT} | {"budget": budget_label(row)}


def table(runs: Iterable[ReportRun]) -> Record:
    """The rows of all runs, run by run, with the columns of `elastic.evaluate.report.table`."""
    shown = [(run, row) for run in runs for row in in_order(run.rows)]
    if not shown:
        return {"columns": [], "rows": []}
    columns = columns_of([row for _, row in shown])
    several = len({run.name for run, _ in shown}) > 1
    heads = [head for column in columns for head in _heads(column)]
    if several:
        heads.insert(0, {"key": "run", "title": "run", "kind": "text"})
    lines = []
    for run, row in shown:
        cells = [value for column in columns for value in _cells(column, row, run.labels)]
        lines.append([run.name, *cells] if several else cells)
    return {"columns": heads, "rows": lines}


def _heads(column: Column) -> list[Record]:
    kind = "text" if not column.form else "share" if column.form.endswith("%") else "number"
    if column.head in ("tokens", "thinking", "solution"):
        kind = "tokens"
    titles = ["95 % from", "to"] if column.head == "95 % interval" else [column.head]
    return [{"key": title, "title": title, "kind": kind} for title in titles]


def _cells(column: Column, row: Row, labels: Mapping[str, str]) -> list[Any]:
    value = column.value(row)
    if column.head == "method":
        return [label_of(value, labels)]
    return [_short(end) for end in (value if isinstance(value, Interval) else [value])]


def lengths(run: ReportRun, samples: Iterable[Sample]) -> list[Record]:
    """Tokens asked for or allowed against tokens sampled: a line per set and method.

    What a method was asked for (L1) or allowed is t + s, or its one cap. What it used are sampled tokens: no
    budget counts a forced one. `low` and `high` are the 95 % interval of the mean over problems.
    """
    lines: dict[tuple[str, str], dict[float, list[Sample]]] = {}
    for sample in samples:
        if (allowed := allowance(sample.budget)) != float("inf"):
            line = lines.setdefault((sample.data, sample.method), {})
            line.setdefault(allowed, []).append(sample)
    return [
        {"data": data}
        | _line(run, method)
        | {"points": [_length(asked, found) for asked, found in sorted(points.items())]}
        for (data, method), points in lines.items()
    ]


def _length(asked: float, samples: Sequence[Sample]) -> Record:
    problems = by_problem(samples).values()
    used = [mean([sample.thinking_tokens + sample.solution_tokens for sample in found]) for found in problems]
    value, low, high = (_short(number) for number in bootstrap_mean(used, bounds=None))
    return {"asked": int(asked), "used": value, "low": low, "high": high, "count": len(samples)}


def _short(value: Any) -> Any:
    """Four digits behind the point: more than an interval of 100,000 answers tells apart."""
    return round(value, 4) if isinstance(value, float) else value
