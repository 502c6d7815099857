"""The demo in a very small configuration: files, shape, determinism, and going on after a kill."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from elastic.commands.demo import DemoConfig, run
from elastic.commands.demo.config import METHODS, PART, to_json
from elastic.commands.demo.state import DemoState
from elastic.commands.demo.verdict import verdict
from elastic.commands.parts import processes
from elastic.evaluate import Row
from elastic.models import tiny
from elastic.train import TrainConfig
from tests.commands.pages import payload_of

CONFIG = DemoConfig(
    thinking=20,
    solution=12,
    thinking_budgets=(0, 10, 20),
    problems=4,
    steps=2,
    prompts_per_step=4,
    samples_per_prompt=4,
    save_every=1,
)
ROW_KEYS = {
    *("method", "thinking", "solution", "total", "problems", "accuracy", "low", "high"),
    "accuracy_cut",
    *("tokens", "thinking_tokens", "solution_tokens", "cut"),
    *("data", "samples", "ungraded", "answered", "pass_at_k"),
    *("solution_tokens_cut", "solution_tokens_whole", "leakage"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a whole small demo."""
    out = tmp_path_factory.mktemp("demo")
    run(CONFIG, out, processes=1)
    return out


def result(out: Path) -> dict:
    return json.loads((out / "demo.json").read_text())


def comparable(out: Path) -> dict:
    return {key: value for key, value in result(out).items() if key not in ("wall_seconds", "resumed")}


FILES = {"demo.json", "demo.png", "traces.txt", "report.html", "problems.jsonl", "samples", "e1", "capped"}


def test_the_demo_writes_its_three_files_and_both_trainings(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == FILES
    assert (finished / "demo.png").read_bytes().startswith(b"\x89PNG")
    for method in ("e1", "capped"):
        assert (finished / method / "final" / "config.json").is_file()


def test_the_demo_ends_with_a_report_and_its_path(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished / "report.html").unlink()
    run(CONFIG, finished)  # a finished one shows its results again
    assert str(finished / "report.html") in capsys.readouterr().err.splitlines()[-1]
    shown = payload_of(finished / "report.html")
    arms = [arm["id"].rpartition("/")[2] for arm in shown["traces"]["arms"]]
    assert arms == ["separate", "vanilla", "capped", "e1"]
    assert {problem["id"] for problem in shown["traces"]["problems"]} == {
        problem.id for problem in CONFIG.test_problems()
    }
    assert all(len(problem["answers"]) == len(arms) for problem in shown["traces"]["problems"])
    assert [budget["label"] for budget in shown["traces"]["budgets"]] == [
        "0 + 12",
        "10 + 12",
        "20 + 12",
        "none",
    ]
    assert len(shown["table"]["rows"]) == len(result(finished)["rows"])
    assert {line["run"] for line in shown["training"]} == {
        "E1: trained under budgets",
        "control: trained under one hard cap",
    }


def test_the_control_is_trained_as_e1_is_but_for_what_ends_a_rollout() -> None:
    e1, capped = (CONFIG.training(method, Path("x")) for method in ("e1", "capped"))
    assert replace(capped, budget=e1.budget, method="e1") == e1
    assert (e1.budget.thinking, e1.budget.solution, e1.budget.total) == (20, 12, None)
    assert (capped.budget.thinking, capped.budget.solution, capped.budget.total) == (
        *("unlimited", "unlimited"),
        32,
    )


def test_training_and_evaluation_share_neither_seed_nor_problem() -> None:
    config = DemoConfig(seed=3)
    training = config.training("e1", Path("x"))
    assert config.test_seed not in (training.data.seed, training.train.seed)
    trained = {problem.prompt for problem in tiny.problems(960, 3)}
    assert not trained & {problem.prompt for problem in config.test_problems()}
    assert not trained & {p.prompt for p in replace(config, split="validation").test_problems()}


def test_the_example_trains_what_the_demo_trains() -> None:
    example = TrainConfig.load(Path(__file__).parents[2] / "examples" / "tiny.toml")
    demo = DemoConfig().training("e1", Path("x"))
    for table in ("model", "reward", "budget", "rollout", "optim", "loss"):
        assert getattr(example, table) == getattr(demo, table), table
    assert example.train.steps == demo.train.steps


def test_demo_json_has_the_keys_of_the_public_interface(finished: Path) -> None:
    content = result(finished)
    assert {"seed", "wall_seconds", "versions", "rows"} <= set(content)
    assert content["seed"] == 0
    assert content["wall_seconds"] > 0
    assert all(set(row) == ROW_KEYS for row in content["rows"])


def test_every_method_is_evaluated_at_every_budget_and_without_any(finished: Path) -> None:
    rows = [Row(**row) for row in result(finished)["rows"]]
    found = {(row.method, row.allowance) for row in rows}
    assert len(rows) == len(found)
    assert found == {
        (method, allowance)
        for method in ("vanilla", "separate", "capped", "e1")
        for allowance in (0 + 12, 10 + 12, 20 + 12, math.inf)
    }


def test_vanilla_has_no_phase_budgets_but_the_same_totals(finished: Path) -> None:
    rows = [Row(**row) for row in result(finished)["rows"] if row["method"] == "vanilla"]
    assert [(row.thinking, row.solution, row.total) for row in rows] == [
        (None, None, 12),
        (None, None, 22),
        (None, None, 32),
        (None, None, None),
    ]


def test_budgets_hold_in_every_row(finished: Path) -> None:
    for row in (Row(**row) for row in result(finished)["rows"]):
        if row.thinking is not None and row.solution is not None:
            assert row.thinking_tokens <= row.thinking
            assert row.solution_tokens <= row.solution
        # One cap, over what was sampled; the end marker is not counted by it.
        if row.total is not None:
            assert row.thinking_tokens + row.solution_tokens <= row.total


def test_the_verdict_follows_from_the_rows(finished: Path) -> None:
    content = result(finished)
    rows = [Row(**row) for row in content["rows"]]
    assert content["verdict"] == json.loads(json.dumps(verdict(rows).to_dict()))
    compared = [(item["against"], item["thinking"]) for item in content["verdict"]["comparisons"]]
    assert compared == [(other, t) for other in ("separate", "capped") for t in (0, 10, 20, None)]


def test_rows_without_a_cut_thought_have_no_accuracy_on_cut_ones(finished: Path) -> None:
    for row in (Row(**row) for row in result(finished)["rows"]):
        assert (row.accuracy_cut is None) == (row.cut == 0)


def test_three_problems_are_traced_in_all_three_models(finished: Path) -> None:
    text = (finished / "traces.txt").read_text()
    for heading in ("untrained", "control, one cap", "E1"):
        assert text.count(f"--- {heading}: ") == 3
    assert text.count("[forced]") >= 2
    for label in ("[thinking]", "[solution]", "t = 10, s = 12", "t = 20, s = 12", "no budget"):
        assert label in text


def test_two_processes_give_the_same_demo_as_one(finished: Path, tmp_path: Path) -> None:
    run(CONFIG, tmp_path, processes=2)
    assert comparable(tmp_path) == comparable(finished)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    for name in ("demo.png", "traces.txt", "e1/final/model.safetensors", "capped/final/model.safetensors"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes(), name


@pytest.mark.parametrize("rows_before_the_kill", [1, 7, 16])
def test_a_demo_that_was_stopped_goes_on_and_ends_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_before_the_kill: int
) -> None:
    class Killed(BaseException):
        """Nothing catches it, as nothing catches SIGKILL."""

    add = DemoState.add

    def add_and_die(self: DemoState, row: Row) -> None:
        add(self, row)
        if sum(len(self.rows(method)) for method in METHODS) == rows_before_the_kill:
            raise Killed

    monkeypatch.setattr(DemoState, "add", add_and_die)
    with pytest.raises(Killed):
        run(CONFIG, tmp_path, processes=1)
    assert not (tmp_path / "demo.json").exists()
    monkeypatch.setattr(DemoState, "add", add)
    run(CONFIG, tmp_path, processes=1)
    assert result(tmp_path)["resumed"]
    assert comparable(tmp_path) == comparable(finished)
    assert {path.name for path in tmp_path.iterdir()} == FILES


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], object]) -> None:
    """Waits for something that comes in seconds; on a busy machine in a minute."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_no_process_outlives_a_killed_demo(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from elastic.commands.demo.config import from_json; "
        "from elastic.commands.demo import run; run(from_json(sys.argv[1]), Path(sys.argv[2]), processes=2)"
    )
    long = replace(CONFIG, steps=100_000)
    command = [sys.executable, "-c", code, to_json(long), str(tmp_path)]
    demo = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(children(demo.pid)) == 2)
        started = children(demo.pid)
    finally:
        os.kill(demo.pid, signal.SIGKILL)
        demo.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in started))


def test_a_process_that_fails_ends_the_others_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(part: str, module: str, out: Path, settings: str) -> "subprocess.Popen[bytes]":
        code = "raise SystemExit(7)" if part == "capped" else "import time; time.sleep(600)"
        started.append(subprocess.Popen([sys.executable, "-c", code]))
        return started[-1]

    monkeypatch.setattr(processes, "_start", start)
    with pytest.raises(RuntimeError, match="process of capped ended with status 7"):
        processes.run_parts(("e1", "capped", "separate"), PART, tmp_path, to_json(CONFIG), 2)
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_zero_processes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="processes must be at least 1, got 0"):
        run(CONFIG, tmp_path, processes=0)


def test_a_finished_demo_is_shown_and_not_run_again(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elastic.commands.demo.story.run_parts", None)
    before = (finished / "demo.json").read_bytes()
    run(CONFIG, finished)
    captured = capsys.readouterr()
    assert "finished before" in captured.err
    assert "10 + 12" in captured.out
    assert (finished / "demo.json").read_bytes() == before


def test_a_directory_with_another_demo_is_refused(finished: Path) -> None:
    with pytest.raises(ValueError, match="holds a demo with another seed, steps"):
        run(replace(CONFIG, seed=1, steps=3), finished)


def test_a_directory_with_a_foreign_demo_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("[]")
    with pytest.raises(ValueError, match="was not written by this demo"):
        run(CONFIG, tmp_path)


def test_the_command_runs_the_demo_and_prints_one_table(
    elastic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elastic.commands.demo.DemoConfig", lambda seed: replace(CONFIG, seed=seed))
    monkeypatch.setattr("elastic.commands.demo.story.available_cores", lambda: 1)
    outcome = elastic("demo", "--out", tmp_path / "out", "--seed", 3)
    assert outcome.status == 0
    assert result(tmp_path / "out")["seed"] == 3
    assert outcome.out.count("95 % interval ") == 1
    assert "e1 against capped" in outcome.out
    for stage in ("1/2", "2/2"):
        assert stage in outcome.err
