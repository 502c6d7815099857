"""Two processes that train together in one of accelerate's kinds, on the CPU."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from elastic.models.sharding import is_sharded
from elastic.train import TrainConfig
from tests import forked
from tests.train.tiny_run import lines, run


def ddp(precision: str = "no") -> Accelerator:
    return Accelerator(cpu=True, mixed_precision=precision)


def fsdp2(precision: str = "no", **options: Any) -> Accelerator:
    """accelerate takes its FSDP plugin on accelerators only; torch's `fully_shard` itself runs on the CPU."""
    options = {"auto_wrap_policy": "transformer_based_wrap", "cpu_ram_efficient_loading": False} | options
    if options["auto_wrap_policy"] == "transformer_based_wrap":
        options["transformer_cls_names_to_wrap"] = ["LlamaDecoderLayer"]
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, **options)
    accelerator = Accelerator(cpu=True, mixed_precision=precision, fsdp_plugin=plugin)
    return _declare(accelerator, DistributedType.FSDP, fsdp_plugin=plugin)


def zero(stage: int, **options: Any) -> Accelerator:
    """As FSDP: accelerate takes DeepSpeed on accelerators only, DeepSpeed itself computes on the CPU too."""
    backend = import_module("deepspeed.comm.torch")
    backend.build_shm_op = lambda: None  # it would compile C++, for processes of one machine
    zero = {"stage": stage, "reduce_bucket_size": 1000, "stage3_param_persistence_threshold": 0}
    config = {"zero_optimization": zero, "train_micro_batch_size_per_gpu": "auto"} | options
    accelerator = Accelerator(cpu=True)
    accelerator.deepspeed_engine_wrapped = None
    plugin = DeepSpeedPlugin(hf_ds_config=config)
    return _declare(accelerator, DistributedType.DEEPSPEED, deepspeed_plugins=plugin)


def zero2() -> Accelerator:
    return zero(2)


def zero3() -> Accelerator:
    return zero(3)


def _declare(accelerator: Accelerator, kind: DistributedType, **plugin: Any) -> Accelerator:
    """What accelerate sets in its own state for processes on accelerators."""
    PartialState._shared_state["distributed_type"] = kind
    AcceleratorState._shared_state |= {"distributed_type": kind, **plugin}
    return accelerator


def train_two(config: TrainConfig, kind: Callable[[], Accelerator] = ddp, **options: Any) -> list[int]:
    """Exit statuses of both processes; what they raised is on stderr."""
    port = forked.free_port()

    def work() -> None:
        trainer = run(config, accelerator=kind(), **options)
        distributed = trainer.accelerator.distributed_type
        sharded = distributed in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        assert is_sharded(trainer.model) == sharded, "the kind is another"

    children = [forked.fork(rank, port, work) for rank in range(2)]
    return [forked.status(child) for child in children]


def assert_same_weights(left: Path, right: Path, atol: float = 2e-6) -> None:
    one, two = (load_file(output / "final" / "model.safetensors") for output in (left, right))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=atol, msg=name)


def assert_same_metrics(left: Path, right: Path) -> None:
    """All but times agree, up to rounding."""
    pairs = zip(*(lines(output / "metrics.jsonl") for output in (left, right)), strict=True)
    for one, two in pairs:
        assert one.keys() == two.keys()
        for name, value in one.items():
            if "second" not in name:
                expected = None if value is None else pytest.approx(value, rel=1e-3, abs=1e-5)
                assert two[name] == expected, name
