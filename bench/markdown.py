"""The parts of docs/benchmarks.md and of README.md that are made from a run's JSON."""

import json
from pathlib import Path

from bench import scaling, tables
from bench.results import ROOT, read
from bench.tables import Row

PAGE, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- made by python -m bench.report --markdown -->", "<!-- end -->"
NOTHING = "Not measured yet on an idle machine: `make bench`."
PICTURE = "![speed of every op over each baseline, and scaling curves](docs/benchmarks.png)"


def committed() -> Path | None:
    """The newest run of a CPU that is kept in bench/results."""
    paths = sorted(RESULTS.glob("cpu-*.json"), key=lambda path: read(path)["date"])
    return paths[-1] if paths else None


def picture(path: Path | None) -> str:
    """README's part."""
    if path is None:
        return NOTHING
    run = read(path)
    threads = max((row["threads"] for row in run["results"]), default=1)
    return f"{PICTURE}\n\n{tables.heading(run, threads)}; `make bench` repeats it."


def tables_of(path: Path | None) -> str:
    """The page's part."""
    return NOTHING if path is None else of_run(path.name, read(path))


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


def replaced(page: str, body: str) -> str:
    """The page with its generated part made anew.

    Raises:
        ValueError: the page has no such part.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"markdown: expected one part between {BEGIN} and {END}")
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n\n{body}\n\n{END}{rest.split(END)[1]}"


def pages(path: Path | None) -> dict[Path, str]:
    """What both files should hold."""
    return {
        PAGE: replaced(PAGE.read_text(), tables_of(path)),
        README: replaced(README.read_text(), picture(path)),
    }
