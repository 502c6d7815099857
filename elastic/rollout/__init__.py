"""Rollouts: completions under budgets, with a slot KV cache over Hugging Face models."""

from elastic.rollout.engine import RolloutEngine
from elastic.rollout.plan import OutOfContext
from elastic.rollout.prompts import ChatPrompt, chat_prompts
from elastic.rollout.record import RolloutBatch

__all__ = ["ChatPrompt", "OutOfContext", "RolloutBatch", "RolloutEngine", "chat_prompts"]
