"""The learning rate, a function of the update's number alone, so that it needs no saving."""

import math

from elastic.train.config.optim import OptimConfig


def learning_rate(config: OptimConfig, update: int, updates: int) -> float:
    """The rate of one optimizer step.

    Args:
        config: peak rate, warm-up and schedule.
        update: which step, from 0.
        updates: of the whole run; the last one gets ``final_lr`` times the peak (linear, cosine,
            warmup_stable_decay).
    """
    warmup = config.warmup(updates)
    if update < warmup:
        return config.lr * (update + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "inverse_sqrt":
        return config.lr * math.sqrt(warmup / (update + 1))
    last, peak = updates - 1, warmup  # the last update at the peak rate
    if config.schedule == "warmup_stable_decay":
        peak = max(warmup, last - math.ceil(config.decay_ratio * updates))
    share = min(1.0, max(0, update - peak) / max(1, last - peak))
    if config.schedule == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return config.lr * (1.0 + (config.final_lr - 1.0) * share)
