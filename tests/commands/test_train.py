"""`elastic train CONFIG.toml`."""

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
