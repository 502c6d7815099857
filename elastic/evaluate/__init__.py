"""Methods x budgets over sets of problems: one harness, its samples, and what they say."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elastic.evaluate.engines import open_engine
    from elastic.evaluate.methods import PolicyOptions
    from elastic.evaluate.row import Row
    from elastic.evaluate.run.evaluate import evaluate
    from elastic.evaluate.run.folder import read_samples
    from elastic.evaluate.run.open_set import eval_set
    from elastic.evaluate.run.sets import EvalSet
    from elastic.evaluate.sample import Sample
    from elastic.evaluate.summary import rows_of

# Resolved on first use: the methods' names and budgets need no engine.
_LAZY = {
    "EvalSet": "run.sets",
    "PolicyOptions": "methods",
    "Row": "row",
    "Sample": "sample",
    "eval_set": "run.open_set",
    "evaluate": "run.evaluate",
    "open_engine": "engines",
    "read_samples": "run.folder",
    "rows_of": "summary",
}

__all__ = [
    "EvalSet",
    "PolicyOptions",
    "Row",
    "Sample",
    "eval_set",
    "evaluate",
    "open_engine",
    "read_samples",
    "rows_of",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"elastic.evaluate.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'elastic.evaluate' has no attribute '{name}'")
