"""Advantages of thoughts whose solutions are graded at several cuts: budget relative policy optimization."""

import torch
from torch import Tensor


def thought_advantages(rewards: Tensor, weights: Tensor) -> Tensor:
    """Advantage of each segment of each thought: what is still to come, less what was to be expected.

    Segment s lies between the cuts s - 1 and s. Only cuts from s on see its tokens, so its return is the sum
    of their weighted rewards, R_s = sum_{j >= s} w_j r_j with weights that add up to 1. Two expectations are
    mixed by how far the thought has come, (s V1 + (S - s) V2) / S: V1 is what the thought had reached before,
    the mean of its earlier rewards, each counting twice as much as the one before it, times sum_{j >= s} w_j;
    V2 is the mean return of the problem's thoughts.

    Source: AnytimeReasoner (arXiv 2505.13438), section on BRPO; factor 2 and mixture as in its code. No
    deviation divides it there either.

    Args:
        rewards: [K, G, S] float of K problems, G thoughts of each and S cuts; NaN where there is none.
        weights: [S] float, at least 0 and not all 0.

    Returns:
        [K, G, S] of the rewards' dtype; 0 for a thought that lacks a reward, which no mean counts.
    """
    graded = ~rewards.isnan().any(-1, keepdim=True)
    known = rewards.where(graded, 0)
    cuts = known.shape[-1]
    weights = (weights / weights.sum()).to(known)
    ahead = weights.flip(0).cumsum(0).flip(0)
    returns = (known * weights).flip(-1).cumsum(-1).flip(-1)
    mean = returns.sum(1, keepdim=True) / graded.sum(1, keepdim=True).clamp(min=1)
    doubling = 2.0 ** torch.arange(cuts).to(known)
    reached = (known * doubling).cumsum(-1) / doubling.cumsum(0)  # up to each cut, that cut included
    before = torch.nn.functional.pad(reached, (1, 0))[..., :cuts] * ahead
    share = torch.arange(cuts).to(known) / cuts
    return (returns - share * before - (1 - share) * mean).where(graded, 0)
