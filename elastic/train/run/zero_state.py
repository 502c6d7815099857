"""The state of ZeRO's optimizers, which have flat pieces of many parameters, parameter by parameter."""

from typing import Any

import torch
from torch import Tensor, nn

from elastic.models.sharding import set_in_optimizer

State = dict[str, dict[str, Any]]


def optimizer_of(optimizer: Any) -> Any:
    """DeepSpeed's optimizer in a prepared one; None where it is another."""
    inner = getattr(optimizer, "optimizer", None)
    return inner if hasattr(inner, "optimizer") and hasattr(inner, "loss_scale") else None


def gather(optimizer: Any, model: nn.Module, names: list[str], keep: bool) -> State:
    """Whole moments and step counts by parameter name, on the CPU.

    Args:
        optimizer: of `optimizer_of`.
        model: the trained model.
        names: of the trained parameters.
        keep: False to take part in the gathering only; the result is then empty.
    """
    from deepspeed.utils import safe_get_full_optimizer_state

    pieces = list(optimizer.optimizer.state.values())
    if not pieces:
        return {}  # before the first step
    _link(optimizer)
    state: State = {}
    for name in names:
        parameter = model.get_parameter(name)
        values = {}
        for key, piece in pieces[0].items():
            # Every piece has made the same steps.
            value = safe_get_full_optimizer_state(parameter, key) if _is_moment(piece) else piece
            values[key] = value.detach().cpu().clone() if isinstance(value, Tensor) else value
        state |= {name: values} if keep else {}
    return state


def load(optimizer: Any, model: nn.Module, state: State) -> None:
    """Gives the optimizer this process's pieces of what `gather` returned."""
    inner, flat = optimizer.optimizer, _pieces(optimizer)
    inner.state.clear()
    for piece in flat if state else []:
        example = next(iter(state.values()))
        inner.state[piece] = {
            key: torch.zeros_like(piece) if _is_moment(value) else _copy(value)
            for key, value in example.items()
        }
    if state:
        _link(optimizer)
    for name, values in state.items():
        for key, value in values.items():
            if _is_moment(value):
                set_in_optimizer(model.get_parameter(name), value, key)


def _link(optimizer: Any) -> None:
    """Stages 1 and 2 show parameters their state behind the very first step, which is of one group only."""
    if hasattr(optimizer, "_lazy_init_hp_params_optimizer_state"):
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()


def _pieces(optimizer: Any) -> list[Tensor]:
    stage3 = hasattr(optimizer, "fp32_partitioned_groups_flat")
    name = "fp32_partitioned_groups_flat" if stage3 else "single_partition_of_fp32_groups"
    pieces: list[Tensor] = getattr(optimizer, name)
    return pieces


def _is_moment(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
