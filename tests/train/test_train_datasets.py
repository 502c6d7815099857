"""What `[data]` and `[eval]` name becomes problems: splits, columns and filters."""

import json
import warnings

import pytest

from elastic.train import TrainConfig
from elastic.train.collect.datasets import load_datasets
from tests.data.hub_copies import use_copies
from tests.train.test_train_config import tables

ROWS = [{"q": "?" * number, "truth": {"value": number}, "rate": number / 4} for number in range(1, 5)]
COLUMNS = [["prompt", "q"], ["answer", "truth.value"], ["pass_rate", "rate"]]
STEP = {"rollout": {"prompts_per_step": 1}}


def loaded(*, data, **changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_datasets(TrainConfig.from_table(tables(**STEP, **changes) | {"data": data}))


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


@pytest.mark.parametrize(
    ("keys", "answers"),
    [
        ({}, ["1", "2", "3", "4"]),
        ({"min_prompt_chars": 2, "max_prompt_chars": 3}, ["2", "3"]),
        ({"min_pass_rate": 0.3, "max_pass_rate": 0.8}, ["2", "3"]),
        ({"answer_kind": "integer", "count": 2}, ["1", "2"]),
    ],
)
def test_columns_and_filters_of_a_training_file_reach_its_data(rows, keys, answers):
    problems, evaluated = loaded(data={"source": rows, "columns": COLUMNS, **keys})
    assert [problem.answer for problem in problems] == answers
    assert evaluated == []


def test_an_evaluation_has_columns_of_its_own(rows, tmp_path):
    (tmp_path / "train.json").write_text('[{"problem": "?", "answer": 1}]')
    evaluation = {"every": 1, "source": rows, "columns": COLUMNS, "count": 2}
    problems, evaluated = loaded(data={"source": str(tmp_path / "train.json")}, eval=evaluation)
    assert [problem.answer for problem in problems] == ["1"]
    assert [problem.answer for problem in evaluated] == ["1", "2"]


def test_a_set_with_both_splits_is_trained_on_one_and_evaluated_on_the_other(tmp_path, monkeypatch):
    use_copies(monkeypatch, tmp_path)
    problems, evaluated = loaded(data={"source": "gsm8k"}, eval={"every": 1, "source": "gsm8k"})
    assert ([p.answer for p in problems], [p.answer for p in evaluated]) == (["72"], ["18"])
    problems, evaluated = loaded(data={"source": "deepscaler"}, eval={"every": 1, "source": "math500"})
    assert [problem.prompt for problem in [*problems, *evaluated]] == ["Deep?", "Convert."]
    swapped = {"eval": {"every": 1, "source": "gsm8k", "split": "train"}}
    problems, evaluated = loaded(data={"source": "gsm8k", "split": "test"}, **swapped)
    assert ([p.answer for p in problems], [p.answer for p in evaluated]) == (["18"], ["72"])


def test_the_split_of_a_generated_set_can_be_chosen():
    train, evaluated = loaded(data={"source": "tiny", "count": 2}, eval={"every": 1, "count": 2})
    assert [problem.id.split("-")[1] for problem in [*train, *evaluated]] == ["train"] * 2 + ["test"] * 2
    held, _ = loaded(data={"source": "tiny", "count": 1, "split": "validation"})
    assert held[0].id.startswith("tiny-validation")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"data": {"columns": [["promt", "q"]]}},
            r"data.columns: unknown key 'promt' \(known: prompt, ",
        ),
        ({"data": {"columns": [["prompt"]]}}, r"data.columns: must be a list of \[text, text\], got"),
        ({"eval": {"columns": [["x", "q"]]}}, "eval.columns: unknown key 'x'"),
        ({"data": {"max_pass_rate": 1.5}}, "data.max_pass_rate: must be at most 1, got 1.5"),
        (
            {"data": {"min_prompt_chars": 9, "max_prompt_chars": 3}},
            "data.min_prompt_chars: must be at most max_prompt_chars = 3, got 9",
        ),
        ({"data": {"answer_kind": "word"}}, "data.answer_kind: must be 'any' or 'integer' or 'number'"),
    ],
)
def test_bad_keys_of_the_data_are_refused_with_their_table(table, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_table(tables(**table))


@pytest.mark.parametrize("source", ["deepscaler", "owner/name", "tiny"])
def test_preflight_takes_names_without_loading_anything(source, monkeypatch):
    monkeypatch.setattr("elastic.data.loading.hub_rows", lambda *_: pytest.fail("loaded"))
    TrainConfig.from_table(tables(data={"source": source, "count": 64})).preflight()


def test_preflight_refuses_an_unknown_name_and_lists_the_known_ones():
    config = TrainConfig.from_table(tables(data={"source": "deepscalar"}))
    with pytest.raises(FileNotFoundError, match=r"data.source: data 'deepscalar' .* mean deepscaler or"):
        config.preflight()


@pytest.mark.parametrize("table", ["data", "eval"])
def test_a_set_that_is_graded_by_tests_is_refused_before_it_is_loaded(table):
    config = TrainConfig.from_table(tables(**{table: {"source": "humaneval-plus"}}))
    with pytest.raises(ValueError, match=f"{table}.source: .* 'humaneval-plus' are graded by tests"):
        config.preflight()


def test_columns_and_filters_survive_being_written():
    keys = {"columns": COLUMNS, "split": "train", "max_pass_rate": 0.5, "answer_kind": "number"}
    config = TrainConfig.from_table(tables(data={"source": "owner/name", **keys}))
    text = config.to_toml()
    assert 'columns = [["prompt", "q"], ["answer", "truth.value"], ["pass_rate", "rate"]]' in text
    assert "max_pass_rate = 0.5" in text


def test_problems_with_tests_are_refused_where_the_reward_runs_none(tmp_path):
    path = tmp_path / "code.json"
    path.write_text('[{"problem": "?", "tests": [{"input": "", "output": ""}]}]')
    with pytest.raises(ValueError, match=r"data.source: .* tests, which reward.name = 'math' does not"):
        loaded(data={"source": str(path)}, reward={"name": "math"})
    loaded(data={"source": str(path)}, reward={"name": "code"})


def test_problems_without_tests_are_refused_where_the_reward_runs_some(tmp_path):
    path = tmp_path / "math.json"
    path.write_text('[{"problem": "?", "answer": "1"}]')
    with pytest.raises(ValueError, match=r"data.source: .* have no tests, which reward.name = 'code' runs"):
        loaded(data={"source": str(path)}, reward={"name": "code"})
