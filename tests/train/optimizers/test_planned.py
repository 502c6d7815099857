"""The plan's bytes of gradients and optimizer state are those of a real update, for every optimizer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from elastic.models.tiny.vocabulary import build_tokenizer
from elastic.train import TrainConfig
from elastic.train.config.optimizers import OPTIMIZERS
from elastic.train.planning.optimizer_memory import update_bytes
from elastic.train.planning.outline import Outline
from elastic.train.planning.run_plan import plan_run
from elastic.train.update.masters import masters_of
from elastic.train.update.optimizer import build_optimizer
from elastic.train.update.parameter_groups import freeze
from tests.train.tiny_run import build_config, build_model


def planned(directory: Path, dtype: str, **optim: Any) -> tuple[TrainConfig, Any]:
    """A configuration with a small model in `dtype`, and this model."""
    model: Any = build_model(hidden_size=64, intermediate_size=160)
    model.config.save_pretrained(directory / "model")
    build_tokenizer().save_pretrained(directory / "model")
    chosen = {"path": str(directory / "model"), "dtype": dtype}
    return build_config(directory / "run", model=chosen, optim=optim), model.to(getattr(torch, dtype))


@pytest.mark.filterwarnings("ignore:Paged optimizers")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_planned_bytes_are_those_of_a_real_update(tmp_path: Path, name: str, dtype: str) -> None:
    config, model = planned(tmp_path, dtype, name=name, frozen=[r"layers\.0\.mlp"])
    with Outline(config).on_cpu() as outline:
        freeze(outline, config.optim)
        gradients, state = update_bytes(outline, config.optim)
    freeze(model, config.optim)
    optimizer = build_optimizer(model, config.optim)
    masters = masters_of(optimizer)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for tensor in masters.tensors if masters else trained:
        tensor.grad = torch.ones_like(tensor)
    optimizer.step()
    leaves = {id(leaf): leaf for leaf in tree_leaves(optimizer.state_dict()["state"])}
    assert state == sum(leaf.nbytes for leaf in leaves.values() if isinstance(leaf, torch.Tensor))
    assert gradients == 4 * sum(parameter.numel() for parameter in trained)


def test_a_plan_of_bfloat16_weights_has_masters_and_no_copy(tmp_path: Path) -> None:
    config, model = planned(tmp_path, "bfloat16", frozen=[r"layers\.0\.mlp"])
    memory = plan_run(config).memory
    trained = [p for name, p in model.named_parameters() if "layers.0.mlp" not in name]
    numbers = sum(parameter.numel() for parameter in trained)
    assert memory.gradients == 4 * numbers
    assert memory.optimizer == (4 + 8) * numbers + 4 * len(trained)  # and step counts
    buffers = sum(buffer.nbytes for buffer in build_model(hidden_size=64).buffers())  # float32
    assert memory.weights == 2 * sum(parameter.numel() for parameter in model.parameters()) + buffers
    assert memory.rollout_copy == 0
