"""Separate thinking and solution token budgets for reasoning models.

`import elastic.ops` needs torch alone. Names that need transformers are loaded when first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# name -> module; resolved on first use so that importing the ops stays fast
_LAZY = {
    "Budget": "elastic.budget",
    "FinishReason": "elastic.budget",
    "Markers": "elastic.budget",
    "Phase": "elastic.budget",
    "Source": "elastic.budget",
    "replay": "elastic.rollout.record.replay",
    "Sampling": "elastic.sampling",
    "load_model": "elastic.models",
    "RolloutBatch": "elastic.rollout",
    "RolloutEngine": "elastic.rollout",
}

__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name == "tiny":
        return importlib.import_module("elastic.models.tiny")
    raise AttributeError(f"module 'elastic' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
