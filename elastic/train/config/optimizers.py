"""The optimizers that ``optim.name`` knows: their classes, and which keys of ``[optim]`` each reads."""

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

from elastic.data.import_path import is_path, load_name

# Keys with hyperparameters that not every optimizer has -> the constructor's argument.
HYPERPARAMETERS = {"beta1": "betas", "beta2": "betas", "eps": "eps", "momentum": "momentum"}
_ADAM = ("beta1", "beta2", "eps")
_BETAS = ("beta1", "beta2")


class Known(NamedTuple):
    """An optimizer with a name.

    Attributes:
        path: import path of its class.
        reads: which `HYPERPARAMETERS` it has.
        arguments: what else its constructor gets, unless ``optim.options`` says otherwise.
        beside: the optimizer of those parameters that this one does not take; empty for none.
        beta2: its default.
        momentum: its default.
    """

    path: str
    reads: tuple[str, ...]
    arguments: Mapping[str, Any] = {}
    beside: str = ""
    beta2: float = 0.999
    momentum: float = 0.9


OPTIMIZERS = {
    # fused: one kernel for all parameters, on the CPU too
    "adamw": Known("torch.optim:AdamW", _ADAM, {"fused": True}),
    "adamw_8bit": Known("bitsandbytes.optim:AdamW8bit", _ADAM),
    "paged_adamw_8bit": Known("bitsandbytes.optim:PagedAdamW8bit", _ADAM),
    "paged_adamw_32bit": Known("bitsandbytes.optim:PagedAdamW32bit", _ADAM),
    "lion_32bit": Known("bitsandbytes.optim:Lion32bit", _BETAS, beta2=0.99),
    "lion_8bit": Known("bitsandbytes.optim:Lion8bit", _BETAS, beta2=0.99),
    "paged_lion_8bit": Known("bitsandbytes.optim:PagedLion8bit", _BETAS, beta2=0.99),
    # That of torch multiplies the rate by the size of the weights; this one's steps are of size lr.
    "adafactor": Known(
        "transformers.optimization:Adafactor", (), {"scale_parameter": False, "relative_step": False}
    ),
    "sgd": Known("torch.optim:SGD", ("momentum",), {"fused": True}),
    # Its steps are made as large as AdamW's, so that one rate is right for both (arXiv 2502.16982).
    "muon": Known(
        "torch.optim:Muon", ("momentum",), {"adjust_lr_fn": "match_rms_adamw"}, "adamw", momentum=0.95
    ),
}


def check_name(name: str) -> None:
    """Raises ValueError where `name` is neither known nor an import path."""
    if name in OPTIMIZERS or is_path(name):
        return
    near = difflib.get_close_matches(name, OPTIMIZERS, n=2)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(
        f"optim.name: unknown optimizer '{name}'{hint} (known: {', '.join(OPTIMIZERS)}; a class or function "
        "of yours is named 'package.module:name' or 'file.py:name')"
    )


def reads(name: str) -> tuple[str, ...]:
    """Which `HYPERPARAMETERS` have an effect; an import path takes options alone."""
    if name not in OPTIMIZERS:
        return ()
    known = OPTIMIZERS[name]
    return known.reads + reads(known.beside)


def keys_of_arguments(name: str) -> dict[str, str]:
    """The constructor's arguments that ``[optim]`` has keys for -> these keys."""
    keys = {"params": "the model", "lr": "optim.lr", "weight_decay": "optim.weight_decay"}
    for key in OPTIMIZERS[name].reads if name in OPTIMIZERS else ():
        argument = HYPERPARAMETERS[key]
        keys[argument] = f"{keys[argument]} and optim.{key}" if argument in keys else f"optim.{key}"
    return keys


def optimizer_class(name: str, options: Collection[str]) -> Callable[..., Any]:
    """What makes the optimizer: a class, or a function whose first argument are the parameter groups.

    Args:
        name: ``optim.name``.
        options: names of ``optim.options``, compared with what it takes.

    Raises:
        ModuleNotFoundError: bitsandbytes is needed and not installed.
        ValueError: it cannot be imported or called, or does not take an option.
    """
    path = OPTIMIZERS[name].path if name in OPTIMIZERS else name
    if path.startswith("bitsandbytes.") and find_spec("bitsandbytes") is None:
        raise ModuleNotFoundError(
            f"optim.name: '{name}' needs bitsandbytes; install it with: pip install 'elastic[bitsandbytes]'",
            name="bitsandbytes",
        )
    try:
        make: Callable[..., Any] = load_name(path)
    except ValueError as error:
        raise ValueError(f"optim.name: {error}") from error
    if not callable(make):
        raise ValueError(f"optim.name: '{name}' is {make!r}, which cannot be called")
    parameters = inspect.signature(make).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return make
    for option in options:
        if option not in parameters:
            known = [argument for argument in parameters if argument not in keys_of_arguments(name)]
            raise ValueError(f"optim.options: '{name}' takes no '{option}' (it takes {', '.join(known)})")
    return make
