"""Two processes train as one does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from tiny_run import run, shared_out

from elastic.tiny import problems

SCRIPT = Path(__file__).parent / "tiny_run.py"


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def launch(output, rank, port):
    environment = os.environ | {
        "PYTHONPATH": str(SCRIPT.parents[2]),
        "ACCELERATE_USE_CPU": "true",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(SCRIPT), "shared_out", str(output)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_two_processes_give_the_weights_and_metrics_of_one(tmp_path):
    port = free_port()
    processes = [launch(tmp_path / "two", rank, port) for rank in range(2)]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    run(shared_out(tmp_path / "one"), eval_dataset=problems(4, split="test"))
    one, two = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=2e-6, msg=name)
    pairs = zip(
        *((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")),
        strict=True,
    )
    for left, right in (map(json.loads, pair) for pair in pairs):
        for key in left.keys() & {
            "step",
            "reward",
            "thinking_tokens",
            "cut_share",
            "lr",
            "eval/t3_s4/accuracy",
        }:
            assert abs(left[key] - right[key]) < 1e-6, key
        if "grad_norm" in left:
            assert abs(left["grad_norm"] - right["grad_norm"]) < 1e-4 * left["grad_norm"]
    states = torch.load(tmp_path / "two" / "checkpoints" / "step-00000003" / "rng.pt", weights_only=True)
    assert len(states) == 2
