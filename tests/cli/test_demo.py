"""The demo in a very small configuration: files, shape, determinism, and going on after a kill."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from elastic.demo import DemoConfig, run
from elastic.demo.state import DemoState
from elastic.evaluate import Row, verdict

CONFIG = DemoConfig(
    thinking=20,
    solution=12,
    thinking_budgets=(0, 10, 20),
    problems=8,
    steps=2,
    prompts_per_step=4,
    samples_per_prompt=4,
    save_every=1,
)
ROW_KEYS = {
    *("method", "thinking", "solution", "total", "problems", "accuracy", "low", "high"),
    *("tokens", "thinking_tokens", "solution_tokens", "cut"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a whole small demo."""
    out = tmp_path_factory.mktemp("demo")
    run(CONFIG, out)
    return out


def result(out: Path) -> dict:
    return json.loads((out / "demo.json").read_text())


def comparable(out: Path) -> dict:
    return {key: value for key, value in result(out).items() if key not in ("wall_seconds", "resumed")}


def test_the_demo_writes_its_three_files_and_the_run(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {"demo.json", "demo.png", "traces.txt", "e1"}
    assert (finished / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert (finished / "e1" / "final" / "config.json").is_file()


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
        for method in ("vanilla", "separate", "e1")
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
    assert content["verdict"] == json.loads(json.dumps(verdict(rows, 20).to_dict()))
    assert [gain["thinking"] for gain in content["verdict"]["gains"]] == [10, 20]


def test_three_problems_are_traced_before_and_after(finished: Path) -> None:
    text = (finished / "traces.txt").read_text()
    assert text.count("--- before, untrained: ") == text.count("--- after, E1: ") == 3
    assert text.count("[forced]") >= 2
    for label in ("[thinking]", "[solution]", "t = 10, s = 12", "t = 20, s = 12", "no budget"):
        assert label in text


def test_the_same_seed_gives_the_same_demo(finished: Path, tmp_path: Path) -> None:
    run(CONFIG, tmp_path)
    assert comparable(tmp_path) == comparable(finished)
    for name in ("demo.png", "traces.txt", "e1/final/model.safetensors"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes(), name


@pytest.mark.parametrize("rows_before_the_kill", [1, 8, 10])
def test_a_demo_that_was_stopped_goes_on_and_ends_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_before_the_kill: int
) -> None:
    class Killed(BaseException):
        """Nothing catches it, as nothing catches SIGKILL."""

    add = DemoState.add

    def add_and_die(self: DemoState, row: Row) -> None:
        add(self, row)
        if len(self.rows) == rows_before_the_kill:
            raise Killed

    monkeypatch.setattr(DemoState, "add", add_and_die)
    with pytest.raises(Killed):
        run(CONFIG, tmp_path)
    assert not (tmp_path / "demo.json").exists()
    monkeypatch.setattr(DemoState, "add", add)
    run(CONFIG, tmp_path)
    assert result(tmp_path)["resumed"]
    assert comparable(tmp_path) == comparable(finished)
    assert {path.name for path in tmp_path.iterdir()} == {"demo.json", "demo.png", "traces.txt", "e1"}


def test_a_finished_demo_is_shown_and_not_run_again(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elastic.demo.story.Trainer", None)
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
    monkeypatch.setattr("elastic.demo.DemoConfig", lambda seed: replace(CONFIG, seed=seed))
    outcome = elastic("demo", "--out", tmp_path / "out", "--seed", 3)
    assert outcome.status == 0
    assert result(tmp_path / "out")["seed"] == 3
    assert outcome.out.count("95 % interval") == 1
    assert "Without budgets: accuracy" in outcome.out
    for stage in ("1/4", "2/4", "3/4", "4/4"):
        assert stage in outcome.err
