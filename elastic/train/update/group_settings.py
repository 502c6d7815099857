"""The settings of an optimizer's parameter groups: the configuration's, also behind a checkpoint's state."""

from typing import Any

from elastic.train.config.optim import OptimConfig
from elastic.train.config.optimizers import HYPERPARAMETERS

Settings = list[dict[str, Any]]


def settings_of(optimizer: Any, config: OptimConfig) -> Settings:
    """Of each group what the configuration gives: rates, decays, betas and the like.

    Some optimizers keep state of their own in their groups, which is none of this.
    """
    given = {"lr", "lr_scale", "weight_decay", *HYPERPARAMETERS.values(), *dict(config.options)}
    return [
        {name: value for name, value in group.items() if name in given} for group in optimizer.param_groups
    ]


def apply_settings(optimizer: Any, settings: Settings) -> None:
    """Gives the groups these settings again.

    A checkpoint's state brings those that it was made with, which a resumed run may change.
    """
    for group, values in zip(optimizer.param_groups, settings, strict=True):
        group.update(values)
