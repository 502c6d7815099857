"""The optimizer's state by parameter name, in whole tensors: the same file from any number of processes."""

from typing import Any

from torch import Tensor, nn

from elastic.models.sharding import part_like, whole
from elastic.train.run import zero_state


class OptimizerState:
    """Gathers and restores what the optimizer keeps of each parameter.

    Args:
        optimizer: set the attribute `optimizer` to what `accelerator.prepare` returns of it.
        model: the trained model, not wrapped.
    """

    def __init__(self, optimizer: Any, model: nn.Module) -> None:
        self.optimizer, self._model = optimizer, model
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._groups = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]

    def gather(self, keep: bool) -> dict[str, Any]:
        """``groups`` with the names of their parameters, and ``state`` by name, on the CPU.

        Args:
            keep: False to take part in the gathering only; the result is then empty.
        """
        names = [name for group in self._groups for name in group]
        if zero := zero_state.optimizer_of(self.optimizer):
            groups = self.optimizer.param_groups
            state = zero_state.gather(zero, self._model, names, keep)
        else:
            packed = self.optimizer.state_dict()
            groups, state = packed["param_groups"], {}
            for index, values in packed["state"].items():
                copies = {key: _on_cpu(value) for key, value in values.items()}
                state |= {names[index]: copies} if keep else {}
        named = [
            {**group, "params": list(members)} for group, members in zip(groups, self._groups, strict=True)
        ]
        return {"groups": named, "state": state} if keep else {}

    def load(self, saved: dict[str, Any]) -> None:
        """Restores what `gather` returned, in any number of processes.

        Raises:
            ValueError: it is the state of other parameters, or of other groups of them.
        """
        if [group["params"] for group in saved["groups"]] != self._groups:
            raise ValueError("the optimizer's state is of other groups of parameters")
        if zero := zero_state.optimizer_of(self.optimizer):
            for group, values in zip(self.optimizer.param_groups, saved["groups"], strict=True):
                group.update({key: value for key, value in values.items() if key != "params"})
            zero_state.load(zero, self._model, saved["state"])
            return
        names = [name for group in self._groups for name in group]
        own = dict(zip(names, (p for g in self.optimizer.param_groups for p in g["params"]), strict=True))
        place = {name: index for index, name in enumerate(names)}
        state = {
            place[name]: {key: _like(value, own[name]) for key, value in values.items()}
            for name, values in saved["state"].items()
        }
        groups = [group | {"params": [place[name] for name in group["params"]]} for group in saved["groups"]]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _on_cpu(value: Any) -> Any:
    return whole(value).cpu() if isinstance(value, Tensor) else value


def _like(value: Any, parameter: Tensor) -> Any:
    """A moment cut as its parameter is; a step count as it is."""
    moment = isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim > 0
    return part_like(value, parameter) if moment else value
