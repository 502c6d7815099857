"""The ids that end a row and the one that pads it, as callers may give them."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

# One id, some, none (an empty list), or None for what model and tokenizer say themselves.
EosIds: TypeAlias = "int | Collection[int] | None"


def eos_tuple(value: Any) -> tuple[int, ...]:
    """EOS ids, ascending, each once. An empty list is legal: then no token ends a row.

    Args:
        value: one id, or a list, tuple, set, array or tensor of ids.

    Raises:
        TypeError: anything else: a generator, which can be read only once, a text, a bool.
        ValueError: a negative id.
    """
    ids = [_token_id(item, value) for item in _items(value)]
    if any(i < 0 for i in ids):
        raise ValueError(f"eos_ids: expected ids from 0, got {sorted(ids)}")
    return tuple(sorted(set(ids)))


def tokenizer_eos(tokenizer: Any) -> tuple[int, ...]:
    """The tokenizer's EOS id; empty without a tokenizer, or where it names none."""
    own = getattr(tokenizer, "eos_token_id", None)
    return () if own is None else (own,)


def pad_of(tokenizer: Any, eos: Collection[int]) -> int:
    """What finished rows emit: the tokenizer's padding, the least EOS id where it names none, or 0."""
    own = getattr(tokenizer, "pad_token_id", None)
    return min(eos, default=0) if own is None else own


def _items(value: Any) -> Iterable[Any]:
    if hasattr(value, "tolist"):  # a tensor, an array or one of their numbers
        value = value.tolist()
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Collection):
        return [value]
    return value


def _token_id(item: Any, value: Any) -> int:
    expected = f"eos_ids: expected a token id or a list of them, got {value!r}"
    if isinstance(item, bool):
        raise TypeError(expected)
    try:
        return operator.index(item)
    except TypeError:
        raise TypeError(expected) from None
