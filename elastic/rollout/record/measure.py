"""What became of each row of a batch: one meaning of "cut" in training, evaluation and reports."""

from dataclasses import dataclass

from torch import Tensor

from elastic.budget import FinishReason, Phase
from elastic.rollout.record.batch import RolloutBatch

# A limit ended the row, not the model.
_LIMITS = (FinishReason.SOLUTION_BUDGET, FinishReason.TOTAL_BUDGET, FinishReason.LENGTH)


@dataclass(frozen=True, eq=False)
class Measures:
    """One value for each of the R rows, on the batch's device.

    Attributes:
        tokens: [R] int64, everything emitted, markers and forced tokens included: what was paid.
        thinking_tokens: [R] int64, sampled thinking tokens.
        solution_tokens: [R] int64, sampled solution tokens.
        answered: [R] bool, whether the row came to its solution at all.
        stopped: [R] bool, whether the model ended the row, by EOS.
        truncated: [R] bool, whether a limit ended the row: its solution budget, a total cap or the context.
        thinking_cut: [R] bool, whether the thought was ended from outside: its closing was forced, or a limit
            ended the row before its first solution token.
        solution_cut: [R] bool, whether a limit ended the row in its solution.
    """

    tokens: Tensor
    thinking_tokens: Tensor
    solution_tokens: Tensor
    answered: Tensor
    stopped: Tensor
    truncated: Tensor
    thinking_cut: Tensor
    solution_cut: Tensor


def measure(batch: RolloutBatch) -> Measures:
    """Reads the measures off a record; R may be 0.

    `RolloutBatch.thinking_cut` says that closing tokens were forced. A total cap and the end of the context
    force nothing and cut a thought all the same, so here both count.
    """
    answered = (batch.phase == Phase.SOLUTION).any(dim=1)
    truncated = batch.finish_reason == _LIMITS[0]
    for reason in _LIMITS[1:]:
        truncated |= batch.finish_reason == reason
    return Measures(
        tokens=batch.lengths,
        thinking_tokens=batch.thinking_tokens,
        solution_tokens=batch.solution_tokens,
        answered=answered,
        stopped=batch.finish_reason == FinishReason.STOP,
        truncated=truncated,
        thinking_cut=batch.thinking_cut | (truncated & ~answered),
        solution_cut=truncated & answered,
    )
