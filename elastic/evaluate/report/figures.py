"""Figures as PNG files."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from elastic.data.files import write_atomic
from elastic.evaluate.report.table import budget_label
from elastic.evaluate.row import Row

# Okabe and Ito's colours, distinct for every kind of colour vision; each also has a marker of its own.
_STYLES = [
    ("#7f7f7f", "s"),
    ("#0072b2", "o"),
    ("#d55e00", "D"),
    ("#009e73", "^"),
    ("#cc79a7", "v"),
    ("#e69f00", "P"),
]

_TEXT = 10  # points: readable where a page shows the figure at half its width
_NEAR = (0.1, 4.5)  # of the widest answer, and points of accuracy: closer labels would overlap
_ENOUGH_CUT = 0.1  # of the answers: the accuracy on fewer is noise


def accuracy_figure(
    rows: Sequence[Row], path: Path, *, title: str, labels: dict[str, str] | None = None
) -> None:
    """Draws accuracy against tokens allowed and against tokens used, one line per method; writes a PNG.

    On the left each budget stands at t + s; dotted lines are the accuracy on the answers whose thought was
    cut, where there are enough of them. On the right each budget stands at the mean tokens that the answers
    took, with its label; a star marks the point without any budget. Bars are 95 % intervals.

    Args:
        rows: at least one, all of one set.
        path: of the PNG; replaced in one step.
        title: above the axes.
        labels: what the legend calls a method, where it is not the method's name.

    Raises:
        ValueError: `rows` is empty or of several sets.
    """
    if not rows:
        raise ValueError("accuracy_figure: rows must not be empty")
    if len(sets := dict.fromkeys(row.data for row in rows)) > 1:
        raise ValueError(f"accuracy_figure: rows must be of one set, got {', '.join(sets)}")
    # Not pyplot: no global state, no display, safe in any thread.
    figure = Figure(figsize=(9, 5), dpi=180, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    allowed, used = figure.subplots(1, 2, sharey=True)
    taken: list[tuple[float, float]] = []
    for index, method in enumerate(dict.fromkeys(row.method for row in rows)):
        points = sorted((row for row in rows if row.method == method), key=lambda row: row.allowance)
        style = _STYLES[index % len(_STYLES)]
        name = (labels or {}).get(method, method)
        _draw_allowed(allowed, [row for row in points if not row.is_unlimited], style)
        _draw_used(used, points, style, name, taken, widest=max(row.tokens for row in rows))
    used.plot([], [], linestyle=":", color="black", label="of the answers whose thought was cut")
    used.plot([], [], marker="*", markersize=11, color="black", linestyle="none", label="no budget")
    allowed.set_xlabel("tokens allowed per answer: t + s", fontsize=_TEXT)
    allowed.set_ylabel(f"accuracy, % of {rows[0].problems} problems", fontsize=_TEXT)
    used.set_xlabel("tokens used per answer (mean, markers too)", fontsize=_TEXT)
    used.set_ylim(-4, 104)  # room for labels at both ends
    for axes in (allowed, used):
        axes.set_xlim(left=0)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=_TEXT)
    figure.legend(loc="outside lower center", ncols=2, fontsize=_TEXT, frameon=False)
    figure.suptitle(f"{title} (bars: 95 % interval)", fontsize=_TEXT + 1)
    buffer = io.BytesIO()
    # The version of matplotlib would otherwise be in the file.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


def _draw_allowed(axes: Axes, points: Sequence[Row], style: tuple[str, str]) -> None:
    _draw_line(axes, [row.allowance for row in points], points, style)
    # One cap leaves a cut thought no answer at all: a line at zero that says nothing.
    cut = [row for row in points if row.total is None and row.cut >= _ENOUGH_CUT]
    axes.plot(
        [row.allowance for row in cut],
        [100 * (row.accuracy_cut or 0) for row in cut],
        color=style[0],
        linestyle=":",
        linewidth=1.6,
    )


def _draw_used(
    axes: Axes,
    points: Sequence[Row],
    style: tuple[str, str],
    name: str,
    taken: list[tuple[float, float]],
    widest: float,
) -> None:
    """Draws one line of the right panel; `taken`: the places of labels, near which no other label is put."""
    _draw_line(axes, [row.tokens for row in points], points, style, name)
    for row in points:
        x, y = row.tokens, 100 * row.accuracy
        if row.is_unlimited:
            axes.plot([x], [y], marker="*", markersize=14, color=style[0], linestyle="none", zorder=5)
        if any(abs(x - other) < _NEAR[0] * widest and abs(y - share) < _NEAR[1] for other, share in taken):
            continue
        taken.append((x, y))
        axes.annotate(
            _point_label(row),
            (x, y),
            textcoords="offset points",
            xytext=(5, -11),
            fontsize=_TEXT - 2,
            color=style[0],
            # A white edge keeps a label readable where it crosses a line.
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def _draw_line(
    axes: Axes, x: Sequence[float], points: Sequence[Row], style: tuple[str, str], name: str | None = None
) -> None:
    shares = [100 * row.accuracy for row in points]
    below = [100 * (row.accuracy - row.low) for row in points]
    above = [100 * (row.high - row.accuracy) for row in points]
    axes.errorbar(
        *(x, shares, [below, above]),
        color=style[0],
        marker=style[1],
        markersize=5,
        capsize=3,
        linewidth=1.6,
        label=name,
    )


def _point_label(row: Row) -> str:
    if row.thinking is not None:
        return f"t={row.thinking}"
    return "" if row.is_unlimited else budget_label(row).replace(" ", "")
