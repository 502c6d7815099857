"""How far a run has come."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Counters of what is done.

    Attributes:
        step: rollout batches done.
        update: optimizer steps done.
        position: problems taken from the data order.
        evaluated: whether the evaluation that is due after the step, if any, is done too.
    """

    step: int = 0
    update: int = 0
    position: int = 0
    evaluated: bool = True


def is_due(step: int, every: int, steps: int) -> bool:
    """Whether what happens each `every` steps, and after the last one, does after this one; 0 for never."""
    return every > 0 and (step % every == 0 or step == steps)
