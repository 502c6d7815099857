"""The parts of docs/benchmarks.md and of README.md that are made from a run's JSON."""

import json
from pathlib import Path

from bench.output import decode, scaling, tables
from bench.output.results import ROOT, read
from bench.output.tables import Row

GPU_BEGIN = "<!-- GPU: made by python -m bench.report --markdown -->"
PAGE, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- made by python -m bench.report --markdown -->", "<!-- end -->"
NO_GPU = "Not measured yet: `make gpu`."
NO_MODELS = "Decode steps and a training step of a 1.5B model: not measured yet by this command."
NOTHING = "Not measured yet on an idle machine: `make bench`."
PICTURE = "![speed of every op over each baseline, and scaling curves](benchmarks.png)"
BARS = "![five ops beside the fastest other way, on a CPU and on a GPU](docs/speed.png)"


def committed(kind: str = "cpu") -> Path | None:
    """The newest run of a CPU, or of `make gpu`, that is kept in bench/results."""
    paths = sorted(RESULTS.glob(f"{kind}-*.json"), key=lambda path: read(path)["date"])
    return paths[-1] if paths else None


def bars(*paths: Path | None) -> str:
    """README's part: the picture of five bars a run, and where the runs were made."""
    runs = [read(path) for path in paths if path is not None]
    if not runs:
        return NOTHING
    made = [f"{tables.heading(run, max(row['threads'] for row in run['results']))}." for run in runs]
    return "\n\n".join([BARS, "\n".join(f"- {line}" for line in made)])


def tables_of(path: Path | None) -> str:
    """The page's part."""
    return NOTHING if path is None else f"{PICTURE}\n\n{of_run(path.name, read(path))}"


def gpu_tables(path: Path | None) -> str:
    """The page's part of a GPU: how the steps of `make gpu` ended, the summary, then every case."""
    if path is None:
        return NO_GPU
    run = read(path)
    steps = [f"- `{name}`, {step['seconds']:.0f} s: {step['detail']}" for name, step in run["steps"].items()]
    failures = [f"  - {name}" for step in run["steps"].values() for name in step.get("failures", [])]
    rates = [row["bytes"] / row["median_ms"] / 1e9 for row in run["results"] if row["op"] == "copy"]
    parts = [
        "\n".join([*steps, *failures]),
        f"Ceiling: {max(rates):.2f} TB/s read and written." if rates else "",
        "\n".join(f"- {line}" for line in decode.lines(run["results"])) or NO_MODELS,
    ]
    return "\n\n".join([*filter(None, parts), tables.duels(run["results"]), of_run(path.name, run)])


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
    notes = [f"- {note['op']}, {note['variant']}: {note['why']}" for note in run.get("skipped", [])]
    if notes:
        parts.append("Skipped:\n\n" + "\n".join(dict.fromkeys(notes)))
    return "\n\n".join(parts)


def replaced(page: str, body: str, begin: str = BEGIN) -> str:
    """The page with the generated part behind `begin` made anew.

    Raises:
        ValueError: the page has no such part.
    """
    head, *rest = page.split(begin)
    if len(rest) != 1 or END not in rest[0]:
        raise ValueError(f"markdown: expected one part between {begin} and {END}")
    return f"{head}{begin}\n\n{body}\n\n{END}{rest[0].split(END, 1)[1]}"


def pages(path: Path | None, gpu: Path | None) -> dict[Path, str]:
    """What both files should hold, from a run on a CPU and one of `make gpu`."""
    page = replaced(PAGE.read_text(), tables_of(path))
    return {
        PAGE: replaced(page, gpu_tables(gpu), GPU_BEGIN),
        README: replaced(README.read_text(), bars(path, gpu)),
    }
