"""`elastic train CONFIG.toml`."""

import json
from pathlib import Path

CONFIG = """
[model]
path = "tiny"
[data]
source = "tiny"
count = 4
[reward]
name = "tiny"
[budget]
thinking = 8
solution = 8
[rollout]
prompts_per_step = 2
samples_per_prompt = 2
temperature = 1.0
[train]
output_dir = "{out}"
steps = {steps}
save_every = 1
[logging]
tensorboard = false
"""


def config(folder: Path, steps: int) -> Path:
    path = folder / "train.toml"
    path.write_text(CONFIG.format(out=folder / "run", steps=steps))
    return path


def test_train_runs_a_config_and_leaves_a_model_that_generate_opens(elastic, tmp_path: Path) -> None:
    outcome = elastic("train", config(tmp_path, 1))
    assert outcome.status == 0
    assert "step 1/1" in outcome.err
    prompt = ("--raw", "--prompt", "<bos> a 1 b + 2 = ? <think>", "--thinking", 2, "--solution", 2)
    shown = elastic("generate", tmp_path / "run" / "final", *prompt)
    assert shown.status == 0
    assert "[forced] </think>" in shown.out


def test_train_goes_on_where_it_was_and_resume_never_refuses_to(elastic, tmp_path: Path) -> None:
    elastic("train", config(tmp_path, 1))
    refused = elastic("train", config(tmp_path, 2), "--resume", "never")
    assert refused.status == 2
    assert "resume" in refused.err
    outcome = elastic("train", config(tmp_path, 2))
    assert outcome.status == 0
    assert "step 2/2" in outcome.err
    assert "step 1/2" not in outcome.err


def test_plan_says_what_a_run_would_take_and_trains_nothing(elastic, tmp_path: Path) -> None:
    outcome = elastic("train", config(tmp_path, 3), "--plan")
    assert outcome.status == 0
    assert "2 prompts x 2 = 4 rows" in outcome.out
    assert "3 steps, 3 updates" in outcome.out
    assert "not measured on this device" in outcome.out
    assert not (tmp_path / "run").exists()


def test_plan_takes_its_hours_from_a_run_and_writes_json(elastic, tmp_path: Path) -> None:
    elastic("train", config(tmp_path, 2))
    outcome = elastic("train", config(tmp_path, 50), "--plan", "--json", "--rates", tmp_path / "run")
    plan = json.loads(outcome.out)
    assert plan["rates"]["steps"] == 1  # of two, the first is left out
    assert 0 < plan["hours"]["expected"] <= plan["hours"]["most"]
    assert plan["work"]["run_tokens"] == 50 * 4 * 17


def test_flags_of_a_plan_need_plan(elastic, tmp_path: Path) -> None:
    outcome = elastic("train", config(tmp_path, 1), "--rates", tmp_path)
    assert outcome.status == 2
    assert "--rates: only with --plan" in outcome.err
    missing = elastic("train", config(tmp_path, 1), "--plan", "--rates", tmp_path / "none")
    assert missing.status == 2
    assert "no such file" in missing.err


def test_a_flag_says_what_decodes(elastic, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("elastic.integrations.vllm.installed.find_spec", lambda name: None)
    outcome = elastic("train", config(tmp_path, 1), "--engine", "vllm")
    assert outcome.status == 2
    assert "error: rollout.engine: vllm is not installed; install it with:" in outcome.err
    assert not (tmp_path / "run").exists()
    assert elastic("train", config(tmp_path, 1), "--engine", "own", "--plan").status == 0


def test_vllm_cuts_no_thoughts(elastic, tmp_path: Path) -> None:
    path = config(tmp_path, 1)
    path.write_text(path.read_text().replace("[budget]", "[budget]\ncuts = [2, 4]"))
    outcome = elastic("train", path, "--engine", "vllm")
    assert outcome.status == 2
    assert (
        "rollout.engine: must be 'own' with budget.cuts, which cut one thought several times" in outcome.err
    )
