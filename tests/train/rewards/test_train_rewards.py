"""Reward functions of one's own in a run: sums, metrics, samples, evaluations, columns, failures."""

import json
import math
from dataclasses import replace

import pytest

from elastic.data import Problem
from elastic.models import tiny
from elastic.models.tiny import problems
from elastic.rollout import RolloutBatch
from elastic.train import TrainConfig
from elastic.train.collect.datasets import load_datasets
from elastic.train.collect.rewards import rewards_of
from elastic.train.config.reward import RewardConfig
from tests.train.tiny_run import build_config, lines, nines, run

FILE = """
import re

def brevity(sample):
    return None if sample.completion_ids[0] % 3 == 0 else -sample.solution_tokens / 10

def ground_truth_reward(completions, ground_truth, **kwargs):
    # As in TRL's documentation, which knows nothing of this package.
    contents = [re.sub("<.*?>", "", text) for text in completions]
    return [1.0 if truth in text else 0.0 for text, truth in zip(contents, ground_truth)]

async def judge(sample):
    return len(sample.group) + sample.columns.get("level", 0)

def right(response, reference):
    return float(reference in response.split())
"""
ALL = {"logging": {"samples_every": 1, "samples": 16}}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rewards.py"
    path.write_text(FILE)
    return str(path)


def without_name(config):
    """The configuration as a file gives it that does not say which reward is the correct one."""
    table = config.to_dict()
    del table["reward"]["name"]
    return TrainConfig.from_table(table)


def given(values):
    return [value for value in values if value is not None]


def mean(values):
    return sum(values) / len(values)


def std(values):
    return math.sqrt(sum((value - mean(values)) ** 2 for value in values) / (len(values) - 1))


def test_a_run_is_rewarded_by_the_weighted_sum_and_shows_each_function(tmp_path, file):
    reward = {"functions": ["tiny", f"{file}:brevity", f"{file}:judge"], "weights": [1.0, 0.5, 0.25]}
    config = build_config(tmp_path / "run", reward=reward, train={"steps": 2}, **ALL)
    assert rewards_of(config.reward).names == ("tiny", "brevity", "judge")
    run(config, reward=None)
    samples, metrics = lines(tmp_path / "run/samples.jsonl"), lines(tmp_path / "run/metrics.jsonl")
    assert len(samples) == 32
    for sample in samples:
        parts = sample["rewards"]
        assert parts["judge"] == 4
        assert parts["brevity"] in (None, -sample["solution_tokens"] / 10)
        expected = parts["tiny"] + 0.5 * (parts["brevity"] or 0) + 0.25 * parts["judge"]
        assert sample["reward"] == pytest.approx(expected)
    assert {sample["rewards"]["brevity"] is None for sample in samples} == {True, False}
    for step, record in enumerate(metrics):
        rows = [sample["rewards"] for sample in samples if sample["step"] == step + 1]
        brevity = [row["brevity"] for row in rows]
        assert record["reward/brevity/none_share"] == pytest.approx(brevity.count(None) / 16)
        assert record["reward/brevity/mean"] == pytest.approx(mean(given(brevity)))
        assert record["reward/brevity/std"] == pytest.approx(std(given(brevity)), abs=1e-6)
        assert record["accuracy"] == record["reward/tiny/mean"] == mean([row["tiny"] for row in rows])
        assert record["reward/judge/std"] == 0
        assert record["reward/judge/seconds"] > 0
        assert record["skipped_rows"] == 0


def test_one_plain_reward_is_shown_by_the_reward_itself(tmp_path):
    run(build_config(tmp_path, train={"steps": 1}, **ALL))
    (record,) = lines(tmp_path / "metrics.jsonl")
    assert not [name for name in record if name.startswith("reward/")]
    assert "rewards" not in lines(tmp_path / "samples.jsonl")[0]


def test_evaluations_go_by_the_correct_reward_alone(tmp_path, file):
    called = []

    def counted(samples):
        called.append(len(samples))
        return [7.0] * len(samples)

    tables = {"train": {"steps": 1}, "eval": {"every": 1, "count": 4}, "budget": {"thinking": 9}}
    config = without_name(build_config(tmp_path, **tables))
    run(config, reward=[counted, nines], eval_dataset=problems(4, split="test"))
    first, step, _ = lines(tmp_path / "metrics.jsonl")
    assert called == [16]
    assert step["reward"] == pytest.approx(step["accuracy"] + 7, abs=1e-5)
    assert 0 <= first["eval/t9_s5/accuracy"] <= 1
    assert step["reward/nines/mean"] == pytest.approx(step["accuracy"])


def test_without_a_correct_reward_there_is_no_accuracy_and_no_evaluation(tmp_path, file):
    functions = {"functions": [f"{file}:judge"]}
    config = build_config(tmp_path / "run", reward={"name": "none"} | functions, train={"steps": 1})
    run(config, reward=None)
    (record,) = lines(tmp_path / "run/metrics.jsonl")
    assert "accuracy" not in record
    assert record["reward"] == 4
    with pytest.raises(ValueError, match=r"reward.name: eval.every needs a reward that says what is correct"):
        build_config(tmp_path, reward={"name": "none"} | functions, eval={"every": 1})
    lists = without_name(build_config(tmp_path / "other", train={"steps": 1}, eval={"every": 1}))
    with pytest.raises(ValueError, match=r"reward: eval.every needs one that says what is correct"):
        run(lists, reward=[lambda sample: 1.0], eval_dataset=problems(4, split="test"))


def test_accuracy_can_be_watched_without_being_paid(tmp_path, file):
    reward = {"name": f"{file}:right", "functions": [f"{file}:judge"]}
    config = build_config(tmp_path / "run", reward=reward, train={"steps": 1})
    run(config, reward=None)
    (record,) = lines(tmp_path / "run/metrics.jsonl")
    assert record["reward"] == 4
    assert 0 <= record["accuracy"] < 1
    assert not [name for name in record if name.startswith("reward/right")]


def test_columns_that_functions_ask_for_come_from_the_data(tmp_path, file):
    rows = [
        {"question": f"{n} + 1 = ?", "answer": n + 1, "ground_truth": str(n + 1), "extra": {"level": n / 2}}
        for n in range(6)
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row | {"unread": "x" * 999}) + "\n" for row in rows))
    config = build_config(
        tmp_path / "run",
        data={"source": str(source), "count": 6, "keep_columns": ["extra.level"], "chat": "off"},
        reward={"name": "none", "functions": [f"{file}:ground_truth_reward", f"{file}:judge"]},
        train={"steps": 1},
        **ALL,
    )
    dataset, _ = load_datasets(config)
    assert [p.columns for p in dataset] == [{"level": n / 2, "ground_truth": str(n + 1)} for n in range(6)]
    dataset = [replace(problem, prompt=f"<bos> {problem.prompt} <think>") for problem in dataset]
    run(config, reward=None, dataset=dataset)
    for sample in lines(tmp_path / "run/samples.jsonl"):
        assert sample["rewards"]["judge"] == 4 + (int(sample["answer"]) - 1) / 2
        said = sample["answer"] in (sample["thinking"] + sample["solution"])
        assert sample["rewards"]["ground_truth_reward"] == float(said)
    source.write_text(json.dumps({"question": "1 + 1 = ?", "answer": 2}) + "\n")
    with pytest.raises(ValueError, match=r"line 1: has no field 'extra.level', it has only"):
        load_datasets(config)


def test_kept_columns_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data.keep_columns: level and extra.level would both be called"):
        build_config(tmp_path, data={"keep_columns": ["level", "extra.level"]})


def test_a_run_is_not_resumed_with_other_columns(tmp_path):
    dataset = [replace(problem, columns={"level": 1}) for problem in problems(12)]
    config = build_config(tmp_path, train={"steps": 1, "save_every": 1})
    run(config, dataset=dataset)
    changed = [*dataset[:-1], replace(dataset[-1], columns={"level": 2})]
    more = build_config(tmp_path, train={"steps": 2, "save_every": 1})
    with pytest.raises(ValueError, match=r"training problems \(column 'level'\)"):
        run(more, dataset=changed)
    run(more, dataset=dataset)


def test_functions_that_change_by_consent_may_ask_for_other_columns(tmp_path):
    run(build_config(tmp_path, train={"steps": 1, "save_every": 1}), reward=[lambda_named("a")])
    dataset = [replace(problem, columns={"level": 1}) for problem in problems(12)]
    more = {"steps": 2, "save_every": 1, "allow_changes": ["reward.*"]}

    def levels(completions, level):
        return level

    run(build_config(tmp_path, train=more), reward=[levels], dataset=dataset)


def test_a_failing_function_leaves_its_batch_and_is_named(tmp_path):
    def broken(sample):
        return sample.columns["level"]

    dataset = [Problem(p.prompt, p.answer, p.id) for p in problems(12)]
    said = r"reward function 'broken', row 0 \(problem 'tiny-train-0-\d+'\): KeyError\('level'\)"
    with pytest.raises(RuntimeError, match=said):
        run(build_config(tmp_path), reward=[broken], dataset=dataset)
    (saved,) = (tmp_path / "failed").iterdir()
    assert len(RolloutBatch.load(saved)) == 16


def test_a_list_takes_names_of_built_in_rewards_and_knows_the_correct_one():
    rewards = rewards_of(RewardConfig(), [lambda_named("a"), "tiny", nines])
    assert rewards.names == ("a", "tiny", "nines")
    assert rewards.correct.call is tiny.reward
    assert rewards_of(RewardConfig(), [lambda_named("a")]).correct is None
    named = RewardConfig.from_table({"name": "tests.train.tiny_run:nines"})
    assert rewards_of(named, ["tiny", nines]).correct.call is nines
    unpaid = rewards_of(named, ["tiny"])
    assert (unpaid.correct.call, unpaid.paid) == (nines, None)
    with pytest.raises(ValueError, match="reward: two functions are called 'nines'"):
        rewards_of(RewardConfig(), [nines, nines])
    with pytest.raises(ValueError, match=r"unknown reward 'mth' \(known: math, tiny, code, overlong\)"):
        rewards_of(RewardConfig(), ["mth"])
    with pytest.raises(ValueError, match=r"reward.functions: names functions, but the Trainer was given"):
        rewards_of(RewardConfig(functions=("tiny",)), nines)


def lambda_named(name):
    def function(sample):
        return 1.0

    function.__name__ = name
    return function


def test_a_length_is_paid_on_the_correct_reward_among_others(tmp_path, file):
    reward = {
        "functions": [f"{file}:judge", "tiny"],
        "length": "l1-exact",
        "alpha": 0.125,
        "target_min": 3,
        "target_max": 3,
    }
    config = build_config(tmp_path / "run", reward=reward, train={"steps": 1}, **ALL)
    run(config, reward=None)
    for sample in lines(tmp_path / "run/samples.jsonl"):
        used = sample["thinking_tokens"] + sample["solution_tokens"]
        assert sample["reward"] == pytest.approx(4 + sample["rewards"]["tiny"])
        assert sample["rewards"]["tiny"] + 0.125 * abs(3 - used) in (0.0, 1.0)


def test_overlong_punishes_the_last_tokens_of_a_row(tmp_path):
    reward = {"functions": ["tiny", "overlong"], "overlong_cache": 4}
    config = build_config(tmp_path, reward=reward, train={"steps": 1}, **ALL)
    assert config.reward.overlong_tokens == 11  # 6 + 5
    run(config, reward=None)
    for sample in lines(tmp_path / "samples.jsonl"):
        used = sample["thinking_tokens"] + sample["solution_tokens"]
        assert sample["rewards"]["overlong"] == {8: -0.25, 9: -0.5, 10: -0.75, 11: -1.0}.get(used, 0.0)


@pytest.mark.parametrize(
    "tables",
    [
        {"rollout": {"dynamic_sampling": True}},
        {"budget": {"cuts": [2, 4], "cut_samples": 2, "thinking": 4}},
    ],
    ids=["dynamic sampling", "cuts"],
)
def test_functions_reward_every_kind_of_step(tmp_path, tables):
    def thought(sample):
        return None if sample.row % 3 == 0 else sample.thinking_tokens / 10

    config = build_config(tmp_path, train={"steps": 2}, reward={"weights": [2.0]}, **tables, **ALL)
    trainer = run(config, reward=thought)
    collected = trainer._collector.collect(0, 0)
    parts = collected.parts["thought"]
    assert collected.rewards.tolist() == pytest.approx((2 * parts).tolist(), nan_ok=True)
    assert parts.isnan().any()
    assert len(parts) == len(collected.batch)
    assert collected.metrics["reward/thought/mean"] == pytest.approx(parts.nanmean().item())


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            {"name": "maths"},
            r"reward.name: must be one of math, tiny, code, none or an import path .*'maths'",
        ),
        (
            {"functions": ["brevity"]},
            r"reward.functions: must be of math, tiny, code, overlong or import paths",
        ),
        ({"functions": ["a:f", "b:f"]}, "reward.functions: two are called 'f'"),
        ({"functions": ["tiny", "tiny"]}, "reward.functions: two are called 'tiny'"),
        ({"functions": ["a:f"], "weights": [1.0, 2.0]}, r"reward.weights: must be 1 numbers.*\[1.0, 2.0\]"),
        ({"functions": ["overlong"]}, "reward.overlong_cache: 'overlong' needs it"),
        (
            {"functions": ["overlong"], "overlong_cache": 12},
            "overlong_cache: must be at most .* = 11, got 12",
        ),
        ({"name": "none"}, "reward.functions: reward.name = 'none' needs some"),
        (
            {"name": "tiny", "functions": ["a:f"], "length": "l1-max"},
            "reward.length: 'l1-max' is paid on the",
        ),
        ({"functions": ["a:f"], "async_timeout_s": 0}, "reward.async_timeout_s: must be above 0"),
    ],
)
def test_tables_that_cannot_be_are_refused(tmp_path, table, said):
    with pytest.raises(ValueError, match=said):
        build_config(tmp_path, reward=table)


@pytest.mark.parametrize(
    ("functions", "name"),
    [
        (["a:f", "math"], "math"),
        (["code", "math"], "code"),
        (["a:f", "overlong"], "none"),
        ([], "math"),
    ],
)
def test_the_correct_reward_follows_the_functions_and_is_written_down(tmp_path, functions, name):
    config = build_config(tmp_path, reward={"functions": functions, "overlong_cache": 2})
    assert config.reward.name == "tiny"  # as `build_config` gives it
    followed = without_name(config)
    assert followed.reward.name == name
    (tmp_path / "config.toml").write_text(followed.to_toml())
    assert TrainConfig.load(tmp_path / "config.toml") == followed


def test_a_file_that_names_no_function_is_refused_before_anything_is_loaded(tmp_path, file):
    config = build_config(tmp_path, reward={"functions": ["tiny", f"{file}:brevty"]})
    with pytest.raises(ValueError, match=r"reward.functions: '.*': .* has no 'brevty'; did you mean brevity"):
        config.preflight()
