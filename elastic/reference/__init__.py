"""Every op in plain PyTorch: the readable specification, and the baseline of tests and benches."""

from elastic.reference.budget import (
    budget_step_,
    end_thinking_,
    force_logits_,
    forced_next,
    new_state,
    replay,
)
from elastic.reference.logprobs import linear_token_logprobs, token_logprobs
from elastic.reference.loss import (
    GrpoOutput,
    group_advantage,
    grpo_loss,
    linear_grpo_loss,
)
from elastic.reference.sampling import sample
from elastic.sampling import SampleOutput

__all__ = [
    "GrpoOutput",
    "SampleOutput",
    "budget_step_",
    "end_thinking_",
    "force_logits_",
    "forced_next",
    "group_advantage",
    "grpo_loss",
    "linear_grpo_loss",
    "linear_token_logprobs",
    "new_state",
    "replay",
    "sample",
    "token_logprobs",
]
