"""Rewards: functions (response text, reference) -> float, or None for a row that they cannot judge.

A reference is `elastic.data.Problem.reference`: the right answer, or the tests of a program.
"""

from collections.abc import Callable
from typing import Any

from elastic.rewards.code import code_reward
from elastic.rewards.length import l1_exact, l1_max
from elastic.rewards.math import math_reward
from elastic.rewards.response import graded_response, solution_text

RewardFunction = Callable[[str, Any], float | None]

__all__ = [
    "RewardFunction",
    "code_reward",
    "graded_response",
    "l1_exact",
    "l1_max",
    "math_reward",
    "solution_text",
]
