"""A run with an adapter that is killed ends as one that is not."""

import signal

import torch
from safetensors.torch import load_file

from elastic.rollout import RolloutEngine
from elastic.train.run.weights import AdapterWeights
from tests.forked import start, status
from tests.train.adapters.runs import lora_config
from tests.train.faults.runs import records
from tests.train.faults.test_kill import dying, in_update
from tests.train.tiny_run import nines, run

DEATHS = {
    "update": lambda: in_update(2),  # before the first checkpoint
    "rollouts": lambda: dying(RolloutEngine, "generate", 3),
    "writing the adapter": lambda: dying(AdapterWeights, "write", 1),
}


def test_kills_in_update_rollouts_and_checkpoint_change_no_bit_of_an_adapter(tmp_path):
    def train(output):
        tables = {"train": {"steps": 4, "save_every": 2}, "loss": {"kl_coef": 0.01}}
        run(lora_config(tmp_path / output, **tables), reward=nines)

    train("whole")
    for name, arm in DEATHS.items():
        assert status(start(lambda arm=arm: (arm(), train("killed")))) == -signal.SIGKILL, name
    train("killed")
    whole, killed = (
        load_file(tmp_path / output / "final" / "adapter_model.safetensors") for output in ("whole", "killed")
    )
    assert all(torch.equal(killed[name], tensor) for name, tensor in whole.items())
    assert records(tmp_path / "killed") == records(tmp_path / "whole")
