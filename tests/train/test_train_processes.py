"""Two processes train as one does."""

import json
import os
import socket
import traceback

import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from elastic.models.tiny import problems
from tests.train.tiny_run import nines, run, shared_out


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def fork(output, rank, port, make=shared_out, **options):
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
        run(make(output), eval_dataset=problems(4, split="test"), **options)
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
            "sampled_groups",
            "kept_groups",
            "rollout_tokens",
            "lr",
            "eval/t3_s4/accuracy",
        }:
            assert abs(left[key] - right[key]) < 1e-6, key
        if "grad_norm" in left:
            assert abs(left["grad_norm"] - right["grad_norm"]) < 1e-4 * left["grad_norm"]
    states = torch.load(tmp_path / "two" / "checkpoints" / "step-00000003" / "rng.pt", weights_only=True)
    assert len(states) == 2


def two_processes(output, rewards):
    """Exit statuses of both; `rewards` are theirs."""
    port = free_port()
    children = [fork(output, rank, port, reward=reward) for rank, reward in enumerate(rewards)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_reward_that_fails_in_one_process_ends_both_with_a_checkpoint(tmp_path):
    calls = []

    def broken(response, answer):
        calls.append(1)
        if len(calls) == 1 + 8 + 3:  # its evaluated problem, its rows of step 1, and three of step 2
            raise KeyError("the grader is gone")
        return nines(response, answer)

    assert two_processes(tmp_path / "two", [nines, broken]) == [1, 1]
    checkpoint = tmp_path / "two" / "checkpoints" / "step-00000001"
    assert len(torch.load(checkpoint / "rng.pt", weights_only=True)) == 2
    names = sorted(path.name for path in (tmp_path / "two" / "failed").iterdir())
    assert names == [f"step-00000002-rollouts-process-{rank}.safetensors" for rank in range(2)]
    assert two_processes(tmp_path / "two", [nines, nines]) == [0, 0]
    run(shared_out(tmp_path / "one"), eval_dataset=problems(4, split="test"))
    one, two = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=2e-6, msg=name)
