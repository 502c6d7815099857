"""Rewards for programs: the block that a solution states, run on its tests in a sandbox."""

from elastic.rewards.code.reward import code_reward

__all__ = ["code_reward"]
