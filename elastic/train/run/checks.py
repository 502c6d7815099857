"""Checks and warnings before a run starts."""

import warnings
from typing import Any

import torch

from elastic.models.modes import dropout_of
from elastic.train.config import WIDER, TrainConfig
from elastic.train.config.no_effect import without_effect

_NARROW = (torch.bfloat16, torch.float16)


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


def check_weights(model: Any, lr: float) -> None:
    """Refuses to train 16-bit weights, in which small updates are lost.

    AdamW moves a weight by about lr. In bfloat16 a weight of 0.02 moves by 1.2e-4 or not at all: at lr = 1e-6
    one in a hundred moves. Float32 weights under ``train.mixed_precision`` take no more memory than 16-bit
    weights with a float32 copy of each would.

    Args:
        model: any mixture of types; weights that are not trained may be of any.
        lr: named in the message.

    Raises:
        ValueError: a trainable weight has 16 bits.
    """
    trainable = [(name, p.dtype) for name, p in model.named_parameters() if p.requires_grad]
    narrow = [(name, dtype) for name, dtype in trainable if dtype in _NARROW]
    if not narrow:
        return
    name, dtype = narrow[0]
    kind = str(dtype).removeprefix("torch.")
    raise ValueError(
        f"model.dtype: {len(narrow)} of {len(trainable)} trained tensors are 16 bits wide "
        f"('{name}' is {kind}): updates of optim.lr = {lr:g} get lost in their rounding; {WIDER}"
    )


def say_no_effect(config: TrainConfig) -> None:
    """Gives one warning that names every key which was set and has no effect."""
    found = without_effect(config)
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
