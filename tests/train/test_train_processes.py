"""Two processes train as one does."""

import json
import os
import socket
import traceback

import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from tiny_run import run, shared_out

from elastic.tiny import problems


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def fork(output, rank, port):
    """A process of the group, forked: starting Python and importing everything again would take seconds."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ |= {
            "ACCELERATE_USE_CPU": "true",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "OMP_NUM_THREADS": "1",
        }
        AcceleratorState._reset_state(reset_partial_state=True)
        run(shared_out(output), eval_dataset=problems(4, split="test"))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def test_two_processes_give_the_weights_and_metrics_of_one(tmp_path):
    port = free_port()
    children = [fork(tmp_path / "two", rank, port) for rank in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0], "see the captured stderr"
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
