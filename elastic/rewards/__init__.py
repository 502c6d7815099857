"""Rewards: functions (response text, reference answer) -> float, or None for a row that they cannot judge."""

from collections.abc import Callable

from elastic.rewards.length import l1_exact, l1_max
from elastic.rewards.math import math_reward
from elastic.rewards.response import graded_response, solution_text

RewardFunction = Callable[[str, str], float | None]

__all__ = ["RewardFunction", "graded_response", "l1_exact", "l1_max", "math_reward", "solution_text"]
