"""What the report reads of each kind of folder."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from elastic.data import Problem
from elastic.data.files import read_lines, read_object
from elastic.evaluate import Row, Sample, rows_of
from elastic.evaluate.report.payload import Answer, ReportRun, Training
from elastic.evaluate.report.payload.series import label_of
from elastic.evaluate.run.folder import RESULT, SAMPLES, SETTINGS, iterate_samples
from elastic.evaluate.run.problems import read_problems
from elastic.train.run.metrics import METRICS_FILE, SAMPLES_FILE

# The base first and E1 last: these two stand side by side when the page opens.
_ORDER = {"separate": -1, "e1": 1}
# Of a replication's many lines those that its figure draws, and that the report begins with.
DRAWN = ("vanilla", "s1", "separate", "capped", "e1", "l1_exact_long")
_IN_TRAINING = "step {}"  # the set that a rollout's problem is shown under


def evaluation(path: Path, name: str) -> ReportRun:
    """A folder of `elastic eval`, finished or not."""
    settings = read_object(path / SETTINGS)
    notes = []
    if (path / RESULT).exists():
        rows = _rows(read_object(path / RESULT)["rows"])
    else:
        notes.append(f"{name} is not finished: what is there of it is shown.")
        samples = [replace(sample, segments=()) for sample in iterate_samples(path / SAMPLES)]
        rows = rows_of(samples) if samples else []
    facts = {
        "model": settings["model"]["name"],
        "data": ", ".join(str(data["name"]) for data in settings["data"]),
        "methods": ", ".join(settings["methods"]),
        "answers per problem": settings["samples"],
        "engine": settings["engine"],
    }
    sampling = {key: value for key, value in settings["sampling"].items() if value is not None}
    return ReportRun(
        name=name,
        kind="evaluation",
        facts=facts | sampling,
        rows=rows,
        answers=partial(_answers, [path / SAMPLES]),
        problems=read_problems(path),
        notes=notes,
    )


def training(path: Path, name: str) -> ReportRun:
    """A folder of `elastic train`, finished or not."""
    records = _records(path / METRICS_FILE)
    rollouts = list(_records(path / SAMPLES_FILE)) if (path / SAMPLES_FILE).exists() else []
    return ReportRun(
        name=name,
        kind="training",
        facts={"steps": max((record["step"] for record in records), default=0)},
        answers=partial(_rollouts, rollouts, name),
        problems={_rollout_name(record): Problem(record["prompt"], record["answer"]) for record in rollouts},
        trainings=[Training(name, records)],
    )


def demo(path: Path, name: str) -> ReportRun:
    """A folder of `elastic demo`."""
    result = read_object(path / "demo.json")
    settings = result["settings"]
    methods = dict.fromkeys(row["method"] for row in result["rows"])
    return ReportRun(
        name=name,
        kind="demo",
        facts=_facts(settings, ("thinking", "solution", "steps", "problems", "split", "seed")),
        rows=_rows(result["rows"]),
        answers=partial(_answers, [path / "samples" / f"{method}.jsonl" for method in _in_order(methods)]),
        problems=read_problems(path),
        trainings=_trainings(((method, path / method) for method in ("capped", "e1")), {}),
    )


def replication(path: Path, name: str) -> ReportRun:
    """A folder of `make replicate`, or its results alone."""
    result = read_object(path / "replicate.json")
    settings, labels = result["settings"], result["labels"]
    first = settings["first_seed"]
    seeds = range(first, first + settings["seeds"])
    notes = [] if (path / "samples").is_dir() else [f"{name} holds results without answers."]
    runs = sorted((path / "runs").glob(f"*-{first}"))
    if runs and len(seeds) > 1:
        notes.append(f"Of {len(seeds)} trainings of each method the curves show that with seed {first}.")
    parts = [f"{arm}-{seed}" for arm in _in_order(labels) for seed in seeds]
    return ReportRun(
        name=name,
        kind="replicate",
        facts=_facts(settings, ("seeds", "thinking", "solution", "steps", "problems", "split", "base")),
        rows=_rows(result["rows"]),
        answers=partial(_answers, [path / "samples" / f"{part}.jsonl" for part in parts]),
        problems=read_problems(path),
        labels=labels,
        drawn=DRAWN,
        trainings=_trainings(((run.name.removesuffix(f"-{first}"), run) for run in runs), labels),
        claims=[_claim(claim) for claim in result["claims"]],
        notes=notes,
    )


def _in_order(methods: Iterable[str]) -> list[str]:
    return sorted(methods, key=lambda method: _ORDER.get(method, 0))  # stable


def _claim(claim: Mapping[str, Any]) -> dict[str, Any]:
    return {key: claim[key] for key in ("claim", "outcome", "low", "high", "seeds", "note") if key in claim}


def _facts(settings: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: settings[name] for name in names if name in settings}


def _answers(paths: Iterable[Path]) -> Iterator[Answer]:
    for path in paths:
        if path.exists():
            yield from map(Answer, iterate_samples(path))


def _rollouts(records: Iterable[Mapping[str, Any]], name: str) -> Iterator[Answer]:
    for record in records:
        data, problem = _rollout_name(record)
        texts = ((kind, record[kind]) for kind in ("thinking", "solution"))
        reward = record["reward"]
        sample = Sample(
            data=data,
            method=name,
            thinking=None,
            solution=None,
            total=None,
            problem=problem,
            sample=0,
            correct=reward if reward in (0, 1) else None,  # a shaped reward says nothing of it
            tokens=record["thinking_tokens"] + record["solution_tokens"],
            thinking_tokens=record["thinking_tokens"],
            solution_tokens=record["solution_tokens"],
            cut=record["thinking_cut"],
            answered=bool(record["solution"]),
            finish_reason=record["finish_reason"],
            segments=tuple((kind, text) for kind, text in texts if text),
        )
        yield Answer(sample, record["step"])


def _rollout_name(record: Mapping[str, Any]) -> tuple[str, str]:
    return _IN_TRAINING.format(record["step"]), record["problem"] or record["prompt"]


def _trainings(folders: Iterable[tuple[str, Path]], labels: Mapping[str, str]) -> list[Training]:
    return [
        Training(name, _records(folder / METRICS_FILE), label_of(name, labels))
        for name, folder in folders
        if (folder / METRICS_FILE).exists()
    ]


def _rows(records: Iterable[Mapping[str, Any]]) -> list[Row]:
    fields = Row.__dataclass_fields__
    return [Row(**{name: record[name] for name in fields}) for record in records]


def _records(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of lines; a last line that is being written is passed over."""
    lines = list(read_lines(path))
    records = []
    for number, line in lines:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == lines[-1][0]:
                break
            raise ValueError(f"{path}, line {number}: not JSON: {error}") from error
    return records
