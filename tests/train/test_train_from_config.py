"""`elastic train CONFIG.toml`: from a file to a trained model on disk."""

import json

import pytest

from elastic.data.code_tests import StdinTest
from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.rewards.code import Rules
from elastic.rewards.cores import default_workers
from elastic.rollout import OutOfContext
from elastic.train import TrainConfig, train_from_config
from elastic.train.collect.rewards import built_in
from elastic.train.config.reward import RewardConfig
from tests.train.tiny_run import build_model

CONFIG = """
[model]
path = "{root}/model"
device = "cpu"

[data]
source = "{root}/train.jsonl"
chat = "off"

[reward]
name = "math"

[budget]
thinking = 4
solution = 6
closing = "{closing}"

[rollout]
prompts_per_step = {prompts}
samples_per_prompt = 2
temperature = 1.0

[optim]
lr = 1e-3

[train]
output_dir = "{root}/run"
steps = 2
save_every = 1

[eval]
every = 2
source = "{root}/test.json"
count = 2

[logging]
console_every = 0
"""


@pytest.fixture
def config_file(tmp_path):
    model = build_model()
    model.save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    items = [{"question": f"<bos> {n} + 1 = ? <think>", "answer": n + 1} for n in range(4)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (tmp_path / "test.json").write_text(json.dumps(items))

    def write(**values):
        path = tmp_path / "config.toml"
        path.write_text(CONFIG.format(**{"root": tmp_path, "prompts": 2, "closing": "bare"} | values))
        return path

    return write


def test_file_trains_a_local_model_on_a_local_file(config_file, tmp_path):
    progress = train_from_config(config_file())
    assert (progress.step, progress.update, progress.position) == (2, 2, 4)
    assert (tmp_path / "run" / "final" / "model.safetensors").is_file()
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "step-00000001",
        "step-00000002",
    ]
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 1, 2, 2]


def test_more_prompts_than_the_file_has_is_refused(config_file):
    with pytest.raises(
        ValueError, match=r"rollout.prompts_per_step: must be at most the 4 problems of .*, got 5"
    ):
        train_from_config(config_file(prompts=5))


def test_fewer_problems_than_the_defaults_ask_for_are_enough(config_file, tmp_path):
    path = config_file()
    text = path.read_text().replace("prompts_per_step = 2\n", "").replace("count = 2\n", "")
    path.write_text(text)
    progress = train_from_config(path)
    assert progress.position == 8  # 2 steps of all 4 problems
    assert train_from_config(path) == progress  # the run in the directory is this one
    written = TrainConfig.load(tmp_path / "run" / "config.toml")
    assert (written.rollout.prompts_per_step, written.eval.count) == (4, 4)


def test_closing_without_the_end_marker_is_refused_before_a_step(config_file, tmp_path):
    with pytest.raises(ValueError, match=r"^closing: .*ok \. now") as refused:
        train_from_config(config_file(closing="ok . now"))
    assert not isinstance(refused.value, OutOfContext)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_finished_run_is_found_before_the_model_is_loaded(config_file, tmp_path, monkeypatch):
    (tmp_path / "run" / "final").mkdir(parents=True)
    monkeypatch.setattr("elastic.train.from_config._model", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(ValueError, match=r"train.output_dir: .*final holds the model of a finished run"):
        train_from_config(config_file())


@pytest.mark.parametrize(
    ("options", "rewards"),
    [
        ({}, [0.0, 1.0, 0.0]),
        ({"boxes": "all"}, [1.0, 0.0, 0.0]),
        ({"answer_tags": True}, [0.0, 1.0, 1.0]),
    ],
)
def test_a_configuration_says_which_answer_counts(options, rewards):
    reward = built_in(RewardConfig(**options), "math")
    solution = r"</think>\boxed{1}, \boxed{2} <answer>\boxed{3}</answer> \boxed{2}"
    two = r"</think>\boxed{1}, \boxed{2}"
    assert [reward(two, "1,2"), reward(two, "2"), reward(solution, "3")] == rewards


@pytest.mark.parametrize(("workers", "at_once"), [(3, 3), (None, default_workers())])
def test_a_configuration_says_how_many_answers_are_graded_at_once(workers, at_once):
    assert built_in(RewardConfig(workers=workers), "math").workers == at_once


def test_programs_are_graded_by_the_tests_of_their_problems(config_file, tmp_path, monkeypatch):
    seen = []

    def grader(response, tests):
        seen.append((response, tests))
        return float(len(seen) % 2)

    monkeypatch.setattr("elastic.train.config.reward.code_grader", lambda rules: grader)
    path = config_file()
    path.write_text(path.read_text().replace('name = "math"', 'name = "code"\nworkers = 1'))
    items = json.loads((tmp_path / "test.json").read_text())
    rows = [{"problem": i["question"], "tests": [{"input": "", "output": str(i["answer"])}]} for i in items]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.json").write_text(json.dumps(rows))
    assert train_from_config(path).step == 2
    assert {tests for _, tests in seen} <= {(StdinTest("", str(n + 1)),) for n in range(4)}
    assert len({tests for _, tests in seen}) > 1
    assert all(response == "" or response.startswith("</think>") for response, _ in seen)


def test_the_code_reward_of_a_configuration_has_its_limits(monkeypatch):
    monkeypatch.setattr("elastic.train.config.reward.code_grader", lambda rules: lambda *_: rules)
    config = RewardConfig(name="code", timeout_s=2.0, memory_mb=256, sandbox=False, workers=3)
    reward = built_in(config, "code")
    assert reward.workers == 3
    assert reward("", ()) == Rules(timeout_s=2.0, memory_mb=256, sandbox=False)
