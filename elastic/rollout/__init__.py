"""Rollouts: completions under budgets, with a slot KV cache over Hugging Face models."""

from elastic.rollout.engine import RolloutEngine
from elastic.rollout.plan import OutOfContext
from elastic.rollout.prompts import ChatPrompt, chat_prompts
from elastic.rollout.record import RolloutBatch
from elastic.rollout.stream import Finished, Stream
from elastic.rollout.watch import Token

__all__ = [
    "ChatPrompt",
    "Finished",
    "OutOfContext",
    "RolloutBatch",
    "RolloutEngine",
    "Stream",
    "Token",
    "chat_prompts",
]
