"""Both budgets in vLLM: a logits processor for its two model runners."""

from typing import Any

__all__ = ["ElasticBudgets"]


def __getattr__(name: str) -> Any:
    """The class is made of vLLM's own, so it is imported when it is asked for."""
    if name == "ElasticBudgets":
        from elastic.integrations.vllm.budgets import ElasticBudgets

        return ElasticBudgets
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
