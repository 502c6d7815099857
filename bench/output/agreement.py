"""Several runs beside each other: their ratios, and where they differ."""

from collections.abc import Sequence

from bench.output import tables
from bench.output.tables import Row

LIMIT = 0.20  # relative spread of ratios that is flagged


def key(row: Row) -> tuple[str, ...]:
    return (*tables.case_key(row), row["device"], row["variant"])


def spread(values: Sequence[float]) -> float:
    """Largest over smallest, less 1."""
    return max(values) / min(values) - 1


def compared(runs: Sequence[Row]) -> list[tuple[Row, list[float]]]:
    """Rows that all runs have, each with its ratio in every run; neither the baseline itself nor floors."""
    by_run = [{key(row): row for row in run["results"]} for run in runs]
    found = []
    for name, row in by_run[0].items():
        if row.get("kind") == "floor":
            continue
        others = [rows.get(name) for rows in by_run]
        ratios = [
            other["ratio_to_eager"] for other in others if other and other["ratio_to_eager"] is not None
        ]
        if len(ratios) == len(runs) and set(ratios) != {1.0}:
            found.append((row, ratios))
    return found


def only_in_some(runs: Sequence[Row]) -> list[str]:
    """Variants that not every run has."""
    keys = [{key(row) for row in run["results"]} for run in runs]
    return [" ".join(filter(None, name)) for name in sorted(set.union(*keys) - set.intersection(*keys))]


def text(runs: Sequence[Row]) -> tuple[str, int]:
    """The table, largest spread first, and how many rows are flagged."""
    found = sorted(compared(runs), key=lambda pair: -spread(pair[1]))
    flagged = sum(spread(ratios) > LIMIT for _, ratios in found)
    rows = [
        (
            tables.title(row),
            row["variant"],
            *(f"{ratio:.2f}" for ratio in ratios),
            f"{spread(ratios):.0%}" + (" !" if spread(ratios) > LIMIT else ""),
        )
        for row, ratios in found
    ]
    head = ("case", "variant", *(f"run {i + 1}" for i in range(len(runs))), "spread")
    lines = [tables.table(head, rows)] if rows else ["no variant is in all of the runs"]
    lines += [f"not in every run: {name}" for name in only_in_some(runs)]
    lines.append(f"{flagged} of {len(found)} ratios differ by more than {LIMIT:.0%}")
    return "\n".join(lines), flagged
