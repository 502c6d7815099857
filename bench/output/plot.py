"""The picture of a run: bars of ratios, and curves of time and memory along each size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.output import tables
from bench.output.scaling import WORDS, exponent
from bench.output.tables import Row

OURS, BASELINE = "#1b6ca8", "#9aa5b1"
LINES = ("#9aa5b1", "#c9a24c", "#b9705a", "#7fae78", "#a07cb5")
COLUMNS, CURVES_A_ROW = 2, 3
LEFT = 0.05  # slower ways than this are written at the edge
ROW_INCHES, CASE_INCHES, CURVE_INCHES = 0.15, 0.3, 2.3


def save(run: Row, path: Path) -> None:
    """Writes PNG or SVG, by the path's ending.

    Raises:
        ValueError: there is nothing to draw.
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = [rows for rows in tables.cases(run["results"]) if not rows[0]["axis"] and tables.best(rows)]
    axes = tables.axes(run["results"])
    if not drawn and not axes:
        raise ValueError("plot: expected results with a ratio or an axis, got none")
    sides = columns(one_of_each(drawn)) if drawn else []
    bars_height = max(map(height, sides), default=0.0) + 0.6 * bool(sides)
    strips = -(-len(axes) // CURVES_A_ROW)
    heights = [part for part in (bars_height, CURVE_INCHES * strips) if part]
    figure = pyplot.figure(figsize=(10, sum(heights)), layout="constrained")
    parts = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if sides:
        for place, cases in zip(parts.pop(0).subplots(1, COLUMNS, squeeze=False)[0], sides, strict=True):
            bars(place, cases, max(map(height, sides)))
    if axes:
        places = list(parts.pop(0).subplots(strips, CURVES_A_ROW, squeeze=False).flat)
        for place, (axis, rows) in zip(places, axes.items(), strict=False):
            curves(place, axis, rows)
        for place in places[len(axes) :]:
            place.set_axis_off()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def height(cases: Sequence[list[Row]]) -> float:
    """Inches of a column of bars."""
    return sum(ROW_INCHES * len(shown(rows)) + CASE_INCHES for rows in cases)


def columns(cases: Sequence[list[Row]]) -> list[list[list[Row]]]:
    """Cases in two columns of like height, in order."""
    split = min(range(len(cases) + 1), key=lambda k: abs(height(cases[:k]) - height(cases[k:])))
    return [list(cases[:split]), list(cases[split:])]


def one_of_each(cases: Sequence[list[Row]]) -> list[list[Row]]:
    """The first cases of each op and dtype: other models look the same."""
    found: dict[tuple[str, str, bool], list[Row]] = {}
    for rows in cases:
        found.setdefault((rows[0]["op"], rows[0]["dtype"], "top_p" in rows[0]["shape"]), rows)
    return list(found.values())


def shown(rows: Sequence[Row]) -> list[Row]:
    """Every baseline and our variants, slowest first."""
    kept = [row for row in rows if row["kind"] != "floor" and row["ratio_to_eager"] is not None]
    return sorted(kept, key=lambda row: row["ratio_to_eager"])


def bars(place: Any, cases: Sequence[list[Row]], inches: float) -> None:
    """Horizontal bars from 1, a group a case: to the right is faster than eager."""
    at, ticks, labels = 0.0, [], []
    for rows in cases:
        at += CASE_INCHES
        title = tables.title(rows[0])
        place.text(
            *(0, at - 0.12, title),
            transform=place.get_yaxis_transform(),
            fontsize=7,
            weight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
        for row in shown(rows):
            ratio = row["ratio_to_eager"]
            edge = max(ratio, LEFT)
            color = OURS if row["kind"] == "ours" else BASELINE
            place.barh(at, edge - 1, left=1, height=0.8 * ROW_INCHES, color=color)
            place.text(max(edge, 1) * 1.05, at, tables.digits(ratio), va="center", fontsize=6)
            ticks.append(at)
            labels.append(row["variant"])
            at += ROW_INCHES
    place.set_xscale("log")
    place.axvline(1, color="#444", linewidth=0.8)
    place.set_yticks(ticks, labels, fontsize=6)
    place.set_ylim(inches, 0)
    place.set_xlim(LEFT, 300)
    place.set_xlabel("times as fast as eager (rollout: as `generate`), log scale", fontsize=7)
    place.tick_params(axis="x", labelsize=6)
    place.spines[["top", "right"]].set_visible(False)


def curves(place: Any, axis: str, rows: Sequence[Row]) -> None:
    """Time (lines) and peak memory (dashes) of each variant, log-log, with the exponent of time."""
    memory = place.twinx()
    for number, name in enumerate(tables.names(rows)):
        points = tables.curve(rows, name)
        color = OURS if name == "elastic" else LINES[number % len(LINES)]
        sizes, times = [row["at"] for row in points], [row["median_ms"] for row in points]
        slope = exponent(sizes, times)
        label = name if slope is None else f"{name}: size^{slope:.2f}"
        place.plot(sizes, times, "o-", color=color, markersize=2.5, linewidth=1.2, label=label)
        peaks = [
            (size, row["peak_bytes"] / 1e6)
            for size, row in zip(sizes, points, strict=True)
            if row["peak_bytes"]
        ]
        if peaks:
            memory.plot(*zip(*peaks, strict=True), "--", color=color, linewidth=0.8)
    place.set_xscale("log", base=2)
    for scaled, label in ((place, "ms"), (memory, "peak MB (dashed)")):
        scaled.set_yscale("log")
        scaled.minorticks_off()
        scaled.set_ylabel(label, fontsize=6)
        scaled.tick_params(labelsize=6)
    place.set_title(WORDS.get(axis, axis), fontsize=6.5)
    place.legend(fontsize=5.5, frameon=False)
