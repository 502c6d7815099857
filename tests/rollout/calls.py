"""Calls of many different rows, and what is checked of their records and warnings."""

import random
import warnings
from collections.abc import Callable, Sequence

import torch

from elastic import Budget, RolloutBatch, Sampling, replay

PROMPTS = ["ab1+2=<think>", "c<think>", "hello00001+2<think>\n", "x=y", "a<think>b</think>", "zz<think>"]
HOT = Sampling(temperature=1.0, seed=3)
# What `replay` says of a batch.
ANNOTATION = [
    "source",
    "phase",
    "lengths",
    "thinking_tokens",
    "solution_tokens",
    "thinking_cut",
    "finish_reason",
]
FIELDS = ["tokens", *ANNOTATION, "seeds", "prompt_index"]  # those that rounding does not touch


def mixed_budgets(rows: int, seed: int = 0) -> list[Budget]:
    rng = random.Random(seed)
    kinds = [
        lambda: Budget(thinking=rng.randrange(30), solution=rng.randrange(1, 20)),
        lambda: Budget(thinking=rng.randrange(30), solution=rng.randrange(1, 20), closing="qq</think>\n"),
        lambda: Budget(thinking=20, solution=8, notices=((5, "mind"),), grace=4, boundary=("a", "e")),
        lambda: Budget(thinking=20, solution=8, min_thinking=10, max_extensions=2, extension="w"),
        lambda: Budget(thinking=12, solution=30, on_reopen="forbid"),
        lambda: Budget.vanilla(rng.randrange(1, 40)),
        lambda: Budget.unlimited(),
    ]
    return [rng.choice(kinds)() for _ in range(rows)]


def assert_same(batch: RolloutBatch, expected: RolloutBatch, fields: Sequence[str] = FIELDS) -> None:
    for name in fields:
        assert torch.equal(getattr(batch, name), getattr(expected, name)), name


def assert_replayed(batch: RolloutBatch, budget: Budget | Sequence[Budget]) -> None:
    """`replay` gives the annotation that the batch has."""
    assert_same(replay(batch, budget, batch.markers), batch, ANNOTATION)


def said(call: Callable[[], object]) -> list[str]:
    """The warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught]
