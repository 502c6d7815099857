"""GRPO training with budget-constrained rollouts."""

import importlib
from typing import Any

# Resolved on first use: a mistake in a configuration is found before transformers and accelerate are loaded.
_LAZY = {
    "TrainConfig": "elastic.train.config",
    "Trainer": "elastic.train.trainer",
    "build_trainer": "elastic.train.from_config",
    "train_from_config": "elastic.train.from_config",
}

__all__ = ["TrainConfig", "Trainer", "build_trainer", "train_from_config"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'elastic.train' has no attribute '{name}'")
