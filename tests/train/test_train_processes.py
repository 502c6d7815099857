"""Two processes train as one does."""

import json

import torch
from safetensors.torch import load_file

from elastic.models.tiny import problems
from tests import forked
from tests.forked import free_port, status
from tests.train.tiny_run import nines, run, shared_out


def fork(output, rank, port, make=shared_out, **options):
    """A process of the group, which trains."""
    return forked.fork(
        rank, port, lambda: run(make(output), eval_dataset=problems(4, split="test"), **options)
    )


async def spent(sample):
    """A second reward, which leaves some rows out."""
    return None if sample.completion_ids[0] % 3 == 0 else sample.thinking_tokens / 10


def test_two_processes_give_the_weights_and_metrics_of_one(tmp_path):
    port, rewards = free_port(), [nines, spent]
    children = [fork(tmp_path / "two", rank, port, reward=rewards) for rank in range(2)]
    assert [status(child) for child in children] == [0, 0], "see the captured stderr"
    run(shared_out(tmp_path / "one"), eval_dataset=problems(4, split="test"), reward=rewards)
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
            "reward/nines/mean",
            "reward/spent/mean",
            "reward/spent/std",
            "reward/spent/none_share",
            "thinking_budget",
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
    return [status(child) for child in children]


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
