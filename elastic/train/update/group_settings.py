"""The settings of an optimizer's parameter groups: the configuration's, also behind a checkpoint's state."""

from typing import Any

Settings = list[dict[str, Any]]


def settings_of(optimizer: Any) -> Settings:
    """Rates, decays, betas and the like of each group."""
    return [
        {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
    ]


def apply_settings(optimizer: Any, settings: Settings) -> None:
    """Gives the groups these settings again.

    A checkpoint's state brings those that it was made with, which a resumed run may change.
    """
    for group, values in zip(optimizer.param_groups, settings, strict=True):
        group.update(values)
