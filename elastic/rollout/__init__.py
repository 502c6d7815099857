"""Rollouts: completions under budgets, with a slot KV cache over Hugging Face models."""

from elastic.rollout.engine import RolloutEngine
from elastic.rollout.plan import OutOfContext
from elastic.rollout.prompts import chat_prompts
from elastic.rollout.record import RolloutBatch

__all__ = ["OutOfContext", "RolloutBatch", "RolloutEngine", "chat_prompts"]
