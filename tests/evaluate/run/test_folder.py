"""The folder of an evaluation: what it refuses, and what it says when it is left."""

import json
from dataclasses import replace

import pytest

from elastic.data import Problem
from elastic.evaluate import EvalSet, evaluate, read_samples
from elastic.evaluate.run import evaluate as harness
from elastic.sampling import Sampling

PROBLEMS = [Problem("a b", "yes"), Problem("a b c d", "yes"), Problem("a b c d e f", "yes")]


@pytest.fixture
def run(engine, graded, tmp_path):
    def call(methods=("separate",), budgets="4:8,1:3", problems=PROBLEMS, **changes):
        arguments = {"sampling": Sampling(1.0, seed=3), "out": tmp_path / "out", "chunk_rows": 2} | changes
        return evaluate(engine, EvalSet("set", problems, graded), methods, budgets, **arguments)

    return call


def test_it_holds_samples_settings_and_a_result_with_rows(run, tmp_path) -> None:
    samples = run(methods=("separate", "vanilla"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "samples.jsonl",
        "problems.jsonl",
        "settings.json",
        "eval.json",
    }
    found = read_samples(tmp_path / "out")
    assert [replace(sample, segments=()) for sample in found] == samples
    assert all(sample.segments for sample in found)
    result = json.loads((tmp_path / "out/eval.json").read_text())
    assert [(row["method"], row["thinking"], row["total"]) for row in result["rows"]] == [
        *(("separate", 4, None), ("vanilla", None, 12), ("separate", 1, None), ("vanilla", None, 4)),
    ]
    assert [(c["of"], c["against"]) for c in result["comparisons"]] == [("vanilla", "separate")]
    assert result["settings"] == json.loads((tmp_path / "out/settings.json").read_text())
    assert {"model", "versions", "wall_seconds"} <= result.keys()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"methods": ["e1"]}, r"methods\.0: 'separate', 'e1'"),
        ({"budgets": "4:8"}, "budgets: "),
        ({"samples": 2}, "samples: 1, 2"),
        ({"sampling": Sampling(1.0, seed=4)}, r"sampling\.seed: 3, 4"),
        ({"sampling": Sampling(0.6, seed=3)}, r"sampling\.temperature: 1\.0, 0\.6"),
        ({"chunk_rows": 3}, "chunk_rows: 2, 3"),
        ({"problems": PROBLEMS[:2]}, r"data\.0\.problems: 3, 2"),
        ({"problems": [*PROBLEMS[:2], Problem("a b c d e f", "no")]}, r"data\.0\.answers_sha256: "),
        ({"texts": False}, "texts: True, False"),
    ],
)
def test_other_settings_are_refused_naming_what_differs(run, engine, changes, named) -> None:
    run()
    engine.calls.clear()
    with pytest.raises(ValueError, match=f"out: .* holds an evaluation with other settings .*{named}"):
        run(**changes)
    assert not engine.calls


def test_the_same_settings_decode_nothing_again_and_give_the_same(run, engine, tmp_path) -> None:
    first, before = run(), (tmp_path / "out/eval.json").read_text()
    engine.calls.clear()
    assert run() == first
    assert not engine.calls
    assert (tmp_path / "out/eval.json").read_text() == before


def test_a_second_run_in_the_same_folder_is_refused(run, engine, monkeypatch) -> None:
    answer, refused = harness.answer, []

    def meanwhile(*arguments, **named):
        if not refused:
            refused.append(1)
            with pytest.raises(ValueError, match="out: another run is writing into"):
                run()
        return answer(*arguments, **named)

    monkeypatch.setattr(harness, "answer", meanwhile)
    assert len(run()) == 6
    assert refused


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_run_that_is_broken_off_says_that_it_can_go_on(run, monkeypatch, capsys, error) -> None:
    answer, calls = harness.answer, []

    def failing(*arguments, **named):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return answer(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(harness, "answer", failing)
        with pytest.raises(error):
            run()
    assert "3 of 6 answers are in" in capsys.readouterr().err
    assert len(run()) == 6
    assert "going on with" in capsys.readouterr().err


def test_a_run_goes_on_with_fewer_rows_at_a_time(run, engine, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(engine, "max_rows", 1, raising=False)
    first = run(chunk_rows=None)
    lines = (tmp_path / "out/samples.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out/samples.jsonl").write_text("".join(lines[:4]))
    engine.calls.clear()
    monkeypatch.setattr(engine, "max_rows", 2, raising=False)
    assert run(chunk_rows=None) == first
    assert [len(prompts) for prompts, *_ in engine.calls] == [3]


def test_a_folder_of_something_else_is_left_alone(run, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/samples.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"holds samples or results, but no settings\.json"):
        run()
    assert (tmp_path / "out/samples.jsonl").read_text() == "{}\n"


def test_out_must_not_be_a_file(run, tmp_path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match="out: expected a folder"):
        run()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: no sample"),
        ('{"data": "set"}', "line 2: no sample"),
        (None, "line 2: expected the sample"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(run, tmp_path, line, message) -> None:
    run()
    path = tmp_path / "out/samples.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = lines[2] if line is None else line
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=message):
        run()
