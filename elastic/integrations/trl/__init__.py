"""TRL's GRPOTrainer under budgets: rollouts for any of its trainers, and a trainer with the fused loss.

`elastic_rollout_func(budget, ...)` goes into `GRPOTrainer(rollout_func=...)`; `ElasticGRPOTrainer` is a
GRPOTrainer whose loss is `elastic.ops.linear_grpo_loss`. Both need TRL, in the versions of `TESTED`.
"""

import importlib
from typing import Any

from elastic.integrations.trl.versions import TESTED, check_trl

_LAZY = {
    "ElasticGRPOTrainer": "elastic.integrations.trl.trainer",
    "elastic_rollout_func": "elastic.integrations.trl.rollout",
}

__all__ = ["TESTED", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        check_trl()
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'elastic.integrations.trl' has no attribute '{name}'")
