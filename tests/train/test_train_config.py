"""The configuration is checked, completely, before anything is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from elastic.train import TrainConfig
from elastic.train.config import changed_keys
from elastic.train.config.train_config import tomllib

ROOT = Path(__file__).parents[2]

MINIMAL = {
    "model": {"path": "tiny"},
    "data": {"source": "tiny", "count": 256},
    "train": {"output_dir": "out"},
}


def tables(**changes):
    merged = {name: dict(table) for name, table in MINIMAL.items()}
    for name, table in changes.items():
        merged[name] = merged.get(name, {}) | table
    return merged


def test_minimal_configuration_has_the_papers_budgets():
    config = TrainConfig.from_table(MINIMAL)
    assert (config.budget.thinking, config.budget.solution) == (1024, 1024)
    assert config.rollout.temperature == 0.6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim": {"learning_rate": 1e-4}}, r"unknown key 'learning_rate' in table \[optim\]"),
        ({"optim": {"warmup_update": 1}}, "did you mean 'warmup_updates'"),
        ({"rolout": {"top_k": 1}}, "unknown key 'rolout' in the file; did you mean 'rollout'"),
        ({"optim": {"lr": -1e-4}}, "optim.lr: must be above 0, got -0.0001"),
        ({"optim": {"lr": "fast"}}, "optim.lr: must be a number, got 'fast'"),
        ({"optim": {"lr": float("nan")}}, "optim.lr: must be a number, got nan"),
        ({"train": {"steps": 0}}, "train.steps: must be at least 1, got 0"),
        ({"train": {"steps": True}}, "train.steps: must be an integer, got True"),
        ({"train": {"steps": 1.5}}, "train.steps: must be an integer, got 1.5"),
        ({"train": {"resume": "yes"}}, "train.resume: must be 'auto' or 'never', got 'yes'"),
        ({"rollout": {"top_p": 0}}, "rollout.top_p: must be above 0, got 0"),
        ({"rollout": {"top_p": 1.5}}, "rollout.top_p: must be at most 1, got 1.5"),
        ({"rollout": {"temperature": 0}}, "rollout.temperature: must be above 0, got 0"),
        ({"budget": {"thinking": -1}}, "budget.thinking: must be at least 0, got -1"),
        ({"budget": {"thinking": "endless"}}, "budget.thinking: must be an integer or 'unlimited'"),
        ({"budget": {"solution": 0}}, "budget.solution: must be at least 1, got 0"),
        (
            {"budget": {"thinking": 9, "solution": 9, "total": 9}},
            r"\[budget\]: total: expected at least .* 10",
        ),
        ({"budget": {"grace": 1, "thinking": "unlimited"}}, r"\[budget\]: grace: expected 0"),
        ({"budget": {"draw": "random", "thinking": "unlimited"}}, "'random' needs a finite budget.thinking"),
        (
            {"budget": {"draw": "random", "thinking_low": 2000}},
            "budget.thinking_low: must be at most .* 1024",
        ),
        ({"budget": {"draw": "random", "solution_low": 2000}}, "budget.solution_low: must be at most"),
        ({"budget": {"draw": "curriculum"}}, "budget.thinking_start: budget.draw = 'curriculum' needs it"),
        ({"loss": {"loss": "ppo"}}, "loss.loss: must be 'grpo' or .*, got 'ppo'"),
        ({"loss": {"engine_correction": "mask"}}, "needs loss.old_logprobs = 'recompute'"),
        ({"loss": {"loss": "dr_grpo"}, "budget": {"solution": "unlimited"}}, "loss.max_length: .* needs it"),
        ({"reward": {"target_min": 9, "target_max": 8}}, "reward.target_min: must be at most"),
        ({"eval": {"budgets": [[5]]}}, r"eval.budgets: must be a list of \[an integer, an integer\]"),
        ({"eval": {"budgets": [[5, 0]]}}, r"eval.budgets: a pair is .* got \[5, 0\]"),
        (
            {"data": {"count": 3}, "rollout": {"prompts_per_step": 4}},
            "rollout.prompts_per_step: must be at most data.count = 3, got 4",
        ),
        (
            {"data": {"count": 3}, "rollout": {"prompts_per_step": 128}},  # the default, but said
            "rollout.prompts_per_step: must be at most data.count = 3, got 128",
        ),
        (
            {"reward": {"length": "l1-max", "target_max": 4000}},
            r"reward.target_max: must be at most the 2048 tokens .* got 4000",
        ),
        (
            {"budget": {"thinking": "unlimited", "total": 50, "solution": 1024}},
            r"\[budget\]: total=50: .* leaves no solution budget",
        ),
        ({"train": {"accumulation_steps": 2000}}, "must be at most the 1024 rows of a step"),
        ({"data": {"source": "x.json"}, "eval": {"every": 1}}, "eval.source: needed"),
    ],
)
def test_bad_values_are_refused_by_name_value_and_limit(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_table(tables(**changes))


@pytest.mark.parametrize(
    ("changes", "table", "settled"),
    [
        ({"data": {"count": 8}}, "rollout", {"prompts_per_step": 8}),
        ({"data": {"count": 500}}, "rollout", {"prompts_per_step": 128}),
        (
            {"reward": {"length": "l1-exact"}, "budget": {"thinking": 30, "solution": 40}},
            "reward",
            {"target_min": 70, "target_max": 70},
        ),
        ({"reward": {"length": "l1-max"}}, "reward", {"target_min": 100, "target_max": 2048}),
        ({"reward": {"length": "l1-max", "target_max": 60}}, "reward", {"target_min": 60, "target_max": 60}),
        ({"budget": {"thinking": "unlimited", "total": 50}}, "budget", {"solution": "unlimited"}),
    ],
)
def test_a_default_gives_way_to_what_was_given(changes, table, settled):
    config = TrainConfig.from_table(tables(**changes))
    assert {key: getattr(getattr(config, table), key) for key in settled} == settled
    again = TrainConfig.from_table(tomllib.loads(config.to_toml()))
    assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize("table", ["model", "data", "train"])
def test_missing_tables_are_named_by_their_needed_key(table):
    with pytest.raises(ValueError, match=rf"missing key '\w+' in table \[{table}\]"):
        TrainConfig.from_table({name: value for name, value in MINIMAL.items() if name != table})


def test_generated_set_needs_a_count():
    with pytest.raises(ValueError, match=r"data.count: the generated set 'tiny' needs it"):
        TrainConfig.from_table({**MINIMAL, "data": {"source": "tiny"}})


def test_table_that_is_a_value_is_refused():
    with pytest.raises(ValueError, match=r"\[optim\]: expected a table, got 3"):
        TrainConfig.from_table({**MINIMAL, "optim": 3})


def test_written_file_loads_to_the_same_configuration(tmp_path):
    config = TrainConfig.from_table(
        tables(
            data={"system": 'a "quoted"\n\tline \\ \x7f ü'},
            budget={"notices": [[5, "half"]], "boundary": ["\n", "."], "grace": 3, "closing": "qwen3"},
            eval={"budgets": [[1, 2], [-1, -1]]},
            optim={"lr": 1e-6, "max_grad_norm": 0},
        )
    )
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert TrainConfig.load(path) == config


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    path = tmp_path / "config.toml"
    config = TrainConfig.from_table(tables())
    path.write_bytes(b"\xef\xbb\xbf" + config.to_toml().encode())
    assert TrainConfig.load(path) == config


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"broken.toml: not UTF-8 text"):
        TrainConfig.load(path)
    path.write_text("[model]\npath = \n")
    with pytest.raises(ValueError, match=r"broken.toml: not TOML: .*line 2"):
        TrainConfig.load(path)
    path.write_text("[modle]\n")
    with pytest.raises(ValueError, match=r"broken.toml: unknown key 'modle'"):
        TrainConfig.load(path)
    with pytest.raises(FileNotFoundError, match=r"absent.toml"):
        TrainConfig.load(tmp_path / "absent.toml")


def test_preflight_finds_missing_files_and_directories(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data.source: data 'absent.jsonl' is neither a file nor"):
        TrainConfig.from_table(tables(data={"source": "absent.jsonl"})).preflight()
    with pytest.raises(ValueError, match=r"model.path: .* holds no config.json"):
        TrainConfig.from_table(tables(model={"path": str(tmp_path)})).preflight()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"train.output_dir: .* is a file"):
        TrainConfig.from_table(tables(train={"output_dir": str(tmp_path / "file")})).preflight()
    TrainConfig.from_table(MINIMAL).preflight()


def test_bad_key_is_found_before_transformers_is_imported(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text('[model]\npath = "tiny"\nnmae = 1\n')
    code = (
        "import sys\nfrom elastic.train import train_from_config\n"
        f"try:\n    train_from_config({str(path)!r})\n"
        "except ValueError as error:\n    print(error)\n"
        "assert not {'transformers', 'accelerate'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "unknown key 'nmae' in table [model]" in done.stdout


def test_examples_are_valid():
    examples = sorted((ROOT / "examples").glob("*.toml"))
    assert examples
    for path in examples:
        TrainConfig.load(path)


def test_changes_that_make_another_run_are_told_from_those_that_do_not():
    old = TrainConfig.from_table(MINIMAL).to_dict()
    free = TrainConfig.from_table(
        tables(train={"steps": 7, "output_dir": "moved"}, eval={"every": 2})
    ).to_dict()
    assert changed_keys(old, free) == ([], [])
    memory = TrainConfig.from_table(
        tables(
            train={"accumulation_steps": 4, "micro_batch_tokens": 999},
            rollout={"max_rows": 3},
            loss={"linear_chunk_tokens": 5, "skip_zero_advantage": False},
            model={"gradient_checkpointing": True, "attention": "sdpa"},
        )
    ).to_dict()
    refused, rounding = changed_keys(old, memory)
    assert refused == []
    assert len(rounding) == 7
    assert "train.accumulation_steps: 1 -> 4" in rounding
    other = TrainConfig.from_table(tables(optim={"lr": 2e-6}, budget={"total": 4000})).to_dict()
    assert changed_keys(old, other) == (["budget.total: None -> 4000", "optim.lr: 1e-06 -> 2e-06"], [])
