"""Budgets inside `model.generate` of transformers: a logits processor, or the own engine in its place."""

from elastic.integrations.transformers.custom_generate import BudgetGenerate
from elastic.integrations.transformers.draw import BudgetStoppingCriteria
from elastic.integrations.transformers.processor import BudgetLogitsProcessor

__all__ = ["BudgetGenerate", "BudgetLogitsProcessor", "BudgetStoppingCriteria"]
