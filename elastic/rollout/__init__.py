"""Rollouts: completions under budgets, with a slot KV cache over Hugging Face models."""

from elastic.rollout.cuts import cut_thoughts, solutions_behind_cuts
from elastic.rollout.engine import RolloutEngine
from elastic.rollout.plan.plan import OutOfContext
from elastic.rollout.plan.prompts import ChatPrompt, chat_prompts
from elastic.rollout.record.batch import RolloutBatch
from elastic.rollout.record.foreign import foreign_batch
from elastic.rollout.resume import resume
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
    "cut_thoughts",
    "foreign_batch",
    "resume",
    "solutions_behind_cuts",
]
