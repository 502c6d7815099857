"""The demo with several training seeds: ``python -m elastic.commands.demo.seeds --out DIR``.

Each seed has test problems of its own. README's figures come from this script: means over the seeds, with the
lowest and the highest. A killed run resumes where it stopped.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from elastic.commands.demo import DemoConfig, run
from elastic.commands.demo.verdict import Comparison, verdict
from elastic.commands.parts.markdown import markdown_table
from elastic.commands.parts.state import to_json
from elastic.data.files import write_atomic
from elastic.evaluate import Row

SEEDS = 3
COMPARED = {"separate": "untrained", "capped": "control", "e1": "E1"}
_DIFFERENCES = (
    "E1 less the others, points (least - greatest), and in how many seeds the 95 % intervals are apart"
)


def summary(demos: Sequence[Sequence[Row]]) -> str:
    """Markdown: accuracy, E1 against the others, accuracy on cut thoughts, tokens, by budget, over all demos.

    Args:
        demos: the rows of each demo, all with the same budgets.

    Raises:
        ValueError: no demo, or demos with different budgets.
    """
    budgets = [[(row.thinking, row.solution) for row in rows if row.method == "e1"] for rows in demos]
    if not budgets or any(other != budgets[0] for other in budgets):
        raise ValueError("summary: needs demos with the same budgets")
    names = ["none" if thinking is None else str(thinking) for thinking, _ in budgets[0]]

    def by_method(title: str, cell: Callable[[list[Row]], str]) -> str:
        columns = [
            [cell(list(found)) for found in zip(*(_of(rows, name) for rows in demos), strict=True)]
            for name in COMPARED
        ]
        return _table(title, list(COMPARED.values()), names, columns)

    verdicts = [verdict(rows) for rows in demos]
    others = [name for name in COMPARED if name != "e1"]
    differences = [
        [_difference(list(found)) for found in zip(*(one.against(name) for one in verdicts), strict=True)]
        for name in others
    ]
    return "\n".join(
        [
            by_method("Accuracy, % (least - greatest)", _accuracy),
            _table(_DIFFERENCES, [f"less {COMPARED[name]}" for name in others], names, differences),
            by_method("Accuracy on the answers whose thought was cut, % (of how many)", _accuracy_cut),
            by_method("Thinking + solution tokens", _tokens),
        ]
    )


def _of(rows: Sequence[Row], method: str) -> list[Row]:
    return [row for row in rows if row.method == method]


def _table(title: str, heads: Sequence[str], budgets: Sequence[str], columns: Sequence[Sequence[str]]) -> str:
    return f"{title}:\n\n" + markdown_table(["t", *heads], zip(budgets, *columns, strict=True))


def _difference(items: Sequence[Comparison]) -> str:
    points = [item.points for item in items]
    apart = [
        f"{outcome} in {count}"
        for outcome in ("better", "worse")
        if (count := sum(i.outcome == outcome for i in items))
    ]
    return f"{_mean(points):+.1f} ({min(points):+.1f} - {max(points):+.1f}), {', '.join(apart) or 'open'}"


def _accuracy(rows: Sequence[Row]) -> str:
    shares = [100 * row.accuracy for row in rows]
    return f"{_mean(shares):.1f} ({min(shares):.1f} - {max(shares):.1f})"


def _accuracy_cut(rows: Sequence[Row]) -> str:
    """Over all cut answers of all seeds."""
    cut = sum(row.cut * row.problems for row in rows)
    if cut == 0:
        return "-"
    right = sum((row.accuracy_cut or 0) * row.cut * row.problems for row in rows)
    return f"{100 * right / cut:.0f} (of {cut:.0f})"


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
        build: makes the configuration of a `seed`.
        processes: as in `elastic.commands.demo.run`.

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
    parser = argparse.ArgumentParser(prog="python -m elastic.commands.demo.seeds", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args(arguments)
    print(run_seeds(options.seeds, options.out))


if __name__ == "__main__":
    main()
