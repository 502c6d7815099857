"""The optimizer of a run."""

from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer

from elastic.train.config.optim import OptimConfig
from elastic.train.config.optimizers import OPTIMIZERS, optimizer_class
from elastic.train.update.joined import Joined
from elastic.train.update.masters import NARROW, MasterWeights
from elastic.train.update.parameter_groups import parameter_groups


def build_optimizer(model: nn.Module, config: OptimConfig) -> Optimizer:
    """The optimizer of ``[optim]`` over the model's trained parameters; 16-bit ones get float32 masters.

    Raises:
        ModuleNotFoundError: bitsandbytes is needed and not installed.
        ValueError: names the key, where patterns are found in no name, or the optimizer cannot be imported,
            takes other options, has no weight decay, or does not keep its parameter groups.
    """
    groups = parameter_groups(model, config)
    build = partial(_over, config)
    narrow = any(parameter.dtype in NARROW for group in groups for parameter in group["params"])
    return MasterWeights(groups, build) if narrow else build(groups)


def _over(config: OptimConfig, groups: list[dict[str, Any]]) -> Optimizer:
    beside = OPTIMIZERS[config.name].beside if config.name in OPTIMIZERS else ""
    if not beside:
        return _one(config, config.name, groups)
    parts = [
        (name, [g for g in groups if g["hidden"] == (name == config.name)]) for name in (config.name, beside)
    ]
    return Joined([_one(config, name, own) for name, own in parts if own])


def _one(config: OptimConfig, name: str, groups: list[dict[str, Any]]) -> Optimizer:
    """The optimizer `name` over groups, which must still be its own when it is made."""
    options = dict(config.options) if name == config.name else {}
    make = optimizer_class(name, options)
    try:
        optimizer: Any = make([dict(group) for group in groups], **config.arguments(name))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"optim.options: '{name}' cannot be made: {error}") from error
    kept = getattr(optimizer, "param_groups", [])
    if [_settings(group) for group in kept] != [_settings(group) for group in groups]:
        raise ValueError(
            f"optim.name: '{name}' must be an optimizer that keeps the {len(groups)} parameter groups it is "
            f"given, with all their keys; it made {type(optimizer).__name__} with {len(kept)}"
        )
    if any(group["weight_decay"] for group in groups) and "weight_decay" not in optimizer.defaults:
        raise ValueError(f"optim.weight_decay: must be 0 with optim.name = '{name}', which has none")
    return optimizer


def _settings(group: dict[str, Any]) -> tuple[Any, ...]:
    return ([id(parameter) for parameter in group["params"]], *(group.get(key) for key in ("lr", "lr_scale")))
