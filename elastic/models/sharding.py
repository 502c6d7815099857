"""Models of which every process holds a part of each parameter: whole tensors of them, one at a time.

FSDP2 (`torch.distributed.fsdp.fully_shard`) makes parameters `DTensor`s. DeepSpeed's ZeRO leaves parameters
empty between their uses (stage 3) and has parts of their float32 masters in its optimizer (all stages). What
is gathered here is gathered by all processes together, so all of them must call it, in the same order.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


def is_sharded(model: nn.Module) -> bool:
    """Whether processes hold parts of the parameters of a model, not wrapped."""
    from torch.distributed.fsdp import FSDPModule

    # Not told by the parameters: behind a forward pass without a backward they may still be whole.
    return isinstance(model, FSDPModule) or any(_in_zero(parameter) for parameter in model.parameters())


def gathered(module: nn.Module) -> AbstractContextManager[Any]:
    """A block in which the parameters of a module, without those below it, are whole under ZeRO's stage 3.

    With FSDP2 those of the head stay whole from its forward pass to the end of the backward pass.
    """
    parts = [parameter for parameter in module.parameters(recurse=False) if hasattr(parameter, "ds_id")]
    if not parts:
        return nullcontext()
    from deepspeed.runtime.zero import GatheredParameters

    block: AbstractContextManager[Any] = GatheredParameters(parts)
    return block


def whole_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and values of a model's state dict, each whole in every process while it is the current one.

    Tied parameters come once, under their first name; buffers are never sharded.
    """
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, whole(tensor)


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded, gathered and detached."""
    if _in_zero(tensor):
        return _master(tensor)
    value: Any = tensor.detach()
    return value.full_tensor() if _is_dtensor(value) else value


def gather_state(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """The state dict of a sharded model with whole tensors on the CPU; tied names share one tensor.

    Args:
        model: unwrapped.
        keep: False to take part in the gathering only; the result is then empty.
    """
    named = model.state_dict(keep_vars=True)
    copies: dict[int, Tensor] = {}
    for tensor in named.values():
        if id(tensor) not in copies:
            value = whole(tensor)
            copies[id(tensor)] = value.cpu() if keep else value.new_empty(0)
    return {name: copies[id(tensor)] for name, tensor in named.items()} if keep else {}


def part_like(value: Tensor, like: Any) -> Tensor:
    """This process's part of a whole tensor, cut as `like` is; all of it if that is not sharded."""
    if not _is_dtensor(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    # Every process has the whole tensor, so nothing is sent.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def load_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copies whole tensors into the parameters and buffers of a model, sharded or not.

    Raises:
        RuntimeError: names or shapes are not the model's.
    """
    if not is_sharded(model):
        model.load_state_dict(state)
        return
    named = model.state_dict(keep_vars=True)
    others = sorted(
        name for name in named.keys() | state.keys() if _shape(named, name) != _shape(state, name)
    )
    if others:
        raise RuntimeError(f"weights of another model: {', '.join(others[:3])} ...")
    for name, tensor in named.items():
        if _in_zero(tensor):
            _set_in_zero(tensor, state[name])
        else:
            tensor.detach().copy_(part_like(state[name], tensor))


def _shape(state: dict[str, Tensor], name: str) -> torch.Size | None:
    if name not in state:
        return None
    shape: torch.Size = getattr(state[name], "ds_shape", state[name].shape)
    return shape


def _is_dtensor(tensor: Any) -> bool:
    return hasattr(tensor, "full_tensor")


def _in_zero(parameter: Any) -> bool:
    return hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping")


def _master(parameter: Any) -> Tensor:
    """The whole float32 value of a parameter under ZeRO; the parameter's own where it is not trained."""
    from deepspeed.runtime.zero import GatheredParameters
    from deepspeed.utils import safe_get_full_fp32_param

    value: Tensor | None = safe_get_full_fp32_param(parameter)
    if value is None:
        with GatheredParameters([parameter]):
            value = parameter.detach().clone()
    return value


def _set_in_zero(parameter: Any, value: Tensor) -> None:
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters([parameter], modifier_rank=0):
        parameter.data.copy_(value)
    set_in_optimizer(parameter, value)


def set_in_optimizer(parameter: Any, value: Tensor, key: str | None = None) -> None:
    """Under ZeRO: this process's part of a parameter's float32 master, or of its optimizer state `key`."""
    from deepspeed import utils

    value = value.to(parameter.device, torch.float32).flatten()
    if not hasattr(parameter, "ds_id"):
        if key is None:
            utils.safe_set_full_fp32_param(parameter, value)
        else:
            utils.safe_set_full_optimizer_state(parameter, value, key)
        return
    # Whole values could not be set where the last process's part is padded.
    size, rank = parameter.ds_tensor.numel(), torch.distributed.get_rank(parameter.ds_process_group)
    part = nn.functional.pad(value, (0, size * (rank + 1)))[size * rank : size * (rank + 1)]
    if key is None:
        utils.safe_set_local_fp32_param(parameter, part)
    else:
        utils.safe_set_local_optimizer_state(parameter, part, key)
