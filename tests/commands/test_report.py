"""`elastic report` on folders of every kind: what is read, what is joined, what is refused."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elastic.commands.cli import main
from elastic.commands.report.folders import read_run
from elastic.data import load
from tests.commands.pages import payload_of

STEPS = [
    {"step": 1, "reward": 0.25, "kl": 0.0},
    {"step": 2, "reward": 0.5, "kl": 0.001},
    {"step": 2, "eval/t8_s24/accuracy": 0.75},
]
ROLLOUT = {
    "step": 2,
    "problem": "p0",
    "answer": "7",
    "reward": 1.0,
    "prompt": "3 + 4 = ?",
    "thinking": "wait : 3 + 4 = 7",
    "solution": "answer is 7",
    "thinking_tokens": 8,
    "solution_tokens": 4,
    "thinking_cut": False,
    "finish_reason": "stop",
}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder of `elastic eval`."""
    out = tmp_path_factory.mktemp("evaluated") / "base"
    arguments = ["--data", "tiny", "--count", "4", "--methods", "vanilla,separate", "--budgets", "8:24,none"]
    assert main(["eval", "tiny", *arguments, "--temperature", "1", "--out", str(out)]) == 0
    return out


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder of `elastic train`, as far as the report reads it."""
    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in STEPS))
    (folder / "samples.jsonl").write_text(json.dumps(ROLLOUT) + "\n")
    return folder


@pytest.fixture
def report(elastic, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs the command; the payload of its page."""

    def run(*arguments: object) -> dict[str, Any]:
        out = tmp_path / "report.html"
        outcome = elastic("report", *arguments, "--out", out)
        assert outcome.status == 0, outcome.err
        assert re.fullmatch(rf"elastic: report: {re.escape(str(out))}, 0\.\d\d MB\n", outcome.err)
        return payload_of(out)

    return run


def test_an_evaluation_gives_curves_table_lengths_and_traces(report, evaluated: Path) -> None:
    payload = report(evaluated)
    assert payload["title"] == "Elastic: base"
    (run,) = payload["runs"]
    assert run["kind"] == "evaluation"
    facts = {"data": "tiny", "methods": "vanilla, separate", "temperature": 1.0}
    assert facts.items() <= run["facts"].items()
    assert [curve["method"] for curve in payload["curves"]] == ["vanilla", "separate"]
    assert len(payload["table"]["rows"]) == 4
    assert [line["points"][0]["asked"] for line in payload["lengths"]] == [32, 32]
    problems = load("tiny", count=4, split="test")
    shown = {problem["id"]: problem for problem in payload["traces"]["problems"]}
    assert {name: found["prompt"] for name, found in shown.items()} == {p.id: p.prompt for p in problems}
    answers = shown[problems[0].id]["answers"]
    assert set(answers["base/separate"]) == set(answers["base/vanilla"]) == {"8 + 24", "none"}
    assert len(payload["reasoning"]) == 4


def test_runs_that_answered_the_same_problems_are_seen_side_by_side(
    report, evaluated: Path, tmp_path: Path
) -> None:
    other = tmp_path / "tuned"
    shutil.copytree(evaluated, other)
    (other / "problems.jsonl").unlink()  # as an older version left it: the other run knows the prompts
    traces = report(evaluated, other, "--title", "Two", "--most-problems", 3)["traces"]
    assert len(traces["problems"]) == 3
    assert [arm["label"] for arm in traces["arms"]][1:3] == [
        "separate budgeting, untrained (base)",
        "vanilla: one cap, cut hard (tuned)",
    ]
    assert all(len(problem["answers"]) == 4 for problem in traces["problems"])


def test_an_evaluation_that_is_not_finished_says_so(report, evaluated: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    shutil.copytree(evaluated, part)
    (part / "eval.json").unlink()
    lines = (part / "samples.jsonl").read_text().splitlines(keepends=True)
    (part / "samples.jsonl").write_text("".join(lines[:4]) + lines[4][:30])  # being written
    payload = report(part)
    assert payload["notes"] == ["part is not finished: what is there of it is shown."]
    assert len(payload["table"]["rows"]) == 1


def test_a_training_gives_its_curves_and_rollouts(report, trained: Path) -> None:
    payload = report(trained)
    assert [curve["metric"] for curve in payload["training"]] == ["reward", "kl", "eval/t8_s24/accuracy"]
    (problem,) = payload["traces"]["problems"]
    assert (problem["data"], problem["prompt"], problem["answer"]) == ("step 2", "3 + 4 = ?", "7")
    answer = problem["answers"]["trained/trained"]["in training"]
    assert answer["correct"] == 1
    assert answer["segments"] == [["thinking", "wait : 3 + 4 = 7"], ["solution", "answer is 7"]]
    assert answer["measures"]["rechecks"] == 1
    assert payload["reasoning"][0]["budget"] == "step 2"
    assert payload["curves"] == payload["claims"] == []


def test_a_shaped_reward_is_neither_right_nor_wrong(report, trained: Path) -> None:
    (trained / "samples.jsonl").write_text(json.dumps(ROLLOUT | {"reward": 0.97}) + "\n")
    (problem,) = report(trained)["traces"]["problems"]
    assert problem["answers"]["trained/trained"]["in training"]["correct"] is None


def test_the_results_of_a_replication_alone_have_claims_and_no_traces(
    report, evaluated: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    rows = json.loads((evaluated / "eval.json").read_text())["rows"]
    claim = {"claim": "E1 is above", "outcome": "holds", "low": 0.1, "high": 0.2, "seeds": 3, "note": ""}
    result = {
        "settings": {"seeds": 3, "first_seed": 0, "problems": 4},
        "labels": {"dler": "DLER", "vanilla": "vanilla"},
        "rows": [row | {"method": row["method"].replace("separate", "dler")} for row in rows],
        "claims": [claim | {"comparisons": []}],
    }
    (folder / "replicate.json").write_text(json.dumps(result))
    payload = report(folder)
    assert payload["claims"] == [claim]
    assert [(curve["label"], curve["hidden"]) for curve in payload["curves"]] == [
        *(("vanilla", False), ("DLER", True))
    ]
    assert payload["traces"]["problems"] == []
    assert payload["notes"] == ["results holds results without answers."]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {},
            r"holds no finished run; looked for demo\.json \(elastic demo\), .*settings\.json \(elastic eval",
        ),
        ({"demo.json": "{"}, r"demo\.json: not JSON"),
        ({"replicate.json": "[]"}, r"replicate\.json: expected an object, got list"),
        (
            {"demo.json": '{"settings": {}, "rows": [{"method": "e1"}]}'},
            r"run is damaged, or of another version of elastic demo: it lacks 'thinking'",
        ),
        ({"metrics.jsonl": '{"step": 1}\n{\n{"step": 2}\n'}, r"metrics\.jsonl, line 2: not JSON"),
        ({"samples.jsonl": "", "settings.json": "{}"}, r"another version of elastic eval: it lacks 'model'"),
        ({"samples.jsonl": "{}\n", "settings.json": "{}"}, r"samples\.jsonl, line 1: no sample"),
    ],
)
def test_folders_of_something_else_are_refused_in_one_line(
    elastic, tmp_path: Path, files: dict[str, str], message: str
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    outcome = elastic("report", folder, "--out", tmp_path / "report.html")
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    assert re.search(message, line)
    assert not (tmp_path / "report.html").exists()


def test_bad_arguments_are_refused_before_anything_is_read(elastic, evaluated: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((tmp_path / "nowhere",), "nowhere is no folder"),
        ((evaluated, evaluated), "base is there twice"),
        ((evaluated, "--out", tmp_path), "--out: expected a file, got"),
        ((evaluated, "--out", tmp_path / "nowhere/x.html"), "nowhere is no folder"),
        ((evaluated, "--most-problems", -1), "--most-problems: must be at least 0, got -1"),
    ):
        outcome = elastic("report", *arguments)
        assert outcome.status == 2
        assert message in outcome.err


def test_folders_of_one_name_are_told_apart_by_their_paths(trained: Path, tmp_path: Path, report) -> None:
    other = tmp_path / "other" / "trained"
    shutil.copytree(trained, other)
    assert [run["name"] for run in report(trained, other)["runs"]] == [str(trained), str(other)]
    assert read_run(trained, "name").name == "name"
