"""Checks and warnings before a run starts."""

import warnings
from typing import Any

import torch

from elastic.models.adapter import has_adapter
from elastic.models.modes import dropout_of
from elastic.train.config import NO_FLOAT16, TrainConfig
from elastic.train.config.no_effect import without_effect

_ELEMENTWISE = ("adamw", "sgd")


def check_shares(config: TrainConfig, processes: int) -> None:
    """Checks that every process gets whole groups, and every minibatch at least one.

    Raises:
        ValueError: names the option, its value and the limit.
    """
    if config.rollout.prompts_per_step % processes:
        raise ValueError(
            f"rollout.prompts_per_step: must be a multiple of the {processes} processes, "
            f"got {config.rollout.prompts_per_step}"
        )
    if config.train.minibatches > config.rollout.prompts_per_step // processes:
        raise ValueError(
            "train.minibatches: must be at most the groups of a process, "
            f"{config.rollout.prompts_per_step // processes}, got {config.train.minibatches}"
        )


def check_weights(model: Any) -> None:
    """Refuses to train float16 weights, whose gradients are too small for their range of exponents.

    Raises:
        ValueError: a trainable weight is float16.
    """
    trainable = [(name, p.dtype) for name, p in model.named_parameters() if p.requires_grad]
    found = [name for name, dtype in trainable if dtype == torch.float16]
    if found:
        raise ValueError(
            f"model.dtype: {len(found)} of {len(trainable)} trained tensors are float16 ('{found[0]}'), "
            f"{NO_FLOAT16}"
        )


def check_sharded(config: TrainConfig, model: Any) -> None:
    """Checks what a model that is sharded over processes is trained with.

    Raises:
        ValueError: weights that are in parts already, of 16 bits, or of several types; another optimizer than
            those that treat every number of a tensor alike.
    """
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        raise ValueError("model: it was partitioned when it was loaded; set zero3_init_flag: false")
    if has_adapter(model):
        raise ValueError(
            "adapter.rank: must be 0 where processes hold parts of the model; an adapter trains in processes "
            "that each hold all of it (accelerate's MULTI_GPU)"
        )
    if config.optim.name not in _ELEMENTWISE:
        raise ValueError(
            f"optim.name: must be one of {', '.join(map(repr, _ELEMENTWISE))} where processes hold parts of "
            f"each parameter, got '{config.optim.name}'"
        )
    other = [name for name, parameter in model.named_parameters() if parameter.dtype != torch.float32]
    if other:
        raise ValueError(
            f"model.dtype: must be 'float32' where processes hold parts of each parameter, but '{other[0]}' "
            'is not; train.mixed_precision = "bf16" computes in 16 bits'
        )


def say_no_effect(config: TrainConfig, processes: int) -> None:
    """Gives one warning that names every key which was set and has no effect."""
    found = without_effect(config, processes)
    if found:
        warnings.warn(f"settings that have no effect in this run: {'; '.join(found)}", stacklevel=3)


def say_dropout(model: Any) -> None:
    """Gives one warning where the model has dropout, which no update applies."""
    rates = dropout_of(model)
    if rates:
        shown = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
        warnings.warn(
            f"the model has dropout ({shown}); updates run without it, as the rollouts do, because with it "
            "the policy would differ from itself. Set it to 0 in the model's config to silence this",
            stacklevel=3,
        )
