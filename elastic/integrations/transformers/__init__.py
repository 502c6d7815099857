"""Budgets inside `model.generate` of transformers: a logits processor, or the own engine in its place."""

from elastic.integrations.transformers.draw import BudgetStoppingCriteria
from elastic.integrations.transformers.engine_generate import custom_generate
from elastic.integrations.transformers.processor import BudgetLogitsProcessor

__all__ = ["BudgetLogitsProcessor", "BudgetStoppingCriteria", "custom_generate"]
