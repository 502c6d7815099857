"""Rewards for programs: the block that a solution states, run on its tests in a sandbox."""

from elastic.rewards.code.reward import code_grader, code_reward
from elastic.rewards.code.run import Rules

__all__ = ["Rules", "code_grader", "code_reward"]
