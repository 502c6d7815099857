"""The part of docs/benchmarks.md that is made from a run's JSON."""

import json
from pathlib import Path

from bench import scaling, tables
from bench.results import ROOT, read
from bench.tables import Row

PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- made by python -m bench.report --markdown -->", "<!-- end -->"
NOTHING = "Not measured yet on an idle machine: `make bench`."


def committed() -> Path | None:
    """The newest run of a CPU that is kept in bench/results."""
    paths = sorted(RESULTS.glob("cpu-*.json"), key=lambda path: read(path)["date"])
    return paths[-1] if paths else None


def section(path: Path | None) -> str:
    """The generated part, between its marks."""
    body = NOTHING if path is None else of_run(path.name, read(path))
    return f"{BEGIN}\n\n{body}\n\n{END}"


def of_run(name: str, run: Row) -> str:
    threads = {row["threads"] for row in run["results"]}
    parts = [
        f"`bench/results/{name}`: {tables.heading(run, max(threads, default=1))}.",
        f"Packages: {json.dumps(run['versions'])[1:-1].replace(chr(34), '')}.",
    ]
    for rows in tables.cases(run["results"]):
        if not rows[0]["axis"]:
            parts.append(f"**{tables.title(rows[0])}**\n\n{tables.comparison(rows)}")
    if curves := scaling.table(run["results"]):
        parts.append(
            "**Scaling.** Exponents of a power law through the upper half of the points: 1 is linear.\n\n"
            + curves
        )
    notes = [f"- {note['op']}, {note['variant']}: {note['why']}" for note in run["skipped"]]
    if notes:
        parts.append("Skipped:\n\n" + "\n".join(dict.fromkeys(notes)))
    return "\n\n".join(parts)


def replaced(page: str, path: Path | None) -> str:
    """The page with its generated part made anew.

    Raises:
        ValueError: the page has no such part.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"markdown: expected one part between {BEGIN} and {END}")
    head, rest = page.split(BEGIN)
    return head + section(path) + rest.split(END)[1]
