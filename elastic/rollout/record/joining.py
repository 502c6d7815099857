"""Which records can be joined: values that the result has once must hold for every row of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn.functional import pad


def check_alike(parts: Sequence[Any]) -> None:
    """Refuses to join records that need a value of their own a row, with a ValueError."""
    first = parts[0]
    if any(part.markers != first.markers for part in parts):
        raise ValueError("batches: made with different markers")
    for part in parts:
        if set(part.eos_ids) != set(first.eos_ids):
            raise ValueError(
                f"batches: made with different eos_ids, {list(first.eos_ids)} and {list(part.eos_ids)}"
            )
        if set(part.stop) != set(first.stop):
            raise ValueError(
                f"batches: made with different stop strings, {list(first.stop)} and {list(part.stop)}"
            )
        if part.device != first.device:
            raise ValueError(f"batches: on different devices, {first.device} and {part.device}")
    named = [part.tokenizer for part in parts if part.tokenizer is not None]
    if any(not same_vocabulary(tokenizer, named[0]) for tokenizer in named):
        raise ValueError("batches: made with tokenizers of different vocabularies")


def same_vocabulary(one: Any, other: Any) -> bool:
    """Whether two tokenizers give the same ids the same texts, as far as can be seen."""
    if one is other or not (hasattr(one, "get_vocab") and hasattr(other, "get_vocab")):
        return type(one) is type(other)
    return one.get_vocab() == other.get_vocab()


def widen(piece: Tensor, width: int, value: int) -> Tensor:
    """[R, width] of [R, T], filled with a value."""
    return pad(piece, (0, width - piece.shape[1]), value=value)
