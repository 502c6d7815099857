"""A replication from its start, or from where it was stopped, to its files."""

import json
import os
import time
from pathlib import Path
from typing import Any

from elastic.commands.parts.processes import run_parts
from elastic.commands.parts.state import State
from elastic.commands.replicate import plan
from elastic.commands.replicate.answers import samples_path
from elastic.commands.replicate.claims import Answers, claims
from elastic.commands.replicate.config import ReplicateConfig
from elastic.commands.replicate.config import to_json as config_json
from elastic.commands.replicate.part import load, run_dir, say
from elastic.commands.replicate.report import fill, report
from elastic.commands.report import write_report
from elastic.commands.report.readers import DRAWN
from elastic.data.files import read_lines, read_text, write_atomic
from elastic.evaluate import EvalSet, Row, Sample, read_samples, rows_of
from elastic.evaluate.report.figures import accuracy_figure
from elastic.evaluate.run.problems import write_problems
from elastic.models import tiny
from elastic.models.threads import available_cores, threads_for
from elastic.models.tiny.pretrain import save
from elastic.models.tiny.requests import read_requests
from elastic.train.run.metrics import METRICS_FILE

RESULT = "replicate.json"
REPORT = "replicate.md"
FIGURE = "replicate.png"
PAGE = "report.html"


def run(
    config: ReplicateConfig,
    out: Path,
    *,
    results: Path | None = None,
    page: Path | None = None,
    processes: int | None = None,
) -> dict[str, Any]:
    """Runs a replication, or what is left of one.

    Args:
        config: the settings.
        out: directory of the base, the runs, the samples and the results; created.
        results: another directory for a copy of the four files of results; created.
        page: another page, whose claims, tables and figure are replaced by those of this run.
        processes: parts that run at the same time, each with one thread; None for two, or one on a single
            core. One runs in this process.

    Returns:
        What `replicate.json` holds.

    Raises:
        ValueError: `out` holds a replication with other settings, or `processes` is below 1.
        OSError: a directory is not writable.
        RuntimeError: a process ended early.
    """
    if processes is not None and processes < 1:
        raise ValueError(f"replicate: processes must be at least 1, got {processes}")
    started = time.monotonic()
    state = State(out, config.settings(), result=RESULT, name="replication")
    if state.result is None:
        prepare_base(out, config)
        parts = plan.parts(config)
        say(f"{len(parts)} parts: trainings and their evaluations")
        run_parts(parts, plan.MODULE, out, config_json(config), processes or min(2, available_cores()))
        found = read_all(config, out)
        result = summarise(found, config) | {
            "trainings": trainings(config, out),
            "wall_seconds": round(time.monotonic() - started, 1),
        }
        draw(result, out / FIGURE, config)
        write_atomic(out / REPORT, report(result | {"settings": config.settings()}))
        write_problems(out, [EvalSet(tiny.NAME, config.traced_problems(), tiny.reward)])
        state.finish(result)
        say(f"done in {result['wall_seconds']:.0f} s; results in {out}")
    written = state.result
    assert written is not None
    write_report([out], out / PAGE, title=f"Embedded model, {config.seeds} seeds: the paper's methods")
    say(f"the report, for a browser: {out / PAGE}")
    if results is not None:
        results.mkdir(parents=True, exist_ok=True)
        for name in (RESULT, REPORT, FIGURE, PAGE):
            write_atomic(results / name, (out / name).read_bytes())
    if page is not None:
        figure = os.path.relpath((results or out) / FIGURE, page.parent)
        write_atomic(page, fill(read_text(page), written, figure))
    return written


def prepare_base(out: Path, config: ReplicateConfig) -> None:
    """The model that everything starts from, in `out/base`: one that reads L1's requests."""
    if (out / plan.BASE).exists():
        return
    model, _ = load(config.base, config)
    if config.reading_steps:
        say(f"the base learns to read requests for a length, {config.reading_steps} steps")
        with threads_for(model):  # one: more would give other last digits
            model = read_requests(model, config.reading_steps, progress=False)
    save(model, out / plan.BASE)


def read_all(config: ReplicateConfig, out: Path) -> dict[tuple[str, int], list[Sample]]:
    """Every sample, by arm and seed."""
    names = [(name, seed) for name in plan.labels(config) for seed in config.all_seeds]
    paths = {key: samples_path(out, *key) for key in names}
    return {key: read_samples(path) for key, path in paths.items() if path.exists()}


def summarise(samples: dict[tuple[str, int], list[Sample]], config: ReplicateConfig) -> dict[str, Any]:
    """Rows over all seeds, with the accuracy of each, and the claims."""
    together: dict[str, list[Sample]] = {}
    for (arm, _), found in samples.items():
        together.setdefault(arm, []).extend(found)
    by_seed = {
        (_place(row), seed): row.accuracy for (_, seed), found in samples.items() for row in rows_of(found)
    }
    rows = []
    for row in (row for found in together.values() for row in rows_of(found)):
        places = [(_place(row), seed) for seed in config.all_seeds]
        seeds = [by_seed[place] for place in places if place in by_seed]
        rows.append(row.to_dict() | {"accuracy_by_seed": seeds})
    answers = Answers(samples, config.open_grid)
    return {
        "rows": rows,
        "claims": [claim.to_dict() for claim in claims(answers, config)],
        "labels": plan.labels(config),
    }


def trainings(config: ReplicateConfig, out: Path) -> list[dict[str, Any]]:
    """What each training cost: its steps, and the tokens of its rollouts."""
    alone = [(training, config.first_seed) for found in plan.ablations(config).values() for training in found]
    of_seeds = [
        (training, seed)
        for found in plan.chains(config).values()
        for training in found
        for seed in config.all_seeds
    ]
    records = []
    for training, seed in (*of_seeds, *alone):
        lines = read_lines(run_dir(training.name, seed, out) / METRICS_FILE)
        tokens = sum(json.loads(line)["rollout_tokens"] for _, line in lines)
        records.append(
            {"name": training.name, "seed": seed, "steps": training.steps, "rollout_tokens": round(tokens)}
        )
    return records


def _place(row: Row) -> tuple[str, int | None, int | None, int | None]:
    return row.method, row.thinking, row.solution, row.total


def draw(result: dict[str, Any], path: Path, config: ReplicateConfig) -> None:
    """The figure: accuracy against tokens allowed and used, over all seeds."""
    fields = Row.__dataclass_fields__
    rows = [Row(**{name: row[name] for name in fields}) for row in result["rows"] if row["method"] in DRAWN]
    grid = {(pair[0], pair[1]) for pair in config.open_grid}
    kept = [row for row in rows if row.total is not None or (row.thinking, row.solution) in grid]
    trained = f"t* = {config.thinking}, s* = {config.solution}"
    title = f"Embedded model, {config.seeds} seeds: E1 trained under {trained}"
    accuracy_figure(kept, path, title=title, labels=result["labels"])
