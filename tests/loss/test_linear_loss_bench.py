"""The bench of the linear loss: every variant is checked, and a wrong gradient stops it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bench import linear_grpo_loss as bench  # noqa: E402


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_variant_is_checked(dtype):
    line = bench.check(bench.Inputs.random(11, 8, 53, dtype, seed=1), chunk=4)
    assert all(name in line for name in bench.LOSSES)


def test_a_wrong_gradient_stops_the_bench(monkeypatch):
    wrong = {**bench.LOSSES, "linear_grpo_loss": lambda *arguments: bench.fused(*arguments) * 1.01}
    monkeypatch.setattr(bench, "LOSSES", wrong)
    with pytest.raises(AssertionError, match="linear_grpo_loss: gradient off by 1"):
        bench.check(bench.Inputs.random(11, 8, 53, torch.float32, seed=1), chunk=4)


def test_the_command_runs():
    sizes = ["--tokens", "16", "--hidden", "8", "--vocab", "99", "--chunk", "5", "--rounds", "2"]
    command = [sys.executable, "-m", "bench.linear_grpo_loss", *sizes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "bfloat16, N=16, H=8, V=99, chunks of 5" in done.stdout
    assert "times the products alone" in done.stdout
