"""Figures as PNG files."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from elastic.evaluate import Row
from elastic.files import write_atomic
from elastic.report.table import budget_label

# Colours of Okabe and Ito, apart from each other for every kind of colour vision; markers repeat them.
_STYLES = [
    ("#7f7f7f", "s"),
    ("#0072b2", "o"),
    ("#d55e00", "D"),
    ("#009e73", "^"),
    ("#cc79a7", "v"),
    ("#e69f00", "P"),
]

_NEAR = 0.025  # of an axis: closer labels would overlap


def accuracy_figure(
    rows: Sequence[Row], path: Path, *, title: str, labels: dict[str, str] | None = None
) -> None:
    """Draws accuracy against tokens used, one line a method, 95 % intervals as bars; writes a PNG.

    Every point is one budget and carries its label; a star marks the point without any budget.

    Args:
        rows: at least one.
        path: of the PNG; replaced in one step.
        title: above the axes.
        labels: what the legend calls a method, where it is not the method's name.

    Raises:
        ValueError: `rows` is empty.
    """
    if not rows:
        raise ValueError("accuracy_figure: rows must not be empty")
    # Not pyplot: no global state, no display, safe in any thread.
    figure = Figure(figsize=(9.0, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    widest = max(row.tokens for row in rows)
    methods = list(dict.fromkeys(row.method for row in rows))
    for index, method in enumerate(methods):
        colour, marker = _STYLES[index % len(_STYLES)]
        points = sorted((row for row in rows if row.method == method), key=lambda row: row.allowance)
        tokens = [row.tokens for row in points]
        shares = [100 * row.accuracy for row in points]
        below = [100 * (row.accuracy - row.low) for row in points]
        above = [100 * (row.high - row.accuracy) for row in points]
        name = (labels or {}).get(method, method)
        axes.errorbar(
            *(tokens, shares, [below, above]),
            color=colour,
            marker=marker,
            markersize=5,
            capsize=3,
            linewidth=1.6,
            label=name,
        )
        last = index == len(methods) - 1  # the line most likely on top: its labels go to the free side
        labelled: list[tuple[float, float]] = []
        for row, x, y in zip(points, tokens, shares, strict=True):
            if row.is_unlimited:
                axes.plot([x], [y], marker="*", markersize=14, color=colour, linestyle="none", zorder=5)
            # Budgets that no longer bind give the same point again; the smallest of them keeps its label.
            if any(
                abs(x - other) < _NEAR * widest and abs(y - share) < 100 * _NEAR for other, share in labelled
            ):
                continue
            labelled.append((x, y))
            axes.annotate(
                _point_label(row),
                (x, y),
                textcoords="offset points",
                xytext=(-5, 6) if last else (5, -11),
                ha="right" if last else "left",
                fontsize=7,
                color=colour,
                # A white edge keeps a label readable where it crosses a line.
                path_effects=[withStroke(linewidth=2, foreground="white")],
            )
    axes.plot([], [], marker="*", markersize=11, color="black", linestyle="none", label="no budget")
    axes.set_xlabel("tokens used per answer (mean; thinking, markers and solution)")
    axes.set_ylabel(f"accuracy, % of {rows[0].problems} problems (bars: 95 % interval)")
    axes.set_ylim(-4, 104)  # room for labels at both ends
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.set_title(title)
    axes.legend(loc="lower right", frameon=True)
    buffer = io.BytesIO()
    # The version of matplotlib would otherwise be in the file.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


def _point_label(row: Row) -> str:
    if row.thinking is not None:
        return f"t={row.thinking}"
    return "" if row.is_unlimited else budget_label(row).replace(" ", "")
