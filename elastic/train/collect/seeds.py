"""Random streams that are functions of names and counters.

A run's data order, budgets and sampling do not depend on how many random numbers were drawn before, so a
resumed run, or one with another number of processes, draws the same.
"""

import random
from enum import IntEnum

from elastic.sampling import splitmix64


class RandomStream(IntEnum):
    """What a stream is for; the numbers are part of a run's identity."""

    ROLLOUT = 1
    ORDER = 2
    BUDGETS = 3
    LENGTHS = 4
    MINIBATCHES = 6
    EVALUATION_LENGTHS = 7
    ADAPTER = 8


def derive(seed: int, stream: RandomStream, *counters: int) -> int:
    """A seed in [0, 2**63) for (seed, stream, counters), by SplitMix64."""
    state = seed
    for value in (int(stream), *counters):
        state = splitmix64(state ^ splitmix64(value))
    return state >> 1


def generator(seed: int, stream: RandomStream, *counters: int) -> random.Random:
    """A fresh Python generator for (seed, stream, counters)."""
    return random.Random(derive(seed, stream, *counters))
