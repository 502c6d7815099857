"""How the demo's settings were chosen: ``python -m elastic.commands.demo.choose --out DIR``.

Every candidate trains E1 and the control with one training seed, and both are evaluated on the validation
split. Test problems and the reported seeds are not used. The candidate whose E1 has the highest mean
accuracy over all budgets, the unlimited one included, is chosen; the control gets the same steps, learning
rate and KL, which need not be its best. A killed run resumes where it stopped.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from elastic.commands.demo.config import PART, DemoConfig, to_json
from elastic.commands.demo.state import DemoState
from elastic.commands.parts.processes import run_parts
from elastic.data.files import write_atomic
from elastic.evaluate import Row
from elastic.models.threads import available_cores

SEED = 100  # of the trainings; the validation problems' seed follows from it
BASE = DemoConfig(seed=SEED, split="validation")
CANDIDATES = {
    "t* = 40, 25 steps": replace(BASE, thinking=40, steps=25),
    "t* = 40, 40 steps": replace(BASE, thinking=40, steps=40),
    "t* = 32, 40 steps": replace(BASE, thinking=32, steps=40),
    "t* = 40, 40 steps, KL 0.1": replace(BASE, thinking=40, steps=40, kl_coef=0.1),
}


def score(rows: Sequence[Row]) -> float:
    """Mean accuracy of a method over its budgets."""
    return sum(row.accuracy for row in rows) / len(rows)


def summary(candidates: dict[str, dict[str, list[Row]]]) -> str:
    """Markdown: one line per candidate and method, with accuracies by budget and the mean that decides.

    Args:
        candidates: rows by method, by candidate.
    """
    first = next(iter(candidates.values()))["e1"]
    budgets = ["none" if row.thinking is None else str(row.thinking) for row in first]
    lines = [
        f"| candidate | method | {' | '.join(budgets)} | mean |",
        "|---" * (len(budgets) + 3) + "|",
    ]
    for name, methods in candidates.items():
        for method, rows in methods.items():
            shares = " | ".join(f"{100 * row.accuracy:.1f}" for row in rows)
            lines.append(f"| {name} | {method} | {shares} | {100 * score(rows):.1f} |")
    best = max(candidates, key=lambda name: score(candidates[name]["e1"]))
    return "\n".join(lines) + f"\n\nChosen: {best}\n"


def choose(candidates: dict[str, DemoConfig], out: Path, processes: int) -> str:
    """Runs every candidate and writes `choice.md`.

    Args:
        candidates: configurations by name.
        out: the directory; a candidate's runs go to one named by its place in the list.
        processes: trainings at the same time, at least 1.
    """
    found: dict[str, dict[str, list[Row]]] = {}
    for number, (name, config) in enumerate(candidates.items()):
        run_parts(("e1", "capped"), PART, out / str(number), to_json(config), processes)
        state = DemoState(out / str(number), config.settings())
        found[name] = {method: state.rows(method) for method in ("capped", "e1")}
        text = summary(found)
        write_atomic(out / "choice.md", text)
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = argparse.ArgumentParser(prog="python -m elastic.commands.demo.choose", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    print(choose(CANDIDATES, options.out, min(2, available_cores())))


if __name__ == "__main__":
    main()
