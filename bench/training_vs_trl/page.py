"""The tables of a run, and the part of docs/trl.md that is made from the newest kept one."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.output.results import ROOT, read
from elastic.data.files import write_atomic

PAGE = ROOT / "docs" / "trl.md"
BEGIN, END = "<!-- made by python -m bench.training_vs_trl --write -->", "<!-- end of the comparison -->"
NOTHING = "Not measured yet: `python -m bench.training_vs_trl`."
_LAST = 5  # steps whose reward is the training's last one
# A way, and what it is compared with: rollouts of the same kind.
TRAININGS = {
    "elastic": "TRL, elastic rollouts",
    "TRL, elastic rollouts": "TRL, elastic rollouts",
    "elastic, one cap": "TRL, one cap",
    "TRL, one cap": "TRL, one cap",
}
UPDATES = dict.fromkeys(("elastic", "TRL, ElasticGRPOTrainer", "TRL"), "TRL")

Rows = list[dict[str, Any]]


def newest() -> Path | None:
    """The newest kept run."""
    paths = sorted((ROOT / "bench" / "results").glob("training-vs-trl-*.json"))
    return max(paths, key=lambda path: read(path)["date"], default=None)


def write() -> None:
    """Puts the newest kept run's tables into the page."""
    write_atomic(PAGE, replaced(PAGE.read_text()))


def replaced(text_of_page: str) -> str:
    """The page with its generated part made anew."""
    head, behind = text_of_page.split(BEGIN)
    path = newest()
    body = NOTHING if path is None else f"`bench/results/{path.name}`: {text(read(path))}"
    return f"{head}{BEGIN}\n\n{body}\n\n{END}{behind.split(END, 1)[1]}"


def text(run: dict[str, Any]) -> str:
    """Both tables, as far as the run has them, and what the updates agree in."""
    machine, versions, rows = run["machine"], run["versions"], run["results"]
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "trl"))
    parts = [
        f"{machine['device']}, {machine['cores']} cores, {run['threads']} thread, {packages}, commit "
        f"{run['commit']}, {run['date']}."
    ]
    if trained := [row for row in rows if row["part"] == "training"]:
        parts += [_of_trainings(run["sizes"]["training"], trained), _trainings(trained)]
    else:
        parts.append("Trainings: not measured yet.")
    if updated := [row for row in rows if row["part"] == "update"]:
        agreed = "; ".join(
            f"{row['way']}, {row['apart']:.1e} of a largest step of {row['step']:.1e}"
            for row in run["weights"]
        )
        parts += [
            _of_updates(run["sizes"]["update"], updated),
            _updates(updated),
            f"The weights behind it differ from those of `elastic` by at most: {agreed}.",
        ]
    return "\n\n".join(parts)


def _of_trainings(size: dict[str, Any], rows: Rows) -> str:
    return (
        f"**Trainings** of {size['steps']} steps of {size['prompts']} prompts x {size['samples']} rows, "
        f"{len({row['seed'] for row in rows})} seeds (mean ± standard deviation), accuracy of "
        f"{size['tested']} problems:"
    )


def _of_updates(size: dict[str, Any], rows: Rows) -> str:
    rounds = len(rows) // len(UPDATES)
    return (
        f"**The update** on {size['groups'] * len(size['lengths'])} rows of {min(size['lengths'])} to "
        f"{max(size['lengths'])} tokens behind prompts of {size['prompt']}, a model of the size "
        f"`{size['model']}` (`bench/harness/random_models.py`), {rounds} round{'s' * (rounds > 1)}:"
    )


def _trainings(rows: Rows) -> str:
    head = ["", "reward, first steps", "last steps", "accuracy, budgets", "accuracy, cap"]
    lines = [[*head, *_COSTS]]
    for way, baseline in TRAININGS.items():
        mine, other = (_of(rows, "training", name) for name in (way, baseline))
        figures = (
            [statistics.fmean(row["rewards"][:_LAST]) for row in mine],
            [statistics.fmean(row["rewards"][-_LAST:]) for row in mine],
            [row["accuracy_budgets"] for row in mine],
            [row["accuracy_cap"] for row in mine],
        )
        lines.append([way, *map(_spread, figures), *_costs(mine, other, way != baseline)])
    return _table(lines)


def _updates(rows: Rows) -> str:
    lines = [["", *_COSTS]]
    for way, baseline in UPDATES.items():
        mine, other = (_of(rows, "update", name) for name in (way, baseline))
        lines.append([way, *_costs(mine, other, way != baseline)])
    return _table(lines)


_COSTS = ("CPU s", "wall s", "peak MB", "CPU time, of TRL's", "peak, of TRL's")


def _costs(mine: Rows, other: Rows, compared: bool) -> list[str]:
    """Medians of the rounds' medians, and medians of the rounds' ratios: rounds took place side by side."""
    cpu, wall = (
        statistics.median(statistics.median(row[key]) for row in mine) for key in ("cpu_s", "wall_s")
    )
    peaks = [row["peak_bytes"] for row in mine if row["peak_bytes"] is not None]
    found = [f"{cpu:.2f}", f"{wall:.2f}", f"{statistics.median(peaks) / 1e6:.0f}" if peaks else "not known"]
    if not compared:
        return [*found, "1", "1"]
    times = [
        statistics.median(a["cpu_s"]) / statistics.median(b["cpu_s"])
        for a, b in zip(mine, other, strict=True)
    ]
    memory = [a["peak_bytes"] / b["peak_bytes"] for a, b in zip(mine, other, strict=True) if b["peak_bytes"]]
    return [
        *found,
        f"{statistics.median(times):.2f}",
        f"{statistics.median(memory):.2f}" if memory else "not known",
    ]


def _of(rows: Rows, part: str, way: str) -> Rows:
    return [row for row in rows if (row["part"], row["way"]) == (part, way)]


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}"
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"


def _table(lines: list[list[str]]) -> str:
    rule = ["---"] * len(lines[0])
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))
