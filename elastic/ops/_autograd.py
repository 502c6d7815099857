"""Shared by the differentiable ops: gradients computed beforehand, and derivatives that do not exist."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

# Whether the running backward pass keeps its graph for another one, which then needs the same stored
# gradient. torch has no public name for it; without this one every graph counts as kept and costs a copy.
_keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)


def refuse_transforms(op: str, *tensors: Tensor | None, vmap: bool = False) -> None:
    """Raises RuntimeError where derivatives are wanted that the op would silently leave out.

    Args:
        op: named in the error.
        tensors: what the op differentiates.
        vmap: the op may run under torch.vmap.
    """
    if torch._C._are_functorch_transforms_active() and not (vmap and _inside_vmap_alone()):
        raise RuntimeError(f"{op}: torch.func: expected a call outside its transforms, got one inside")
    if forward_ad._current_level < 0:
        return
    for tensor in tensors:
        if tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None:
            raise RuntimeError(f"{op}: forward-mode derivatives: expected none, got a tensor with a tangent")


def _inside_vmap_alone() -> bool:
    if torch.compiler.is_compiling():
        return False
    functorch = torch._C._functorch
    stack = functorch.get_interpreter_stack() or []
    return all(level.key() == functorch.TransformType.Vmap for level in stack)


class _FirstOrder(torch.autograd.Function):
    """Memory of `value`, a function of `sources` whose derivative does not exist."""

    @staticmethod
    def forward(ctx: Any, op: str, value: Tensor, *sources: Tensor | None) -> Tensor:
        ctx.op = op
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise RuntimeError(f"{ctx.op}: second derivatives: expected none, got a gradient to differentiate")


def first_order(op: str, value: Tensor, *sources: Tensor | None) -> Tensor:
    """`value`, which under create_graph=True depends on `sources`: a second derivative raises, it is not 0.

    A compiled backward() raises by itself.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return value
    return _FirstOrder.apply(op, value, *sources)


def origin(op: str, *inputs: Tensor | None) -> Tensor:
    """An empty tensor that depends on `inputs` in the graph and keeps none of their memory."""
    first = next(x for x in inputs if x is not None)
    with torch.enable_grad():
        return first_order(op, first.new_empty(0), *inputs)


def handed_out(op: str, gradient: Tensor, factor: Tensor, origin: Tensor) -> Tensor:
    """A stored gradient times the incoming one, for backward() to return.

    In place, unless the graph is kept (then the stored one is needed again, and memory once handed out is not
    written) or traced (then forward's results may not be written, and the compiler sees to the memory).

    Args:
        gradient: at least one dimension.
        factor: one element.
        origin: the `origin` of the inputs that the gradient was computed from.
    """
    traced = torch.compiler.is_compiling() or type(factor) is not Tensor
    if traced or _keeps_graph():
        gradient = gradient.clone()
    with torch.no_grad():
        torch.ops.elastic.scale_(gradient if gradient.dim() == 2 else gradient[None], factor)
    return first_order(op, gradient, origin)
