"""16-bit weights that are trained through float32 copies of them.

AdamW moves a weight by about lr. In bfloat16 a weight of 0.02 moves by 1.2e-4 or not at all, so steps of 1e-6
would be lost. Here they add up in a float32 copy, the master (Micikevicius et al., arXiv 1710.03740), and the
weight is always its master rounded. Gradients are summed over micro-batches in float32 too.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

NARROW = (torch.bfloat16, torch.float16)
_MASTER = "master"


class MasterWeights(Optimizer):
    """An optimizer of the masters of 16-bit weights, and of the other weights themselves.

    Bytes per 16-bit weight: 2 for itself, 4 for the master, 4 for the gradient, and what the optimizer keeps,
    8 of AdamW. Its state is that of an optimizer of the weights, with the master beside the moments.

    Args:
        groups: parameter groups of the weights.
        build: makes the optimizer of such groups.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], build: Callable[[list[dict[str, Any]]], Optimizer]
    ) -> None:
        weights = [weight for group in groups for weight in group["params"]]
        masters = {w: w.detach().float() for w in weights if w.dtype in NARROW}
        self._tensors = [masters.get(weight, weight) for weight in weights]
        self._pairs = list(masters.items())
        tensors = iter(self._tensors)
        self._inner = build(
            [group | {"params": [next(tensors) for _ in group["params"]]} for group in groups]
        )
        own = iter(weights)
        self.param_groups = [
            group | {"params": [next(own) for _ in group["params"]]} for group in self._inner.param_groups
        ]
        self.defaults = self._inner.defaults

    @property
    def state(self) -> dict[Tensor, Any]:  # type: ignore[override]
        """Of the masters, not of the weights."""
        return self._inner.state

    @property
    def tensors(self) -> list[Tensor]:
        """What has the gradients: masters, and weights that have none; in the order of the groups."""
        return self._tensors

    @contextmanager
    def gathering(self, accelerator: Any, model: Any) -> Iterator[None]:
        """A block whose backward passes add to the gradients of the masters, over all processes at its end.

        A 16-bit gradient is dropped as soon as it is added, so only one is there at a time.

        Args:
            accelerator: knows the processes.
            model: as prepared. Its own averaging of 16-bit gradients is left out.
        """
        with ExitStack() as stack:
            stack.enter_context(accelerator.no_sync(model))
            for weight, master in self._pairs:
                handle = weight.register_post_accumulate_grad_hook(partial(_move_gradient, master))
                stack.callback(handle.remove)
            yield
        if accelerator.num_processes > 1:
            for tensor in self._tensors:
                # The same tensors in every process, also where one had no gradient
                gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
                tensor.grad = accelerator.reduce(gradient, "mean")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Steps the masters and rounds them to the weights."""
        for group, inner in zip(self.param_groups, self._inner.param_groups, strict=True):
            _copy_settings(group, inner)
        self._inner.step()
        self._changed()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops all gradients."""
        self._inner.zero_grad(set_to_none)
        for weight, _ in self._pairs:
            weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        """As of an optimizer of the weights; the state of one with a master has it as ``master``."""
        packed = self._inner.state_dict()
        masters = {id(master) for _, master in self._pairs}
        for index, tensor in enumerate(self._tensors):
            if id(tensor) in masters:
                packed["state"][index] = {**packed["state"].get(index, {}), _MASTER: tensor}
        return packed

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, weights included; a master that is not in it is its weight."""
        for weight, master in self._pairs:
            master.copy_(weight)
        state = {index: dict(values) for index, values in state_dict["state"].items()}
        for index, values in state.items():
            if _MASTER in values:
                self._tensors[index].copy_(values.pop(_MASTER))
        kept = {index: values for index, values in state.items() if values}
        self._inner.load_state_dict({**state_dict, "state": kept})
        self._changed()

    def _changed(self) -> None:
        """Brings weights and groups to what the inner optimizer has; some keep state in their groups."""
        weights, masters = zip(*self._pairs, strict=True)
        torch._foreach_copy_(weights, masters)
        for group, inner in zip(self.param_groups, self._inner.param_groups, strict=True):
            _copy_settings(inner, group)


def masters_of(optimizer: Any) -> MasterWeights | None:
    """The `MasterWeights` of an optimizer as `accelerator.prepare` returned it; None where it has none."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return inner if isinstance(inner, MasterWeights) else None


def _copy_settings(group: dict[str, Any], to: dict[str, Any]) -> None:
    to.update({name: value for name, value in group.items() if name != "params"})


def _move_gradient(master: Tensor, weight: Tensor) -> None:
    assert weight.grad is not None
    if master.grad is None:
        master.grad = weight.grad.float()
    else:
        master.grad += weight.grad
    weight.grad = None
