"""Which parameters are trained, and in which groups an optimizer gets them."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from elastic.train.config.optim import OptimConfig


def freeze(model: nn.Module, config: OptimConfig) -> None:
    """Takes the parameters that ``optim.frozen`` names out of the training.

    Raises:
        ValueError: a pattern is found in no parameter's name, or none is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in config.frozen:
        _check_found(pattern, names, "optim.frozen")
    for name, parameter in model.named_parameters():
        if any(re.search(pattern, name) for pattern in config.frozen):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("optim.frozen: no parameter is left to train")


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Every trained parameter in one group, with ``lr``, the share ``lr_scale`` of it, and ``weight_decay``.

    Weight decay is for matrices only, as biases and norms have no scale to shrink. With an optimizer that
    takes hidden matrices only, groups have ``hidden``, and those with hidden matrices come first.

    Raises:
        ValueError: a pattern of ``optim.groups`` is found in no trained parameter's name.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for pattern, _, _ in config.groups:
        _check_found(pattern, [name for name, _ in trained], "optim.groups")
    others = _not_hidden(model)
    rows = [*config.groups, ("", 1.0, config.weight_decay)]  # the last one's pattern is in every name
    groups: dict[tuple[bool, bool, int], list[nn.Parameter]] = {}
    for name, parameter in trained:
        row = next(index for index, (pattern, _, _) in enumerate(rows) if re.search(pattern, name))
        hidden = config.name == "muon" and parameter.ndim == 2 and id(parameter) not in others
        # By the row, not by its values: the decay may change on resume, and groups must stay.
        groups.setdefault((hidden, parameter.ndim >= 2, row), []).append(parameter)
    return [
        {
            "params": members,
            "lr": config.lr * rows[row][1],
            "lr_scale": rows[row][1],
            "weight_decay": rows[row][2] if decayed else 0.0,
            "hidden": hidden,
        }
        for (hidden, decayed, row), members in sorted(groups.items(), key=lambda item: not item[0][0])
    ]


def _not_hidden(model: Any) -> set[int]:
    """Ids of the weights of embeddings and head, whose rows are tokens."""
    modules = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    head = model.get_output_embeddings()
    return {id(module.weight) for module in (*modules, head) if module is not None}


def _check_found(pattern: str, names: Iterable[str], key: str) -> None:
    names = list(names)
    if any(re.search(pattern, name) for name in names):
        return
    parts = {part for name in names for part in (name, *name.split("."))}
    near = difflib.get_close_matches(pattern, sorted(parts), n=3)
    shown = f"near it: {', '.join(near)}" if near else f"they are as '{names[0]}' and '{names[-1]}'"
    raise ValueError(f"{key}: '{pattern}' is found in none of {len(names)} parameters' names ({shown})")
