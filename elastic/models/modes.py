"""Updates run the model as rollouts did, without dropout, whatever mode the model was left in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from elastic.models.offload import Offload
from elastic.models.serving import modes_kept


@contextmanager
def as_in_rollouts(model: nn.Module) -> Iterator[None]:
    """The model as rollouts run it, in eval mode, with gradient checkpointing where that is switched on.

    Completions were drawn without dropout. With it, the ratio to the policy that drew them and the KL to the
    reference would not be 1 and 0 even for equal weights. Layers with gradient checkpointing use it in
    training mode only. So they stay in that mode, without their children, and their dropout rates are 0.

    The block must enclose the backward pass: gradient checkpointing runs the forward again there. Every
    module gets its own mode back, also one that was put into eval mode among others that train.
    """
    rates: list[tuple[nn.Module, str, float]] = []
    with modes_kept(model):
        for module in model.modules():
            module.training = getattr(module, "gradient_checkpointing", False) is True
            if module.training:
                rates += [(module, name, rate) for name, rate in _rates(module).items()]
        try:
            for module, name, _ in rates:
                setattr(module, name, 0.0)
            yield
        finally:
            for module, name, rate in rates:
                setattr(module, name, rate)


def recompute_activations(model: Any, offload: Offload | None = None) -> None:
    """Switches gradient checkpointing on.

    Args:
        model: a Hugging Face model.
        offload: moves what the layers keep to the host.
    """
    # transformers renamed it; the new name's default is the non-reentrant kind.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    if offload is not None:
        offload.attach(model)


def dropout_of(model: nn.Module) -> dict[str, float]:
    """``attention_dropout: 0.1``: the highest rate by name of attribute or module, where above 0."""
    highest: dict[str, float] = {}
    for path, module in model.named_modules():
        found = _rates(module)
        if isinstance(module, _DropoutNd):
            names = [name for name in path.split(".") if "drop" in name] or path.split(".")
            found = {names[-1] or "dropout": module.p}
        for name, rate in found.items():
            if rate > 0:
                highest[name] = max(rate, highest.get(name, 0.0))
    return highest


def _rates(module: nn.Module) -> dict[str, float]:
    """Rates that a module passes to functions: ``attention_dropout``, ``layerdrop`` and the like."""
    values: dict[str, Any] = vars(module)
    return {name: value for name, value in values.items() if "drop" in name and type(value) is float}
