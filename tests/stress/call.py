"""A call of an op that can be made again and again, and printed as Python."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elastic import ops
from tests.stress.draw import copy, storage_of

LONGEST_TEXT = 60_000
PREAMBLE = """\
import torch
from math import inf, nan
from elastic import Budget, Markers, ops
from elastic.budget.markers import NaturalEnd
from elastic.budget.pattern import Spelling
from tests.stress.machines import Texts, compile_budgets
"""


class Fault(AssertionError):
    """A call whose result is not the reference's."""

    def __init__(self, call: "Call", message: str) -> None:
        super().__init__(f"{call.op}: {message}")
        self.call = call


@dataclass
class Expression:
    """A value that is not made of tensors and numbers, with the Python that makes it."""

    text: str
    value: Any


@dataclass
class Call:
    """An op and its arguments, which stay as they are: every run gets copies.

    Attributes:
        op: a function of elastic.ops.
        arguments: by name.
        leaves: arguments whose gradient is asked for.
        incoming: gradients of the first outputs.
    """

    op: str
    arguments: dict[str, Any]
    leaves: tuple[str, ...] = ()
    incoming: tuple[Tensor, ...] = ()

    def run(self) -> tuple[Any, dict[str, Any]]:
        """The results, and the arguments as the op left them.

        Raises:
            Fault: the op raised, though every call here is legal.
        """
        arguments = {k: _fresh(v) for k, v in self.arguments.items()}
        return self._guarded(lambda: getattr(ops, self.op)(**arguments)), arguments

    def run_backward(self) -> tuple[Any, list[Tensor]]:
        """The results and the leaves' gradients.

        Raises:
            Fault: as `run`.
        """
        arguments = {k: _fresh(v) for k, v in self.arguments.items()}
        leaves = [arguments[name].requires_grad_() for name in self.leaves]
        if arguments.get("inplace"):  # the op may only write over what another op computed
            given = arguments["logits"]
            leaves = [storage_of(given).clone().requires_grad_()]
            arguments["logits"] = (leaves[0] * 1).as_strided(*_place(given))

        def action() -> tuple[Any, list[Tensor]]:
            outputs = getattr(ops, self.op)(**arguments)
            count = len(self.incoming)
            gradients = torch.autograd.grad(outputs[:count], leaves, self.incoming)
            return [x.detach() for x in outputs], list(gradients)

        outputs, gradients = self._guarded(action)
        if arguments.get("inplace"):
            gradients = [gradients[0].as_strided(*_place(self.arguments["logits"]))]
        return outputs, gradients

    def _guarded(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:
            raise Fault(self, f"{type(error).__name__}: {error}") from error

    def text(self) -> str:
        """Python that makes the call."""
        lines = [f"{k} = {_text(v)}" for k, v in self.arguments.items()]
        leaves = list(self.leaves)
        if self.arguments.get("inplace"):
            given = self.arguments["logits"]
            lines += [f"storage = {_text(storage_of(given))}", "storage.requires_grad_()"]
            lines += [f"logits = (storage * 1).as_strided{_place(given)}"]
            leaves = ["storage"]
        else:
            lines += [f"{name}.requires_grad_()" for name in leaves]
        lines += [f"outputs = ops.{self.op}({', '.join(f'{k}={k}' for k in self.arguments)})"]
        if leaves:
            incoming, made = ", ".join(map(_text, self.incoming)), f"outputs[:{len(self.incoming)}]"
            lines += [f"gradients = torch.autograd.grad({made}, [{', '.join(leaves)}], [{incoming}])"]
        whole = PREAMBLE + "\n".join(lines)
        return whole if len(whole) < LONGEST_TEXT else f"({len(whole):,} characters; SEED and CASE make it)"


def _fresh(value: Any) -> Any:
    if isinstance(value, Expression):
        return value.value
    return copy(value) if isinstance(value, Tensor) else value


def _place(tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    return tuple(tensor.shape), tensor.stride(), tensor.storage_offset()


def _text(value: Any) -> str:
    if isinstance(value, Expression):
        return value.text
    if not isinstance(value, Tensor):
        return repr(value)
    if value.numel() == 0:
        return f"torch.empty({list(value.shape)}, dtype={value.dtype})"
    plain = value.is_contiguous() and value.storage_offset() == 0
    text = f"torch.tensor({(value if plain else storage_of(value)).tolist()}, dtype={value.dtype})"
    return text if plain else f"{text}.as_strided{_place(value)}"


def same(call: Call, name: str, got: Tensor, expected: Tensor) -> None:
    """Equal to the bit, NaN included.

    Raises:
        Fault: naming the first place that differs.
    """
    if got.dtype != expected.dtype or got.shape != expected.shape:
        want = f"{expected.dtype} {list(expected.shape)}"
        raise Fault(call, f"{name}: got {got.dtype} {list(got.shape)} instead of {want}")
    differs = (got != expected) & ~(torch.isnan(got) & torch.isnan(expected))
    if differs.any():
        at = tuple(differs.nonzero()[0].tolist())
        raise Fault(call, f"{name}{list(at)}: {got[at].item()} instead of {expected[at].item()}")
