"""How a step's rows are spread: lengths over all of them, rewards within their groups."""

import math

from torch import Tensor


def spread(tokens: Tensor, rewards: Tensor, samples: int) -> dict[str, float]:
    """Metrics of the rows of all processes.

    Args:
        tokens: [R] emitted tokens.
        rewards: [R] group by group; NaN for a row without one.
        samples: rows of a group.

    Returns:
        Shortest, 95th percentile (the least length that 95 % of the rows do not exceed) and longest; and the
        mean over the groups of the standard deviation (Bessel) of their rewards; NaN where no group has two.
    """
    ordered = tokens.sort().values.tolist()
    groups = rewards.double().view(-1, samples)
    given = (~groups.isnan()).sum(1)
    mean = groups.nanmean(1, keepdim=True)
    deviations = ((groups - mean).square().nansum(1) / (given - 1)).sqrt()[given > 1]
    return {
        "completion_tokens_min": ordered[0],
        "completion_tokens_p95": ordered[math.ceil(0.95 * len(ordered)) - 1],
        "completion_tokens_max": ordered[-1],
        "reward_std": deviations.mean().item() if len(deviations) else math.nan,
    }
