"""Hugging Face models: loading, the embedded one, and what must be known of a model to run it."""

import importlib
from typing import Any

# Resolved on first use: the embedded model's name and problems need no transformers.
_LAZY = {"check_device": "elastic.models.loading", "load_model": "elastic.models.loading"}

__all__ = ["check_device", "load_model"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'elastic.models' has no attribute '{name}'")
