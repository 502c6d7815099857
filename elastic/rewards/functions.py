"""Reward functions of one's own: found by import path, and called by the names of their parameters.

A function that asks for ``sample`` is called once for each row. One that asks for ``prompts``,
``completions``, ``completion_ids`` or ``samples`` is called once for all rows, with lists, as TRL's trainers
call theirs. Any other is a `elastic.rewards.RewardFunction`: (graded response, reference). docs/rewards.md
has examples.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

from elastic.data.import_path import load_name

Kind = Literal["response", "sample", "batch"]

LISTS = ("prompts", "completions", "completion_ids", "samples")
ANSWER = "answer"  # every problem has one; a kept column of this name comes first


class Asked(NamedTuple):
    """What a reward function asks for.

    Attributes:
        kind: ``sample``: once for each row; ``batch``: once for all rows; ``response``: (response,
            reference).
        lists: names of `LISTS` that a ``batch`` function gets.
        columns: names of columns that it cannot do without.
        optional: names of columns that have a default.
        everything: whether it takes any name (``**kwargs``).
        is_async: whether it gives an awaitable.
    """

    kind: Kind
    lists: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    everything: bool = False
    is_async: bool = False


def called(text: str) -> str:
    """What the function of an import path is called in metrics: what stands behind the colon."""
    return text.rpartition(":")[2]


def name_of(function: Any) -> str:
    """What a function is called in metrics and messages."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def load_function(path: str) -> Callable[..., Any]:
    """The function that an import path names.

    Args:
        path: ``package.module:function``, or ``file.py:function`` with a path from the working directory.

    Raises:
        ValueError: no such file or module, an error while it is imported, no such name in it, or a thing
            that cannot be called.
    """
    function = load_name(path)
    if isinstance(function, type) or not callable(function):
        raise ValueError(f"'{path}': expected a function, got {function!r}")
    return function


def asked_by(function: Callable[..., Any], name: str) -> Asked:
    """What a function asks for, by its signature.

    Raises:
        ValueError: its parameters do not say how to call it.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ValueError(f"'{name}': has no signature that says how to call it: {error}") from error
    parameters = signature.parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in named if p.default is p.empty]
    names = [p.name for p in named]
    lists = tuple(own for own in names if own in LISTS)
    everything = any(p.kind == p.VAR_KEYWORD for p in parameters)
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
    if "sample" in names:
        if others := [own for own in needed if own != "sample"]:
            raise ValueError(
                f"'{name}': asks for sample, which has everything, and for {', '.join(others)} too"
            )
        return Asked("sample", is_async=is_async)
    if lists:
        rest = [own for own in names if own not in lists]
        columns = tuple(own for own in rest if own in needed)
        optional = tuple(own for own in rest if own not in needed)
        return Asked("batch", lists, columns, optional, everything, is_async)
    try:
        signature.bind("response", "reference")
    except TypeError:
        if everything:
            return Asked("batch", columns=tuple(needed), everything=True, is_async=is_async)
        found = ", ".join(map(str, parameters)) or "none"
        raise ValueError(
            f"'{name}': expected a function of sample, of some of {', '.join(LISTS)}, or of (response, "
            f"reference), got the parameters {found}"
        ) from None
    if is_async:
        raise ValueError(f"'{name}': an async function asks for sample, or for some of {', '.join(LISTS)}")
    return Asked("response")
