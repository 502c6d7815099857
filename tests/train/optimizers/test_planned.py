"""The plan's bytes of gradients and optimizer state are those of a real update, for every optimizer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.train.config.optimizers import OPTIMIZERS
from elastic.train.planning.run_plan import plan_run
from elastic.train.update.masters import masters_of
from elastic.train.update.optimizer import build_optimizer
from elastic.train.update.parameter_groups import freeze
from tests.train.tiny_run import build_config, build_model


@pytest.mark.filterwarnings("ignore:Paged optimizers")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_planned_bytes_are_those_of_a_real_update(tmp_path: Path, name: str, dtype: str) -> None:
    model: Any = build_model(hidden_size=64, intermediate_size=160)
    model.config.save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    optim = {"name": name, "frozen": [r"layers\.0\.mlp"]}
    chosen = {"path": str(tmp_path / "model"), "dtype": dtype}
    plan = plan_run(build_config(tmp_path / "run", model=chosen, optim=optim))
    buffers = sum(buffer.nbytes for buffer in model.buffers())  # they stay as they are
    model.to(getattr(torch, dtype))
    freeze(model, plan.config.optim)
    optimizer = build_optimizer(model, plan.config.optim)
    masters = masters_of(optimizer)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tensors = masters.tensors if masters else parameters
    for tensor in tensors:
        tensor.grad = torch.ones_like(tensor)
    optimizer.step()
    state = {id(leaf): leaf for leaf in tree_leaves(optimizer.state_dict()["state"])}
    kept = [leaf.nbytes for leaf in state.values() if isinstance(leaf, torch.Tensor)]
    assert plan.memory.optimizer == sum(kept)
    assert plan.memory.gradients == 4 * sum(parameter.numel() for parameter in parameters)
    weights = sum(p.numel() for p in model.parameters()) * getattr(torch, dtype).itemsize
    assert plan.memory.weights == weights + buffers
    assert plan.memory.rollout_copy == 0
