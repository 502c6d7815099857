"""What gradients and optimizer take."""

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._pytree import tree_leaves

from elastic.train.config.optim import OptimConfig
from elastic.train.update.masters import masters_of
from elastic.train.update.optimizer import build_optimizer


def update_bytes(model: Any, config: OptimConfig) -> tuple[int, int]:
    """Bytes of gradients that the optimizer is given, and of its state, masters of 16-bit weights included.

    The optimizer is run, so that no formula has to know it.

    Args:
        model: of fake tensors on the CPU.
        config: of the optimizer.
    """
    with unset_fake_temporarily():  # some optimizers read constants of their own when they are made
        optimizer = build_optimizer(model, config)
    masters = masters_of(optimizer)
    trained = masters.tensors if masters else [p for group in optimizer.param_groups for p in group["params"]]
    with FakeTensorMode(allow_non_fake_inputs=True):
        for tensor in trained:
            tensor.grad = torch.zeros_like(tensor)
        optimizer.step()
    gradients = sum(tensor.numel() * tensor.element_size() for tensor in trained)
    optimizer.zero_grad()
    leaves = tree_leaves(optimizer.state_dict()["state"])
    state = {id(leaf): leaf for leaf in leaves if isinstance(leaf, torch.Tensor)}  # some are shared
    return gradients, sum(leaf.numel() * leaf.element_size() for leaf in state.values())
