"""Both budgets in vLLM: a logits processor for its two model runners, and an engine for rollouts."""

from typing import Any

__all__ = ["ElasticBudgets", "VLLMEngine"]


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: the first is made of vLLM's own classes."""
    if name == "ElasticBudgets":
        from elastic.integrations.vllm.budgets import ElasticBudgets

        return ElasticBudgets
    if name == "VLLMEngine":
        from elastic.integrations.vllm.engine import VLLMEngine

        return VLLMEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
