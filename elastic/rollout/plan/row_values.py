"""Arguments of a call that are one for all, per prompt or per row, checked and spread over the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from torch import Tensor

from elastic.sampling import Sampling, row_seed

T = TypeVar("T")
_MAX_SEED = 2**63 - 1


def of_rows(name: str, kind: type[T], value: Any, prompts: int, samples: int) -> list[T]:
    """One value per row.

    Args:
        name: of the argument.
        kind: what each value is.
        value: one, one per prompt, or one per row.

    Raises:
        TypeError, ValueError: naming the argument, its value and the limit.
    """
    if isinstance(value, kind):
        return [value] * (prompts * samples)
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    if not isinstance(value, Sequence) or not all(isinstance(own, kind) for own in value):
        raise TypeError(f"{name}: expected {article} {kind.__name__} or a list of them, got {value!r}")
    if len(value) == prompts:
        return [own for own in value for _ in range(samples)]
    if len(value) != prompts * samples:
        rows = f" or {prompts * samples} (one per row)" if samples > 1 else ""
        raise ValueError(f"{name}: expected {prompts} (one per prompt){rows}, got {len(value)}")
    return list(value)


def seeds_of(seeds: Any, samplings: Sequence[Sampling]) -> tuple[list[int], int | None]:
    """The seed of each row, and the one that all of them derive from, if there is one.

    A row's seed derives from its own sampling's and its number. Samplings without one share one that is drawn
    for the call.

    Args:
        seeds: the rows' own, or None.
        samplings: one per row.

    Raises:
        ValueError: naming the argument, its value and the limit.
    """
    if seeds is not None:
        return _given(seeds, len(samplings)), None
    drawn: int | None = None
    found = []
    for sampling in samplings:
        if sampling.seed is None and drawn is None:
            drawn = sampling.seeded().seed
        seed = drawn if sampling.seed is None else sampling.seed
        assert seed is not None  # one was drawn
        found.append(seed)
    run_seed = found[0] if len(set(found)) == 1 else None
    return [row_seed(seed, row) for row, seed in enumerate(found)], run_seed


def _given(seeds: Any, rows: int) -> list[int]:
    values = seeds.tolist() if isinstance(seeds, Tensor) else list(seeds)
    if len(values) != rows:
        raise ValueError(f"seeds: expected {rows}, one per row, got {len(values)}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_SEED:
            raise ValueError(f"seeds: expected integers 0 .. 2^63-1, got {value!r}")
    return values


def stop_strings(stop: Any) -> tuple[str, ...]:
    """The strings that end a row, each once.

    Args:
        stop: a list of them, a single one, or None.

    Raises:
        TypeError, ValueError: no list of texts, or an empty text.
    """
    if stop is None:
        return ()
    listed = [stop] if isinstance(stop, str) else stop
    if not isinstance(listed, Sequence) or not all(isinstance(string, str) for string in listed):
        raise TypeError(f"stop: expected a list of texts, got {stop!r}")
    if "" in listed:
        raise ValueError(f"stop: expected texts of at least one character, got {stop!r}")
    return tuple(dict.fromkeys(listed))
