"""Several optimizers, each of some parameter groups, as one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer


class Joined(Optimizer):
    """Optimizers that step together; their groups and their state are listed one after the other.

    Args:
        parts: at least one.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = tuple(parts)
        self.defaults = {key: value for part in reversed(self.parts) for key, value in part.defaults.items()}

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Those of all parts, not copied."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[torch.Tensor, Any]:  # type: ignore[override]
        """Of all parameters."""
        return {parameter: state for part in self.parts for parameter, state in part.state.items()}

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of each part."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """As of one optimizer with all the groups."""
        whole: dict[str, Any] = {"state": {}, "param_groups": []}
        first = 0
        for part in self.parts:
            own = part.state_dict()
            whole["state"] |= {first + index: state for index, state in own["state"].items()}
            for group in own["param_groups"]:
                indices = [first + index for index in group["params"]]
                whole["param_groups"].append(group | {"params": indices})
            first += _count(part)
        return whole

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        groups, first = list(state_dict["param_groups"]), 0
        for part in self.parts:
            own = [groups.pop(0) for _ in part.param_groups]
            indices = range(first, first + _count(part))
            part.load_state_dict(
                {
                    "state": {i - first: s for i, s in state_dict["state"].items() if i in indices},
                    "param_groups": [g | {"params": [i - first for i in g["params"]]} for g in own],
                }
            )
            first += _count(part)


def _count(optimizer: Optimizer) -> int:
    return sum(len(group["params"]) for group in optimizer.param_groups)
