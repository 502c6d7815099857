"""Checks of a budget's arguments: each returns the value in its final form or raises ValueError naming it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

# Counts are 32-bit on the device; a budget plus its grace stays far below.
LARGEST_BUDGET = 2**30
# A row's state counts both in one word.
MOST_EXTENSIONS = 2**16 - 1
MOST_NOTICES = 2**15 - 1

Text = str | tuple[int, ...]


def integer(name: str, value: Any, least: int, otherwise: str = "", most: int = LARGEST_BUDGET) -> int:
    """`value` as an int from `least` to `most`; bool and float are none."""
    expected = f"{name}: expected an integer from {least} to {most}{otherwise}, got {value!r}"
    if isinstance(value, bool):
        raise ValueError(expected)
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(expected) from None
    if not least <= number <= most:
        raise ValueError(expected)
    return number


def choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses what is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")


def flag(name: str, value: Any) -> None:
    """Refuses what is not a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected True or False, got {value!r}")


def text(name: str, value: Any) -> Text:
    """A non-empty string, or token ids as a tuple."""
    checked = value if isinstance(value, str) else ids(name, value)
    if not checked:
        raise ValueError(f"{name}: expected a text or token ids, got {value!r}")
    return checked


def ids(name: str, value: Any) -> tuple[int, ...]:
    """A sequence of token ids as a tuple."""
    if not isinstance(value, Sequence):
        raise ValueError(f"{name}: expected a text or token ids, got {value!r}")
    return tuple(integer(f"{name}, token id", item, 0) for item in value)


def notices(value: Any) -> tuple[tuple[int, Text], ...]:
    """Pairs (used thinking tokens, text), ascending."""
    pairs: list[tuple[int, Text]] = []
    for item in value:
        if not isinstance(item, Sequence) or isinstance(item, str) or len(item) != 2:
            raise ValueError(f"notices: expected pairs (used thinking tokens, text), got {item!r}")
        pairs.append((integer("notices, used thinking tokens", item[0], 0), text("notices, text", item[1])))
    if len(pairs) > MOST_NOTICES:
        raise ValueError(f"notices: expected at most {MOST_NOTICES} of them, got {len(pairs)}")
    return tuple(sorted(pairs, key=lambda notice: notice[0]))


def boundary(value: Any) -> tuple[str | int, ...] | None:
    """Boundary texts or token ids as a tuple; one string alone is one text."""
    if value is None:
        return None
    items = (value,) if isinstance(value, str) else tuple(value)
    if not items or "" in items:
        raise ValueError(f"boundary: expected texts or token ids, none of them empty, got {value!r}")
    return tuple(item if isinstance(item, str) else integer("boundary, token id", item, 0) for item in items)
