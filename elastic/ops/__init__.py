"""Fused ops on CPU and CUDA. Every op has a plain PyTorch twin in `elastic.reference`."""

from elastic.ops import _extension as _extension  # registers torch.ops.elastic; must come first
from elastic.ops.advantage import group_advantage
from elastic.ops.budget import budget_step_, end_thinking_, force_logits_, forced_next, new_state, replay
from elastic.ops.linear_logprobs import linear_token_logprobs
from elastic.ops.linear_loss import linear_grpo_loss
from elastic.ops.logprobs import token_logprobs
from elastic.ops.loss import GrpoOutput, grpo_loss
from elastic.ops.sample import SampleOutput, sample
from elastic.ops.state import (
    finish_reason,
    is_done,
    last_phase,
    solution_used,
    state_phase,
    thinking_cut,
    thinking_used,
)

__all__ = [
    "GrpoOutput",
    "SampleOutput",
    "budget_step_",
    "end_thinking_",
    "finish_reason",
    "force_logits_",
    "forced_next",
    "group_advantage",
    "grpo_loss",
    "is_done",
    "last_phase",
    "linear_grpo_loss",
    "linear_token_logprobs",
    "new_state",
    "replay",
    "sample",
    "solution_used",
    "state_phase",
    "thinking_cut",
    "thinking_used",
    "token_logprobs",
]
