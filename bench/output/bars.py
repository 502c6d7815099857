"""README's picture: for five ops how fast ours is beside the fastest of the others, on a CPU and on a GPU.

Of each op it shows the case that is least in our favour.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.output import tables
from bench.output.tables import Row
from elastic.data.files import write_atomic

OPS = ("grpo_loss", "token_logprobs", "linear_grpo_loss", "sample", "budget_step_")
# Of Okabe and Ito, apart for every kind of colour vision.
AHEAD, BEHIND, INK = "#0072b2", "#d55e00", "#222222"
LOW, HIGH = 0.1, 100


def interval(mine: Row, other: Row) -> tuple[float, float]:
    """The ratio of their times, each half its quartile distance up or down: a run keeps no rounds."""
    (low, high), (other_low, other_high) = (
        (row["median_ms"] - row["iqr_ms"] / 2, row["median_ms"] + row["iqr_ms"] / 2) for row in (mine, other)
    )
    return other_low / high, other_high / low


def hardest(results: Sequence[Row], op: str) -> tuple[Row, Row] | None:
    """Ours and the fastest other in the case of `op` where we are least ahead; None without such a case."""
    counted = [row for row in results if row["op"] == op and not row.get("axis")]
    pairs = filter(None, map(tables.duel, tables.cases(counted)))
    return min(pairs, key=lambda pair: pair[1]["median_ms"] / pair[0]["median_ms"], default=None)


def save(runs: Sequence[Row], path: Path) -> None:
    """Writes a PNG with a panel a run.

    Raises:
        ValueError: no run holds one of the ops.
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels = [(run, [pair for op in OPS if (pair := hardest(run["results"], op))]) for run in runs]
    panels = [(run, pairs) for run, pairs in panels if pairs]
    if not panels:
        raise ValueError(f"bars: expected results of one of {', '.join(OPS)}, got none")
    # White, not transparent: it stays readable on a dark page.
    size = (9, 0.7 + 2.4 * len(panels))
    figure = Figure(size, dpi=180, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for place, (run, pairs) in zip(axes, panels, strict=True):
        _panel(place, run, pairs)
    axes[-1].set_xlabel(
        "times as fast as the fastest other (log scale); thin lines: from the quartile distances of both",
        fontsize=10,
        color=INK,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


def _panel(place: Any, run: Row, pairs: Sequence[tuple[Row, Row]]) -> None:
    for at, (mine, other) in enumerate(pairs):
        ratio = other["median_ms"] / mine["median_ms"]
        low, high = interval(mine, other)
        place.barh(at, ratio - 1, left=1, height=0.55, color=AHEAD if ratio >= 1 else BEHIND)
        place.errorbar(ratio, at, xerr=[[ratio - low], [high - ratio]], color=INK, capsize=4, linewidth=1.3)
        words = f"{tables.digits(ratio)} x {other['variant']}"
        place.text(max(high, 1) * 1.12, at, words, va="center", fontsize=10, color=INK)
    labels = [f"{mine['op']}\n{_case(mine)}" for mine, _ in pairs]
    place.set_yticks(range(len(pairs)), labels, fontsize=9.5)
    place.invert_yaxis()
    place.set_xscale("log")
    place.set_xlim(LOW, HIGH * 10)
    place.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    place.minorticks_off()
    place.axvline(1, color=INK, linewidth=1)
    place.tick_params(axis="x", labelsize=10)
    place.tick_params(colors=INK)
    place.set_title(_machine(run), fontsize=11, loc="left", color=INK, weight="bold")
    place.spines[["top", "right"]].set_visible(False)


def _case(row: Row) -> str:
    return f"{row['shape']} {row['dtype']}".replace("bfloat16", "bf16").replace("float32", "f32")


def _machine(run: Row) -> str:
    machine = run["machine"]
    parts = [machine["device"]]
    if not machine.get("driver"):
        parts += [machine.get("isa") or "", f"{max(row['threads'] for row in run['results'])} thread"]
    return ", ".join(filter(None, [*parts, f"commit {run['commit'][:7]}", run["date"]]))
