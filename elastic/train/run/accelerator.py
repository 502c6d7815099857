"""The process group, device and precision of a run."""

import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from elastic.train.config import TrainConfig

_DISTRIBUTED = (
    *(DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU),
    *(DistributedType.FSDP, DistributedType.DEEPSPEED),
)
_ZERO_STAGES = (2, 3)


def build_accelerator(config: TrainConfig) -> Accelerator:
    """The accelerator that a Trainer builds if it is given none.

    accelerate keeps one precision per process; that of an earlier Trainer is replaced, see `check_precision`.

    Raises:
        ValueError: ``model.device`` is not available, or accelerate is set up for a kind of training that is
            not supported here.
    """
    precision = config.train.mixed_precision
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()  # the process group stays
    device = _device(config.model.device)
    accelerator = Accelerator(mixed_precision=precision, cpu=config.model.device == "cpu")
    _check_kind(accelerator)
    # Every process loads all of the model: its copies for rollouts and the reference are made of that.
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        accelerator.deepspeed_plugin.zero3_init_flag, accelerator.deepspeed_plugin.dschf = False, None
    if accelerator.distributed_type == DistributedType.FSDP:
        accelerator.state.fsdp_plugin.cpu_ram_efficient_loading = False
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # which transformers reads
    if device is not None and device.type != accelerator.device.type:
        raise ValueError(
            f"model.device: '{device}' was asked for, but accelerate computes on '{accelerator.device}'"
        )
    return accelerator


def _check_kind(accelerator: Accelerator) -> None:
    kind = accelerator.distributed_type
    if kind not in _DISTRIBUTED:
        raise ValueError(
            f"accelerate is set up for {kind}; supported: {', '.join(str(kind) for kind in _DISTRIBUTED)}"
        )
    if kind == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise ValueError("accelerate is set up for FSDP version 1; set fsdp_version: 2")
    if kind == DistributedType.DEEPSPEED and accelerator.deepspeed_plugin.zero_stage not in _ZERO_STAGES:
        raise ValueError(
            f"accelerate is set up for ZeRO stage {accelerator.deepspeed_plugin.zero_stage}; supported: "
            f"{' and '.join(map(str, _ZERO_STAGES))}"
        )
    if kind in (DistributedType.NO, DistributedType.MULTI_CPU):
        for name in ("FSDP", "DeepSpeed"):
            if os.environ.get(f"ACCELERATE_USE_{name.upper()}", "false").lower() == "true":
                raise ValueError(f"accelerate is set up for {name}, which it leaves out on the CPU")


def prepare(accelerator: Any, model: Any, optimizer: Any, max_grad_norm: float) -> tuple[Any, Any]:
    """Model and optimizer as accelerate runs them; with FSDP the model's parameters become parts in place."""
    if accelerator.distributed_type == DistributedType.FSDP and accelerator.mixed_precision == "bf16":
        from torch.distributed.fsdp import MixedPrecisionPolicy

        # accelerate's own choice would also sum gradients over processes in 16 bits.
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        accelerator.state.fsdp_plugin.mixed_precision_policy = policy
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        # Micro-batches are of any size, and their gradients are divided by the whole minibatch's counts.
        own = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}
        accelerator.deepspeed_plugin.deepspeed_config |= own | {"gradient_clipping": max_grad_norm}
    prepared, stepped = accelerator.prepare(model, optimizer)
    return prepared, stepped


def shards_optimizer(accelerator: Any) -> bool:
    """Whether every process will hold a part of the optimizer's state."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def shards(accelerator: Any) -> bool:
    """Whether every process will hold a part of each parameter."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return bool(accelerator.deepspeed_plugin.zero_stage == 3)
    return bool(accelerator.distributed_type == DistributedType.FSDP)


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
