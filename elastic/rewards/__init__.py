"""Rewards: functions (response text, reference answer) -> float."""

from collections.abc import Callable

from elastic.rewards.length import l1_exact, l1_max
from elastic.rewards.math import math_reward

RewardFunction = Callable[[str, str], float]

__all__ = ["NAMES", "RewardFunction", "l1_exact", "l1_max", "math_reward", "reward_function"]

NAMES = ("math", "tiny")


def reward_function(name: str) -> RewardFunction:
    """The correctness reward of that name.

    Raises:
        ValueError: an unknown name.
    """
    if name == "math":
        return math_reward
    if name == "tiny":
        from elastic.tiny import reward

        return reward
    raise ValueError(f"reward: name must be one of {list(NAMES)}, got {name!r}")
