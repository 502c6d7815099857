"""A budget in the request values that a vLLM server with `ElasticBudgets` reads."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from elastic.budget import Budget

_NAMES = {"thinking": "thinking_budget", "solution": "solution_budget", "total": "total_budget"}
_UNLIMITED = -1


def request_values(budget: Budget, phase: str | None = None) -> dict[str, Any]:
    """The `vllm_xargs` of a request, in what HTTP carries: strings, numbers and lists of them.

    The three limits are always given, so that no default of the server takes their place; of the rest, what
    differs from a budget's defaults.

    Args:
        budget: of the request.
        phase: where its row starts; None leaves it to the prompt.
    """
    values: dict[str, Any] = {} if phase is None else {"start_in": phase}
    for field in fields(budget):
        value = getattr(budget, field.name)
        if field.name in _NAMES:
            values[_NAMES[field.name]] = _UNLIMITED if value is None else value
        elif value != field.default:
            values[field.name] = _carried(field.name, value)
    return values


def _carried(name: str, value: Any) -> Any:
    if name == "notices":
        return [item for pair in value for item in pair]
    if isinstance(value, bool):
        return int(value)
    return list(value) if isinstance(value, tuple) else value
