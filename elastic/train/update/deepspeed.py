"""Updates through DeepSpeed, whose engine owns the backward pass, clipping and the step.

accelerate's own wrapper steps within the last backward pass; here both are called apart, so that the number
of micro-batches may vary and a gradient that is not finite ends the run.
"""

from typing import Any

from torch import Tensor


def is_engine(model: Any) -> bool:
    """Whether `accelerator.prepare` made a model a DeepSpeed engine."""
    return hasattr(model, "set_gradient_accumulation_boundary")


def backward(engine: Any, loss: Tensor, last: bool) -> None:
    """Adds the gradient of a micro-batch, averaged over processes.

    Args:
        engine: the model.
        loss: of the micro-batch.
        last: whether a step follows.
    """
    engine.set_gradient_accumulation_boundary(last)
    engine.backward(loss, scale_wrt_gas=False)


def step(engine: Any) -> float:
    """Clips, steps and drops the gradients; returns their norm before clipping.

    Where the norm is not finite, it is not returned as such a number by every stage, but as infinity, and the
    step is left out.
    """
    engine.step()
    norm = float(engine.get_global_grad_norm())
    return norm if norm >= 0 else float("inf")
