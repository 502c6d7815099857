"""`elastic eval` on the embedded model: files, table, several sets, and mistakes in one line."""

import json
from pathlib import Path

import pytest

from elastic.data import load
from elastic.evaluate import read_samples
from elastic.rewards.code.run import check
from tests.rewards.sandbox.programs import needs_sandbox


@pytest.fixture
def run(elastic, tmp_path):
    def call(*arguments: object, data: object = "tiny", budgets: str = "8:24,none", out: str = "out"):
        return elastic(
            *("eval", "tiny", "--data", data, "--count", 4, "--budgets", budgets, "--out", tmp_path / out),
            *("--temperature", 1, *arguments),
        )

    return call


def file_of_problems(path: Path, **fields: object) -> Path:
    problems = load("tiny", count=5, seed=7, split="test")
    lines = (json.dumps({"prompt": p.prompt, "answer": p.answer, "id": p.id, **fields}) for p in problems)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_it_prints_the_table_and_writes_what_it_stands_on(run, tmp_path) -> None:
    outcome = run("--methods", "vanilla,separate", "--samples", 2, "--ks", "1,2")
    assert outcome.status == 0, outcome.err
    assert "8 + 24" in outcome.out
    assert "c = 32" in outcome.out
    samples = read_samples(tmp_path / "out")
    assert len(samples) == 2 * 2 * 4 * 2
    result = json.loads((tmp_path / "out/eval.json").read_text())
    assert [row["pass_at_k"].keys() for row in result["rows"]] == [{"1": 0, "2": 0}.keys()] * 4
    assert result["settings"]["sampling"]["seed"] == 0
    assert run("--methods", "vanilla,separate", "--samples", 2, "--ks", "1,2").out == outcome.out


def test_several_sets_are_named_in_every_sample(run, tmp_path) -> None:
    path = file_of_problems(tmp_path / "sums.jsonl")
    outcome = run("--methods", "separate", "--reward", "tiny", "--no-texts", data=f"tiny,{path}")
    assert outcome.status == 0, outcome.err
    samples = read_samples(tmp_path / "out")
    assert [sample.data for sample in samples[::4]] == ["tiny", "tiny", "sums", "sums"]
    assert samples[8].problem == "tiny-test-7-0"
    assert not any(sample.segments for sample in samples)


def test_vllm_is_needed_by_its_own_engine_alone(run, monkeypatch) -> None:
    monkeypatch.setattr("elastic.integrations.vllm.installed.find_spec", lambda name: None)
    outcome = run("--methods", "separate", "--engine", "vllm")
    assert outcome.status == 2
    assert (
        "error: --engine: vllm is not installed; install it with: pip install 'elastic[vllm]'" in outcome.err
    )


def test_vllm_refuses_an_adapters_directory(elastic, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("elastic.commands.eval.require_vllm", lambda: None)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text('{"base_model_name_or_path": "tiny"}')
    settings = ("--methods", "separate", "--budgets", "8:24", "--engine", "vllm", "--out", tmp_path / "out")
    outcome = elastic("eval", tmp_path / "adapter", "--data", "tiny", "--count", 4, *settings)
    assert outcome.status == 2
    assert "holds an adapter, and a whole model is needed here: save the merged one" in outcome.err


def test_the_other_engine_gives_the_same_rows(run, tmp_path) -> None:
    for name in ("own", "hf"):
        assert run("--methods", "separate", "--engine", name, out=name).status == 0
    own, hf = (json.loads((tmp_path / name / "eval.json").read_text()) for name in ("own", "hf"))
    assert own["rows"] == hf["rows"]


def test_problems_that_were_trained_on_are_counted_in_a_warning(run, tmp_path) -> None:
    path = file_of_problems(tmp_path / "sums.jsonl")
    outcome = run("--methods", "separate", "--reward", "tiny", "--trained-on", path, data=path)
    assert outcome.status == 0
    assert "elastic: warning: --data: 4 of 4 problems of" in outcome.err
    outcome = run("--methods", "separate", "--trained-on", path, out="other")
    assert "warning" not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "e2"), "method: expected one of vanilla, s1, "),
        (("--methods", "separate,"), "argument --methods: expected different names, commas"),
        (("--methods", "s1,s1"), "argument --methods: expected different names, commas between them, got"),
        (("--methods", "s1", "--grace", 2), "--grace: has no effect on s1; it is read by separate, "),
        (("--methods", "separate", "--max-extensions", 2), "--max-extensions: has no effect on separate; it"),
        (("--methods", "s1", "--extension", "so"), "--extension: has no effect without --max-extensions"),
        (("--methods", "separate", "--temperature", 0, "--top-p", 0.9), "--top-p: has no effect: --temp"),
        (("--methods", "separate", "--notice", "x"), "argument --notice: expected TOKENS:TEXT, got 'x'"),
        (("--methods", "separate", "--ks", "2"), "--ks: expected 1 .. --samples 1, got 2"),
        (("--methods", "separate", "--engine", "sglang"), "--engine: expected one of own, hf, vllm, got"),
        (("--methods", "separate", "--samples", 0), "--samples: expected 1 or more, got 0"),
        (
            ("--methods", "separate", "--reward", "maths"),
            "--reward: expected one of math, tiny, code, got 'm",
        ),
        (
            ("--methods", "separate", "--reward", "code"),
            "--reward: 'code' runs tests, and problems of 'tiny'",
        ),
        (("--methods", "separate", "--memory-mb", 9), "--memory-mb 9: has no effect: no problem here"),
        (("--methods", "separate", "--no-sandbox"), "--no-sandbox: has no effect: no problem here is graded"),
        (("--methods", "separate", "--timeout-s", 0), "--timeout-s: must be above 0, got 0"),
        (("--methods", "separate", "--system", "Be brief."), "--system: needs questions and a chat template"),
        (("--methods", "separate", "--closing", "qwen3"), "tiny, separate: --closing: "),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(run, tmp_path, arguments, message) -> None:
    outcome = run(*arguments)
    assert outcome.status == 2
    assert not outcome.out
    *_, line = outcome.err.splitlines()
    assert line.startswith(f"elastic: error: {message}"), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": "8"}, "--budgets: expected THINKING:SOLUTION or none, got '8'"),
        ({"budgets": "8:4096"}, "tiny, separate: prompt 1: "),
        ({"data": "tinny"}, "data 'tinny' is neither a file"),
    ],
)
def test_bad_budgets_and_data_are_named(run, changes, message) -> None:
    outcome = run("--methods", "separate", **changes)
    assert outcome.status == 2
    assert message in outcome.err


def test_another_call_into_the_folder_is_refused_naming_what_differs(run) -> None:
    assert run("--methods", "separate").status == 0
    outcome = run("--methods", "separate", "--seed", 1)
    assert outcome.status == 2
    assert "--out: " in outcome.err
    assert "sampling.seed: 0, 1" in outcome.err
    outcome = run("--methods", "separate", "--end", "ok")
    assert "tokens.ends: [], [[[" in outcome.err


@needs_sandbox
def test_programs_are_graded_by_their_tests_and_counted_in_pass_at_k(run, tmp_path) -> None:
    path = file_of_problems(tmp_path / "programs.jsonl", tests=[{"input": "1", "output": "2"}])
    outcome = run("--methods", "separate", "--samples", 2, "--ks", "1,2", "--timeout-s", 2, data=path)
    assert outcome.status == 0, outcome.err
    result = json.loads((tmp_path / "out/eval.json").read_text())
    assert [row["pass_at_k"] for row in result["rows"]] == [{"1": 0.0, "2": 0.0}] * 2  # it writes no programs
    assert result["settings"]["data"][0]["reward"] == "code_reward(2 s, 1024 MiB)"


def test_programs_without_a_sandbox_are_refused_before_a_model_is_loaded(run, tmp_path, monkeypatch) -> None:
    check.cache_clear()
    monkeypatch.setattr("elastic.rewards.sandbox.available.ENVIRONMENT", {"PATH": "/nowhere"})
    monkeypatch.setattr("elastic.commands.eval.load_model", lambda *_, **__: pytest.fail("loaded"))
    path = file_of_problems(tmp_path / "programs.jsonl", tests=[{"input": "1", "output": "2"}])
    outcome = run("--methods", "separate", data=path)
    assert outcome.status == 2
    assert outcome.err.startswith("elastic: error: --reward: 'code' cannot be given: ")
    assert "apt install bubblewrap" in outcome.err
    assert "--no-sandbox" in outcome.err
