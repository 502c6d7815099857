"""The demo with several training seeds: ``python -m elastic.demo.seeds --out DIR``.

Each seed has test problems of its own. README's figures are this script's: means over the seeds, with the
least and the greatest. A killed run goes on where it was.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from elastic.demo import DemoConfig, run
from elastic.demo.state import to_json
from elastic.evaluate import Row
from elastic.files import write_atomic

SEEDS = 3
COMPARED = {"separate": "untrained", "capped": "control", "e1": "E1"}


def summary(demos: Sequence[Sequence[Row]]) -> str:
    """Markdown: accuracy, accuracy on cut thoughts, tokens, each by budget and method, over all demos.

    Args:
        demos: the rows of each demo, all with the same budgets.

    Raises:
        ValueError: no demo, or demos with different budgets.
    """
    budgets = [[(row.thinking, row.solution) for row in rows if row.method == "e1"] for rows in demos]
    if not budgets or any(other != budgets[0] for other in budgets):
        raise ValueError("summary: needs demos with the same budgets")
    blocks = []
    for title, cell in (
        ("accuracy, % (least - greatest)", _accuracy),
        ("accuracy on the answers whose thought was cut, % (share of such answers)", _accuracy_cut),
        ("thinking + solution tokens", _tokens),
    ):
        lines = ["| t | " + " | ".join(COMPARED.values()) + " |", "|---" * (1 + len(COMPARED)) + "|"]
        for index, (thinking, _) in enumerate(budgets[0]):
            cells = [
                cell([[row for row in rows if row.method == name][index] for rows in demos])
                for name in COMPARED
            ]
            lines.append(f"| {'none' if thinking is None else thinking} | " + " | ".join(cells) + " |")
        blocks.append(f"{title}:\n\n" + "\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _accuracy(rows: Sequence[Row]) -> str:
    shares = [100 * row.accuracy for row in rows]
    return f"{_mean(shares):.1f} ({min(shares):.1f} - {max(shares):.1f})"


def _accuracy_cut(rows: Sequence[Row]) -> str:
    """Over all cut answers of all seeds."""
    cut = sum(row.cut * row.problems for row in rows)
    if cut == 0:
        return "-"
    right = sum((row.accuracy_cut or 0) * row.cut * row.problems for row in rows)
    return f"{100 * right / cut:.0f} ({100 * cut / sum(row.problems for row in rows):.0f} %)"


def _tokens(rows: Sequence[Row]) -> str:
    return f"{_mean([r.thinking_tokens for r in rows]):.0f} + {_mean([r.solution_tokens for r in rows]):.0f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def run_seeds(
    seeds: int, out: Path, *, build: Callable[..., DemoConfig] = DemoConfig, processes: int | None = None
) -> str:
    """Runs the demos and writes `seeds.json` (all rows) and `seeds.md` (the summary) beside them.

    Args:
        seeds: how many, from 0 on, at least 1.
        out: their directories are `out/seed-0` and so on.
        build: a configuration by its `seed`.
        processes: as in `elastic.demo.run`.

    Raises:
        ValueError: `seeds` below 1, or a directory with another demo.
    """
    if seeds < 1:
        raise ValueError(f"seeds: must be at least 1, got {seeds}")
    results = [run(build(seed=seed), out / f"seed-{seed}", processes=processes) for seed in range(seeds)]
    text = summary([[Row(**row) for row in result["rows"]] for result in results])
    kept = [{key: result[key] for key in ("seed", "settings", "rows")} for result in results]
    write_atomic(out / "seeds.json", to_json(kept))
    write_atomic(out / "seeds.md", text)
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = argparse.ArgumentParser(prog="python -m elastic.demo.seeds", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args(arguments)
    print(run_seeds(options.seeds, options.out))


if __name__ == "__main__":
    main()
