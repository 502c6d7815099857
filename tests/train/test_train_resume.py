"""A run that is killed and resumed ends exactly where an uninterrupted one does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from elastic.models.tiny import problems
from elastic.train.run import checkpoint as checkpoint_module
from elastic.train.run import directories
from tests.forked import start, status
from tests.train.tiny_run import build_config, resumable, run

SCRIPT = Path(__file__).parent / "tiny_run.py"
STEPS = 5  # checkpoints after 2, 4 and 5
CLOCKS = ("seconds", "seconds_rollout", "seconds_reward", "seconds_update", "tokens_per_second")


def train_here(output, **tables):
    config = build_config(output, **tables) if tables else resumable(output, STEPS)
    return run(config, eval_dataset=problems(4, split="test"))


def metrics(output):
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]


def assert_same_run(output, expected):
    weights, wanted = (load_file(d / "final" / "model.safetensors") for d in (output, expected))
    assert weights.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(weights[name], tensor), name
    assert metrics(output) == metrics(expected)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    train_here(output)
    return output


def test_sigkill_of_a_subprocess_and_resume_gives_identical_weights_and_metrics(tmp_path, uninterrupted):
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(STEPS)]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "checkpoints" / "step-00000002").exists():
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline, "the run never wrote its first checkpoint"
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "final").exists()
    train_here(tmp_path)
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize("moment", ["in step 1", "in step 4", "writing checkpoint 2", "naming checkpoint 4"])
def test_sigkill_at_any_moment_and_resume_gives_identical_weights_and_metrics(
    tmp_path, uninterrupted, moment
):
    assert status(start(lambda: (die_at(moment), train_here(tmp_path)))) == -signal.SIGKILL
    train_here(tmp_path)
    assert_same_run(tmp_path, uninterrupted)
    assert not list((tmp_path / "checkpoints").glob(".*"))


def die_at(moment):
    """Makes this process kill itself at the named moment."""
    what, _, number = moment.rpartition(" ")
    if what == "in step":
        from elastic.train.update.updates import Updates

        original = Updates._optimizer_step
        Updates._optimizer_step = lambda self, *arguments: (
            os.kill(os.getpid(), signal.SIGKILL) if arguments[-1] == int(number) - 1 else None,
            original(self, *arguments),
        )
        return
    module, name = {
        "writing checkpoint": (directories, "sync"),
        "naming checkpoint": (checkpoint_module, "_complete"),
    }[what]
    original_function = getattr(module, name)

    def dying(path):
        if f"step-{int(number):08d}" in str(path) or (
            name == "_complete" and any(f"step-{int(number):08d}" == p.name for p in path.iterdir())
        ):
            os.kill(os.getpid(), signal.SIGKILL)
        return original_function(path)

    setattr(module, name, dying)
