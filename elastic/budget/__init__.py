"""Budgets, markers, and the int32 tables they compile to. Knows no model."""

from elastic.budget.budget import Budget
from elastic.budget.kinds import START_PHASES, FinishReason, Phase, Source
from elastic.budget.machine import Machine, compile_budgets
from elastic.budget.markers import Markers, MarkerWarning, NaturalEnd
from elastic.budget.values import CLOSINGS

__all__ = [
    "CLOSINGS",
    "START_PHASES",
    "Budget",
    "FinishReason",
    "Machine",
    "MarkerWarning",
    "Markers",
    "NaturalEnd",
    "Phase",
    "Source",
    "compile_budgets",
]
