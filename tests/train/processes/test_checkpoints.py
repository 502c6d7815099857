"""A checkpoint is the same file from one process or two, of whole or sharded models."""

import re

import pytest
import torch

from tests.train.processes.group import assert_same_weights, ddp, fsdp2, train_two, zero2, zero3
from tests.train.tiny_run import build_config, run


def config(output, steps):
    return build_config(
        output,
        train={"steps": steps, "save_every": 2},
        optim={"lr": 1e-2, "eps": 1e-4},
        loss={"kl_coef": 0.05},
    )


def train(output, steps, kind):
    if kind is not None:
        assert train_two(config(output, steps), kind) == [0, 0], "see the captured stderr"
    elif (output / "checkpoints").exists():
        with pytest.warns(UserWarning, match=re.escape("processes: 2 -> 1")):
            run(config(output, steps))
    else:
        run(config(output, steps))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "uninterrupted"
    run(config(output, 4))
    return output


@pytest.mark.parametrize(
    ("before", "after"),
    [(ddp, None), (fsdp2, None), (None, fsdp2), (fsdp2, zero2), (zero2, zero3)],
    ids=["ddp-one", "fsdp2-one", "one-fsdp2", "fsdp2-zero2", "zero2-zero3"],
)
def test_run_goes_on_in_another_kind_of_processes(tmp_path, uninterrupted, before, after):
    output = tmp_path / "run"
    train(output, 2, before)
    train(output, 4, after)
    assert_same_weights(uninterrupted, output)
    saved, whole = (
        torch.load(path / "checkpoints" / "step-00000004" / "optimizer.pt", weights_only=True)
        for path in (output, uninterrupted)
    )
    assert saved["groups"] == whole["groups"]
    for name, state in whole["state"].items():
        for key, value in state.items():
            torch.testing.assert_close(saved["state"][name][key], value, rtol=0, atol=2e-6, msg=name)
