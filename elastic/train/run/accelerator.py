"""The process group, device and precision of a run."""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from elastic.train.config import TrainConfig

_DISTRIBUTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def build_accelerator(config: TrainConfig) -> Accelerator:
    """The accelerator that a Trainer builds if it is given none.

    accelerate keeps one precision per process; that of an earlier Trainer is replaced, see `check_precision`.

    Raises:
        ValueError: ``model.device`` is not available, or accelerate is set up for sharded training (FSDP,
            DeepSpeed), which checkpoints here do not cover.
    """
    precision = config.train.mixed_precision
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()  # the process group stays
    device = _device(config.model.device)
    accelerator = Accelerator(mixed_precision=precision, cpu=config.model.device == "cpu")
    if accelerator.distributed_type not in _DISTRIBUTED:
        raise ValueError(
            f"accelerate is set up for {accelerator.distributed_type}; supported: "
            f"{', '.join(str(kind) for kind in _DISTRIBUTED)}"
        )
    if device is not None and device.type != accelerator.device.type:
        raise ValueError(
            f"model.device: '{device}' was asked for, but accelerate computes on '{accelerator.device}'"
        )
    return accelerator


def _device(name: str) -> torch.device | None:
    """The device asked for, made the current one; None leaves the choice to accelerate."""
    if name == "auto":
        return None
    from elastic.models import check_device

    try:
        device = check_device(name)
    except ValueError as error:
        raise ValueError(f"model.{error}") from error
    if device.index is not None:
        torch.cuda.set_device(device)
    return device


def check_precision(accelerator: Any, config: TrainConfig) -> None:
    """Checks that accelerate computes in the configuration's precision.

    Raises:
        ValueError: it is another one: of an accelerator made elsewhere, or of a Trainer made later, since
            accelerate keeps one precision per process.
    """
    if accelerator.mixed_precision != config.train.mixed_precision:
        raise ValueError(
            f"train.mixed_precision: is '{config.train.mixed_precision}', but accelerate computes in "
            f"'{accelerator.mixed_precision}': the accelerator given, or a Trainer made since, has another "
            "precision, and a process has one at a time; make this Trainer again"
        )
