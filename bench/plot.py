"""The picture of a run: bars of ratios, and curves of time and memory along each size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import tables
from bench.scaling import WORDS, exponent
from bench.tables import Row

OURS, BARS = "#1b6ca8", ("#9aa5b1", "#c9b27c", "#b98a7a", "#8fae8b", "#a891b5", "#7a8ea0", "#d0d4d9")
COLUMNS = 3
MOST_BARS = 9


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
    drawn = one_of_each(drawn)
    strips = -(-len(axes) // COLUMNS)
    height = 0.26 * sum(len(shown(rows)) + 1.6 for rows in drawn) + 2.6 * strips
    figure = pyplot.figure(figsize=(9.5, max(height, 3)), layout="constrained")
    parts = figure.subfigures(
        2, 1, height_ratios=[max(height - 2.6 * strips, 0.1), max(2.6 * strips, 0.1)], squeeze=False
    )
    if drawn:
        bars(parts[0][0].subplots(), drawn)
    if axes:
        places = parts[1][0].subplots(strips, COLUMNS, squeeze=False).flat
        for place, (axis, rows) in zip(places, axes.items(), strict=False):
            curves(place, axis, rows)
        for place in list(places)[len(axes) :]:
            place.set_axis_off()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def one_of_each(cases: Sequence[list[Row]]) -> list[list[Row]]:
    """The first cases of each op and dtype: other models look the same."""
    found: dict[tuple[str, str, bool], list[Row]] = {}
    for rows in cases:
        found.setdefault((rows[0]["op"], rows[0]["dtype"], "top_p" in rows[0]["shape"]), rows)
    return list(found.values())


def shown(rows: Sequence[Row]) -> list[Row]:
    """Every baseline and our variants, slowest first."""
    kept = [row for row in rows if row["kind"] != "floor" and row["ratio_to_eager"] is not None]
    return sorted(kept, key=lambda row: row["ratio_to_eager"])[-MOST_BARS:]


def bars(place: Any, cases: Sequence[list[Row]]) -> None:
    """Horizontal bars, a group a case; longer is faster."""
    at, ticks, labels = 0.0, [], []
    for rows in cases:
        place.text(
            0, at, tables.title(rows[0]), transform=place.get_yaxis_transform(), fontsize=8, weight="bold"
        )
        for row in shown(rows):
            at += 1
            ratio = row["ratio_to_eager"]
            place.barh(at, ratio, height=0.8, color=OURS if row["kind"] == "ours" else BARS[0])
            place.text(
                ratio * 1.03, at, f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}", va="center", fontsize=7
            )
            ticks.append(at)
            labels.append(row["variant"])
        at += 1.6
    place.set_xscale("log")
    place.axvline(1, color="#444", linewidth=0.8)
    place.set_yticks(ticks, labels, fontsize=7)
    place.set_ylim(at - 0.6, -0.9)
    place.set_xlabel("times as fast as eager (rollout: as `generate`), log scale", fontsize=8)
    place.tick_params(axis="x", labelsize=7)
    place.spines[["top", "right"]].set_visible(False)


def curves(place: Any, axis: str, rows: Sequence[Row]) -> None:
    """Time (lines) and peak memory (dashes) of each variant, log-log, with the exponent of time."""
    memory = place.twinx()
    for number, name in enumerate(tables.names(rows)):
        points = tables.curve(rows, name)
        color = OURS if points[0]["kind"] == "ours" else BARS[number % len(BARS)]
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
        scaled.set_ylabel(label, fontsize=7)
        scaled.tick_params(labelsize=6)
    place.set_title(WORDS.get(axis, axis), fontsize=7)
    place.legend(fontsize=5.5, frameon=False)
