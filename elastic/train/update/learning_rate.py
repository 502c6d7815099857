"""The learning rate, a function of the update's number alone, so that it needs no saving."""

import math

from elastic.train.config.optim import OptimConfig


def learning_rate(config: OptimConfig, update: int, updates: int) -> float:
    """The rate of one optimizer step.

    Args:
        config: peak rate, warm-up and schedule.
        update: which step, from 0.
        updates: of the whole run; the last one gets ``final_lr`` times the peak (linear, cosine).
    """
    if update < config.warmup_updates:
        return config.lr * (update + 1) / config.warmup_updates
    if config.schedule == "constant":
        return config.lr
    share = (update - config.warmup_updates) / max(1, updates - 1 - config.warmup_updates)
    share = min(1.0, share)
    if config.schedule == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return config.lr * (1.0 + (config.final_lr - 1.0) * share)
