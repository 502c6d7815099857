"""The table of a training configuration that says which optimizer takes which steps."""

import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from elastic.train.config.optimizers import (
    HYPERPARAMETERS,
    OPTIMIZERS,
    check_name,
    keys_of_arguments,
    optimizer_class,
)
from elastic.train.config.schema import Section, limited

Option = bool | int | float | str | tuple[float, ...]


@dataclass(frozen=True)
class OptimConfig(Section):
    """``[optim]``: the optimizer, its parameter groups and the schedule of its rate.

    Attributes:
        name: ``adamw``, ``sgd``, ``adafactor`` (without a first moment), ``muon`` (for the layers' matrices;
            AdamW for embeddings, head and vectors); through bitsandbytes ``adamw_8bit``,
            ``paged_adamw_8bit``, ``paged_adamw_32bit``, ``lion_32bit``, ``lion_8bit``, ``paged_lion_8bit``;
            or ``package.module:name`` or ``file.py:name``, a class or function of yours that gets parameter
            groups, ``lr`` and the options.
        options: [name, value] pairs: further arguments of the optimizer's constructor.
        lr: peak learning rate.
        schedule: after the warm-up: ``constant``; ``linear`` or ``cosine`` down to ``final_lr``;
            ``warmup_stable_decay``: constant, then linear over the last ``decay_ratio`` of the updates; or
            ``inverse_sqrt``: lr x sqrt(warm-up / updates done).
        warmup_updates: optimizer steps over which lr rises linearly from lr / warmup_updates.
        warmup_ratio: the same as a share of the run's updates, rounded up.
        decay_ratio: share of the updates over which ``warmup_stable_decay`` falls.
        final_lr: lr of the last update, as a share of the peak.
        weight_decay: decoupled, but for ``sgd``; not applied to biases and norms.
        beta1: of AdamW and Lion.
        beta2: of AdamW and Lion; absent: 0.999, of Lion 0.99.
        eps: of AdamW.
        momentum: of ``sgd`` and ``muon``; absent: 0.9 and 0.95.
        max_grad_norm: gradients are scaled down to this norm; 0 for off.
        groups: [pattern, share of lr, weight decay] for parameters of their own: the first row whose regular
            expression is found in a parameter's name holds.
        frozen: regular expressions: parameters in whose names one of them is found are not trained.
    """

    TABLE: ClassVar[str] = "optim"

    name: str = "adamw"
    options: tuple[tuple[str, Option], ...] = ()
    lr: float = limited(1e-6, above=0)
    schedule: Literal["constant", "linear", "cosine", "warmup_stable_decay", "inverse_sqrt"] = "constant"
    warmup_updates: int = limited(0, low=0)
    warmup_ratio: float = limited(0.0, low=0, high=1)
    decay_ratio: float = limited(0.1, above=0, high=1)
    final_lr: float = limited(0.0, low=0, high=1)
    weight_decay: float = limited(0.0, low=0)
    beta1: float = limited(0.9, low=0, high=0.999999)
    beta2: float | None = limited(None, low=0, high=0.999999)
    eps: float = limited(1e-8, above=0)
    momentum: float | None = limited(None, low=0, high=0.999999)
    max_grad_norm: float = limited(1.0, low=0)
    groups: tuple[tuple[str, float, float], ...] = ()
    frozen: tuple[str, ...] = ()

    def check(self) -> None:
        check_name(self.name)
        self._check_options()
        if self.warmup_updates and self.warmup_ratio:
            raise ValueError(
                f"optim.warmup_ratio: must be 0 with optim.warmup_updates = {self.warmup_updates}, "
                f"got {self.warmup_ratio:g}"
            )
        if self.schedule == "inverse_sqrt" and not (self.warmup_updates or self.warmup_ratio):
            raise ValueError(
                "optim.schedule: 'inverse_sqrt' needs optim.warmup_updates or warmup_ratio: its rate is "
                "lr x sqrt(warm-up / updates done)"
            )
        for pattern, scale, decay in self.groups:
            _check_pattern(pattern, "optim.groups")
            if scale <= 0:
                raise ValueError(
                    f"optim.groups: the share of lr must be above 0, got {scale:g} for '{pattern}'; "
                    "optim.frozen leaves parameters as they are"
                )
            if decay < 0:
                raise ValueError(
                    f"optim.groups: the weight decay must be at least 0, got {decay:g} for '{pattern}'"
                )
        for pattern in self.frozen:
            _check_pattern(pattern, "optim.frozen")

    def _check_options(self) -> None:
        names, keys = [name for name, _ in self.options], keys_of_arguments(self.name)
        for name in names:
            if name in keys:
                raise ValueError(f"optim.options: '{name}' is given by {keys[name]}")
            if names.count(name) > 1:
                raise ValueError(f"optim.options: '{name}' is there twice")

    def warmup(self, updates: int) -> int:
        """Updates of warm-up in a run of so many."""
        return self.warmup_updates or math.ceil(self.warmup_ratio * updates)

    def check_available(self) -> None:
        """Checks that the optimizer is installed and takes the options; imports it.

        Raises:
            ModuleNotFoundError: bitsandbytes is needed and not installed.
            ValueError: it cannot be imported, or does not take an option.
        """
        optimizer_class(self.name, dict(self.options))

    def arguments(self, name: str) -> dict[str, Any]:
        """What the constructor of the optimizer `name` gets besides the parameter groups."""
        values: dict[str, Any] = {"lr": self.lr}
        if name in OPTIMIZERS:
            known = OPTIMIZERS[name]
            beta2 = known.beta2 if self.beta2 is None else self.beta2
            momentum = known.momentum if self.momentum is None else self.momentum
            given = {"betas": (self.beta1, beta2), "eps": self.eps, "momentum": momentum}
            values |= {HYPERPARAMETERS[key]: given[HYPERPARAMETERS[key]] for key in known.reads}
            values |= known.arguments
        return values | dict(self.options) if name == self.name else values


def _check_pattern(pattern: str, key: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{key}: '{pattern}' is no regular expression: {error}") from error
