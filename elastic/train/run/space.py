"""What a checkpoint takes of the disk."""

import warnings
from pathlib import Path
from typing import Any

import torch

from elastic.train.config import TrainConfig
from elastic.train.run.checkpoint import checkpoint_paths
from elastic.train.run.directories import free_space, gigabytes


def weight_bytes(optimizer: Any) -> int:
    """Bytes of the trained weights that this process holds: the least that a model's directory takes."""
    return sum(p.numel() * p.element_size() for group in optimizer.param_groups for p in group["params"])


def state_bytes(optimizer: Any) -> int:
    """Bytes of trained weights and optimizer state that this process holds: a checkpoint's least."""
    states = getattr(optimizer, "state", {}).values()
    tensors = (value for state in states for value in state.values() if isinstance(value, torch.Tensor))
    return weight_bytes(optimizer) + sum(value.numel() * value.element_size() for value in tensors)


def say_space(config: TrainConfig, optimizer: Any, final: int) -> None:
    """Gives a warning where the disk will not hold a run's checkpoints and its final model.

    A new checkpoint is written before the oldest goes, so one more than ``train.keep_checkpoints`` must fit.
    The estimate has two moments of each trained weight, as AdamW has.

    Args:
        final: bytes of the final model, at least.
    """
    output = Path(config.train.output_dir)
    more = max(1, config.train.keep_checkpoints + 1 - len(checkpoint_paths(output)))
    size = max(state_bytes(optimizer), 3 * weight_bytes(optimizer))
    needed = final + (more * size if config.train.save_every else 0)
    free = free_space(output)
    if free < needed:
        warnings.warn(
            f"train.output_dir: {gigabytes(free)} are free in {output}; a checkpoint takes about "
            f"{gigabytes(size)}, the final model {gigabytes(final)}, and all to come {gigabytes(needed)}: "
            "train.keep_checkpoints and one more, and the final model",
            stacklevel=5,
        )
