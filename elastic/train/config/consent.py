"""Changes of a run that its owner agrees to when it is resumed: ``train.allow_changes``."""

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

# What the files of a checkpoint hold: another value would not fit them.
FIXED = ("model.path", "adapter.*", "optim.name", "optim.groups", "optim.frozen")


def check_consent(allowed: Sequence[str], config: Any) -> None:
    """Checks ``train.allow_changes`` against the tables of a `TrainConfig`.

    Raises:
        ValueError: an entry is no ``table.key`` or ``table.*``, or names what can never change.
    """
    tables = {item.name: getattr(config, item.name) for item in fields(config)}
    known = [f"{name}.*" for name, table in tables.items() if is_dataclass(table)]
    known += [
        f"{name}.{item.name}"
        for name, table in tables.items()
        if is_dataclass(table)
        for item in fields(table)
    ]
    for entry in allowed:
        if entry not in known:
            near = difflib.get_close_matches(entry, known, n=3)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ValueError(f"train.allow_changes: no key '{entry}'{hint} (as 'optim.lr', or 'optim.*')")
        if _is_fixed(entry):
            raise ValueError(f"train.allow_changes: '{entry}' cannot change, checkpoints hold what it names")


def is_allowed(name: str, allowed: Iterable[str]) -> bool:
    """Whether ``table.key`` may change."""
    return not _is_fixed(name) and bool(_entries_of(name) & set(allowed))


def _is_fixed(name: str) -> bool:
    return bool(_entries_of(name) & set(FIXED))


def _entries_of(name: str) -> set[str]:
    """What may name a key: itself, or its whole table."""
    return {name, f"{name.partition('.')[0]}.*"}


def split_changes(changes: Iterable[str], allowed: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divides what `changed_keys` refuses.

    Args:
        changes: ``table.key: old -> new``.
        allowed: ``train.allow_changes``.

    Returns:
        Changes that stay refused, and those that were agreed to.
    """
    refused: list[str] = []
    agreed: list[str] = []
    for change in changes:
        (agreed if is_allowed(change.partition(":")[0], allowed) else refused).append(change)
    return refused, agreed


def how_to_agree(refused: Iterable[str]) -> str:
    """A clause for messages: the entry that would allow the changes; empty where none can."""
    names = [change.partition(":")[0] for change in refused]
    if any(map(_is_fixed, names)):
        return ""
    return f"; to change them on purpose: train.allow_changes = {json.dumps(names)}"
