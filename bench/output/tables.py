"""Tables of a run, as printed and as Markdown."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

Row = dict[str, Any]
NOISY = 0.10  # quartiles this far apart, over the median
# Ours, but unlike what others were measured as: one keeps all logits, which the op is there to avoid; a
# launch alone and a node of a CUDA graph leave out what a call from Python costs.
UNLIKE_OTHERS = ("elastic, all logits", "elastic, one launch", "elastic, graph node")
NOISY_NOTE = f"(! quartiles more than {NOISY:.0%} of the median apart)"


def cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, columns padded to their widest cell."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(text.ljust(width) for text, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(head), "|" + "|".join("-" * (w + 2) for w in widths) + "|", *map(line, rows)])


def digits(value: float) -> str:
    """A figure with three digits that count; 0 for exactly none."""
    if value == 0:
        return "0"
    return f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:.0f}"


def megabytes(value: int | None) -> str:
    return "-" if value is None else digits(value / 1e6) if value >= 1e6 else "< 1"


def case_key(row: Row) -> tuple[str, str, str, str]:
    """What rows of one comparison have in common."""
    return (row["op"], row["shape"], row["dtype"], row.get("axis") or "")


def cases(results: Sequence[Row]) -> list[list[Row]]:
    """Rows by comparison, in the order measured."""
    return [list(rows) for _, rows in groupby(results, key=case_key)]


def title(row: Row) -> str:
    model = f" ({row['model']})" if row.get("model") else ""
    return f"{row['op']}, {row['shape']}{model}, {row['dtype']}"


def heading(run: Row, threads: int) -> str:
    """Where and with what the run was made, in a line."""
    machine, versions = run["machine"], run["versions"]
    if machine.get("driver"):
        parts = [machine["device"], f"driver {machine['driver']}", f"CUDA {machine['cuda']}"]
    else:
        parts = [machine["device"], f"{machine['cores']} cores", machine.get("isa") or ""]
        parts.append(f"{threads} thread{'s' if threads > 1 else ''}")
    parts.append(f"torch {versions['torch']}")
    return ", ".join(filter(None, [*parts, f"commit {run['commit']}", run["date"]]))


def noisy(row: Row) -> bool:
    return row["iqr_ms"] > NOISY * row["median_ms"]


def comparison(rows: Sequence[Row]) -> str:
    """The table of one case."""
    head = ("variant", "ms", "IQR", "times eager", "share of ceiling", "peak MB", "rounds")
    if rows[0]["items"]:
        head = (*head, "items/s")
    stepwise = any(row.get("steps") for row in rows)
    if stepwise:
        head = (*head, "ms a step", "outside the model")
    cells = []
    for row in rows:
        line = [
            row["variant"],
            digits(row["median_ms"]),
            digits(row["iqr_ms"]) + (" !" if noisy(row) else ""),
            "-" if row["ratio_to_eager"] is None else digits(row["ratio_to_eager"]),
            cell(row["ceiling_share"], ".1%"),
            megabytes(row["peak_bytes"]),
            str(row["rounds"]),
        ]
        if row["items"]:
            made = None if row.get("kind") == "floor" else row["items"] / row["median_ms"] * 1e3
            line.append(cell(made, ",.0f"))
        if stepwise:
            steps = row.get("steps")
            line.append("-" if not steps else digits(row["median_ms"] / steps))
            line.append(cell(row.get("outside"), ".1%"))
        cells.append(line)
    return table(head, cells) + (f"\n\n{NOISY_NOTE}" if any(map(noisy, rows)) else "")


def duel(rows: Sequence[Row]) -> tuple[Row, Row] | None:
    """Of one case our fastest way and the fastest of the others; None where one side has none."""
    ours = [row for row in rows if row["kind"] == "ours" and row["variant"] not in UNLIKE_OTHERS]
    others = [row for row in rows if row["kind"] == "baseline"]
    if not ours or not others:
        return None
    mine, other = (min(some, key=lambda row: row["median_ms"]) for some in (ours, others))
    return mine, other


def duels(results: Sequence[Row]) -> str:
    """A line a case: our fastest way beside the fastest of the others, whoever is ahead."""
    head = ("case", "fastest of ours", "ms", "share of ceiling", "peak MB", "fastest other", "ms", "peak MB")
    head = (*head, "speed")
    lines = []
    for rows in cases(results):
        pair = duel(rows)
        if pair is None or rows[0].get("axis"):
            continue
        mine, other = pair
        lines.append(
            (
                f"{mine['op']} {mine['shape']} {mine['dtype']}",
                mine["variant"],
                digits(mine["median_ms"]),
                cell(mine["ceiling_share"], ".0%"),
                megabytes(mine["peak_bytes"]),
                other["variant"],
                digits(other["median_ms"]),
                megabytes(other["peak_bytes"]),
                f"{other['median_ms'] / mine['median_ms']:.2f} x",
            )
        )
    return table(head, lines)


def block(rows: Sequence[Row], errors: Sequence[Row], skipped: Sequence[Row]) -> str:
    """What is printed when a case is done."""
    lines = [f"\n{title(rows[0])}", comparison(rows)] if rows else []
    lines += [f"skipped: {note['op']}, {note['variant']}: {note['why']}" for note in skipped]
    lines += [f"FAILED: {note['op']}, {note['variant']}: {note['error']}" for note in errors]
    return "\n".join(lines)


def best(rows: Sequence[Row]) -> Row | None:
    """Our fastest variant of a case."""
    ours = [row for row in rows if row["kind"] == "ours" and row["ratio_to_eager"] is not None]
    return max(ours, key=lambda row: row["ratio_to_eager"], default=None)


def baselines(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["kind"] == "baseline" and row["ratio_to_eager"] is not None]


def summary(results: Sequence[Row]) -> str:
    """How many times faster our best variant of each case is than each baseline."""
    lines = []
    for rows in cases(results):
        ours = best(rows)
        if ours is None or rows[0].get("axis"):
            continue
        against = ", ".join(
            f"{ours['ratio_to_eager'] / row['ratio_to_eager']:.2f} x {row['variant']}"
            for row in baselines(rows)
        )
        lines.append(f"{title(ours)}\n    {ours['variant']}: {against}")
    return "\n".join(["\nspeed of our fastest variant over each baseline:", *lines]) if lines else ""


def curve(rows: Sequence[Row], variant: str) -> list[Row]:
    """A variant's points of one axis, from small to large."""
    return sorted((row for row in rows if row["variant"] == variant), key=lambda row: row["at"])


def axes(results: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by the size they run over."""
    found: dict[str, list[Row]] = {}
    for row in results:
        if row.get("axis"):
            found.setdefault(row["axis"], []).append(row)
    return found


def names(rows: Sequence[Row]) -> list[str]:
    """Variants in the order measured."""
    return list(dict.fromkeys(row["variant"] for row in rows))
