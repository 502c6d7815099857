"""examples/lora.toml: LoRA on a Qwen2 of 50 M random weights, as its comment says to run it."""

import runpy
import sys
from pathlib import Path

from safetensors.torch import load_file

from elastic.commands import cli
from tests.train.tiny_run import lines

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_lora_trains_a_random_qwen2_of_50_million_weights_for_five_steps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["random_qwen2.py", "runs/random-qwen2"])
    runpy.run_path(str(EXAMPLES / "random_qwen2.py"), run_name="__main__")
    assert "runs/random-qwen2: 51.7 M weights" in capsys.readouterr().out
    assert cli.main(["train", str(EXAMPLES / "lora.toml")]) == 0
    steps = lines(tmp_path / "runs" / "lora" / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5]
    assert steps[0]["kl"] == 0
    assert any(step["grad_norm"] > 0 for step in steps)
    final = tmp_path / "runs" / "lora" / "final"
    trained = load_file(final / "adapter_model.safetensors")
    assert any(tensor.any() for name, tensor in trained.items() if "lora_B" in name)
    assert (
        sum(file.stat().st_size for file in final.iterdir())
        < 15e6
        < 200e6
        < (tmp_path / "runs" / "random-qwen2" / "model.safetensors").stat().st_size
    )
    prompt = ["--thinking", "8", "--solution", "6", "--prompt", "a 3 b + 4 ="]
    assert cli.main(["generate", str(final), "--device", "cpu", *prompt]) == 0
