"""How time and memory grow along a size: the exponent of a power law through the measured points."""

import math
from collections.abc import Sequence

from bench.output import tables
from bench.output.tables import Row

WORDS = {
    "N": "tokens (linear_grpo_loss, H = 64, V = 2,048)",
    "V": "vocabulary (grpo_loss, 64 tokens)",
    "rows": "rows decoded together (tiny model, a request a row)",
    "thinking": "thinking budget in tokens (tiny model, 4 rows)",
    "G": "completions a prompt (training step, one prompt)",
}
UPPER = 0.5  # share of the points, the largest, that the exponent is fitted to: small ones show fixed costs


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Least-squares slope in log-log over the upper points; None for fewer than two, or with a zero."""
    first = min(int(len(sizes) * (1 - UPPER)), len(sizes) - 2)
    if first < 0 or min(values[first:]) <= 0:
        return None
    x = [math.log(size) for size in sizes[first:]]
    y = [math.log(value) for value in values[first:]]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return over / sum((a - mean_x) ** 2 for a in x)


def exponents(results: Sequence[Row]) -> list[tuple[str, str, float | None, float | None]]:
    """Axis, variant, and the exponents of its time and its peak memory."""
    found = []
    for axis, rows in tables.axes(results).items():
        for name in tables.names(rows):
            points = tables.curve(rows, name)
            sizes = [row["at"] for row in points]
            peaks = [row["peak_bytes"] or 0 for row in points]
            found.append(
                (axis, name, exponent(sizes, [row["median_ms"] for row in points]), exponent(sizes, peaks))
            )
    return found


def table(results: Sequence[Row]) -> str:
    """Markdown: a row a curve; empty without curves."""
    cells = []
    for axis, name, time, memory in exponents(results):
        points = tables.curve(tables.axes(results)[axis], name)
        ends = f"{points[0]['at']:,} - {points[-1]['at']:,}"
        times = f"{tables.digits(points[0]['median_ms'])} - {tables.digits(points[-1]['median_ms'])}"
        peaks = f"{tables.megabytes(points[0]['peak_bytes'])} - {tables.megabytes(points[-1]['peak_bytes'])}"
        cells.append(
            (
                WORDS.get(axis, axis),
                name,
                ends,
                times,
                tables.cell(time, ".2f"),
                peaks,
                tables.cell(memory, ".2f"),
            )
        )
    head = ("size", "variant", "from - to", "ms", "exponent of time", "peak MB", "exponent of memory")
    return tables.table(head, cells) if cells else ""
